//! Settings: what was given (`Given`: text from flags, environment, file), and what was validated (`Config`). Nothing past
//! start-up sees the first.

use crate::hub_url::HubUrl;
use crate::window::Limits;
use anyhow::{Context, anyhow, bail};
use bytesize::ByteSize;
use clap::Args;
use figment::Figment;
use figment::providers::{Format, Serialized, Toml};
use onhand_common::{AgentId, StoreId};
use rustls::ClientConfig;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// What environment variables begin with.
const ENVIRONMENT: &str = "ONHAND_AGENT_";

/// A setting's text, from wherever it came: a number in a TOML file is as good as its digits in a flag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Text(String);

impl FromStr for Text {
    type Err = std::convert::Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyScalar;
        impl<'de> Visitor<'de> for AnyScalar {
            type Value = Text;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a number or a list of them")
            }
            fn visit_str<E: de::Error>(self, v: &str) -> Result<Text, E> {
                Ok(Text(v.to_owned()))
            }
            fn visit_i64<E: de::Error>(self, v: i64) -> Result<Text, E> {
                Ok(Text(v.to_string()))
            }
            fn visit_u64<E: de::Error>(self, v: u64) -> Result<Text, E> {
                Ok(Text(v.to_string()))
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Text, A::Error> {
                let mut parts = Vec::new();
                while let Some(Text(part)) = seq.next_element()? {
                    parts.push(part);
                }
                Ok(Text(parts.join(",")))
            }
        }
        deserializer.deserialize_any(AnyScalar)
    }
}

/// What was given. Flags win over the environment (ONHAND_AGENT_ and the name in capitals), that over the file.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Given {
    /// This agent's id, unique in the fleet; also its MQTT client id [required]
    #[arg(long, value_name = "ID")]
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_id: Option<Text>,
    /// The stores it serves, by id, separated by commas [required]
    #[arg(long, value_name = "IDS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    stores: Option<Text>,
    /// Its data folder, which outlives it [required]
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Text>,
    /// The hub or broker: mqtt://[user:password@]host[:1883], or mqtts:// for TLS [required]
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    hub: Option<Text>,
    /// Where tills reach it; port 0 takes a free one and writes it to DATA/http.addr [default: 127.0.0.1:7400]
    #[arg(long, value_name = "ADDRESS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    listen: Option<Text>,
    /// A folder whose files are taken too
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    drop_folder: Option<Text>,
    /// Most bytes that wait for the hub; beyond, tills are told 507 [default: 2GiB]
    #[arg(long, value_name = "SIZE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_buffer: Option<Text>,
    /// How long repetitions are told apart [default: 35d]
    #[arg(long, value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    remember: Option<Text>,
    /// Most frames sent and not durably acknowledged [default: 4096]
    #[arg(long, value_name = "FRAMES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<Text>,
    /// Connect anew when no durable ack came for so long while frames are under way [default: 30s]
    #[arg(long, value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    ack_timeout: Option<Text>,
    /// User name at the hub [default: the agent's id, if there is a password]
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<Text>,
    /// Password at the hub (rather use ONHAND_AGENT_PASSWORD or --password-file: others can see flags)
    #[arg(long, value_name = "TEXT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<Text>,
    /// A file that holds the password
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    password_file: Option<Text>,
    /// Certificates (PEM) that the hub's must descend from, for mqtts://
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    ca: Option<Text>,
    /// This agent's certificate chain (PEM), if the hub wants one
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    cert: Option<Text>,
    /// The key (PEM) of this agent's certificate
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Text>,
}

/// How the hub is reached.
#[derive(Clone)]
pub(crate) struct HubConfig {
    /// Where it is.
    pub(crate) url: HubUrl,
    /// User and password.
    pub(crate) login: Option<(String, String)>,
    /// For `mqtts://`.
    pub(crate) tls: Option<Arc<ClientConfig>>,
    /// Most publishes that wait for MQTT's own acknowledgement.
    pub(crate) max_in_flight: usize,
}

/// What was validated.
pub(crate) struct Config {
    /// Who this is.
    pub(crate) agent_id: AgentId,
    /// The stores it serves, in order, each once.
    pub(crate) stores: Vec<StoreId>,
    /// Its data folder.
    pub(crate) data: PathBuf,
    /// The hub.
    pub(crate) hub: HubConfig,
    /// Where tills reach it.
    pub(crate) listen: SocketAddr,
    /// The folder whose files are taken.
    pub(crate) drop_folder: Option<PathBuf>,
    /// Most bytes that wait for the hub.
    pub(crate) max_buffer: u64,
    /// How long repetitions are told apart, in days.
    pub(crate) remember_days: u32,
    /// What may be under way.
    pub(crate) limits: Limits,
}

/// Bytes under way, at most: while a backlog drains, the client may hold all of them in memory. A hub acknowledges about
/// once a second, so this is also what an agent sends in a second at most.
const WINDOW_BYTES: usize = 8 * 1024 * 1024;

/// Largest file that a setting may name, in bytes. They hold passwords, certificates, keys.
const MAX_FILE: u64 = 1024 * 1024;

/// Puts the sources together and validates the whole.
///
/// # Errors
/// Names the setting, the source it came from, and what is wrong with it.
pub(crate) fn load(
    flags: &Given,
    file: Option<&Path>,
    environment: BTreeMap<String, String>,
) -> anyhow::Result<Config> {
    let mut sources = Figment::new();
    if let Some(file) = file {
        if !file.is_file() {
            bail!("config: there is no file {}", file.display());
        }
        sources = sources.merge(Toml::file_exact(file));
    }
    load_over(sources, flags, environment)
}

/// What environment and flags say, over what the file says.
///
/// # Errors
/// As [`load`].
pub(crate) fn load_over(file: Figment, flags: &Given, environment: BTreeMap<String, String>) -> anyhow::Result<Config> {
    let sources = file.merge(Named("the environment", environment)).merge(Named("flags", flags));
    let given: Given = sources.extract().map_err(|e| anyhow!("{}{e}", setting_of(&e)))?;
    Reader { sources: &sources }.config(&given)
}

/// The settings in the environment, by name.
pub(crate) fn from_environment() -> BTreeMap<String, String> {
    // Others may have set what is no text; that is theirs.
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter_map(|(name, value)| Some((name.strip_prefix(ENVIRONMENT)?.to_lowercase(), value)))
        .filter(|(name, _)| name != "config")
        .collect()
}

fn setting_of(error: &figment::Error) -> String {
    if error.path.is_empty() { String::new() } else { format!("{}: ", error.path.join(".")) }
}

/// A source with a name for error messages.
struct Named<T>(&'static str, T);

impl<T: Serialize> figment::Provider for Named<T> {
    fn metadata(&self) -> figment::Metadata {
        figment::Metadata::named(self.0)
    }

    fn data(&self) -> figment::Result<figment::value::Map<figment::Profile, figment::value::Dict>> {
        Serialized::defaults(&self.1).data()
    }
}

struct Reader<'a> {
    sources: &'a Figment,
}

impl Reader<'_> {
    fn config(&self, given: &Given) -> anyhow::Result<Config> {
        let agent_id: AgentId = self.required("agent_id", &given.agent_id, AgentId::new)?;
        let window = self.parsed("window", &given.window, "4096", |t| {
            t.parse::<u16>().ok().filter(|n| *n > 0).ok_or("must be a number of frames from 1 to 65535")
        })?;
        let limits = Limits {
            max_frames: usize::from(window),
            max_bytes: WINDOW_BYTES,
            ack_timeout: self.parsed("ack_timeout", &given.ack_timeout, "30s", duration)?,
        };
        let remember = self.parsed("remember", &given.remember, "35d", duration)?;
        Ok(Config {
            stores: self.required("stores", &given.stores, stores)?,
            data: self.required("data", &given.data, path)?,
            hub: self.hub(given, &agent_id, usize::from(window))?,
            listen: self.parsed("listen", &given.listen, "127.0.0.1:7400", |t| {
                SocketAddr::from_str(t).map_err(|_| "must be an address and a port, as 127.0.0.1:7400")
            })?,
            drop_folder: given.drop_folder.as_ref().map(|t| self.read("drop_folder", t, path)).transpose()?,
            max_buffer: self.parsed("max_buffer", &given.max_buffer, "2GiB", |t| {
                ByteSize::from_str(t)
                    .ok()
                    .map(|size| size.as_u64())
                    .filter(|bytes| *bytes >= 1024 * 1024)
                    .ok_or("must be a size of at least 1MiB, as 512MiB or 2GiB")
            })?,
            // Part of a day is remembered as a whole one.
            remember_days: u32::try_from(remember.as_secs().div_ceil(86_400)).unwrap_or(u32::MAX),
            limits,
            agent_id,
        })
    }

    fn hub(&self, given: &Given, agent_id: &AgentId, window: usize) -> anyhow::Result<HubConfig> {
        let url = self.required("hub", &given.hub, HubUrl::parse)?;
        let given_in = [
            ("password", given.password.is_some()),
            ("password_file", given.password_file.is_some()),
            ("hub", url.password.is_some()),
        ];
        let given_in: Vec<_> = given_in.into_iter().filter(|(_, is_given)| *is_given).map(|(name, _)| name).collect();
        // Which of them is meant, nobody but the giver knows.
        if given_in.len() > 1 {
            let sources = given_in.iter().map(|name| format!("{name}{}", self.source(name))).collect::<Vec<_>>();
            bail!("{}: only one of them may give a password: {}", given_in.join(", "), sources.join(", "));
        }
        let from_file = given.password_file.as_ref().map(|t| self.file("password_file", t)).transpose()?;
        let from_file = from_file
            .map(|bytes| String::from_utf8(bytes).map(|t| t.trim_end_matches(['\r', '\n']).to_owned()))
            .transpose()
            .map_err(|_| anyhow!("password_file: does not hold UTF-8 text"))?;
        let password = given.password.as_ref().map(|t| t.0.clone()).or(from_file).or_else(|| url.password.clone());
        let user = given.user.as_ref().map(|t| t.0.clone()).or_else(|| url.user.clone());
        let login = match (user, password) {
            (user, Some(password)) => Some((user.unwrap_or_else(|| agent_id.to_string()), password)),
            (Some(_), None) => bail!("user: is given without a password (settings password, password_file)"),
            (None, None) => None,
        };
        let tls = if url.tls {
            Some(self.tls(given)?)
        } else {
            for (name, value) in [("ca", &given.ca), ("cert", &given.cert), ("key", &given.key)] {
                if value.is_some() {
                    bail!("{name}: is given, but the hub's URL is mqtt://, which is not encrypted; use mqtts://");
                }
            }
            None
        };
        Ok(HubConfig { url, login, tls, max_in_flight: window })
    }

    fn tls(&self, given: &Given) -> anyhow::Result<Arc<ClientConfig>> {
        let ca =
            given.ca.as_ref().ok_or_else(|| anyhow!("ca: is required for mqtts:// (a PEM file with certificates)"))?;
        let mut roots = rustls::RootCertStore::empty();
        for certificate in rustls_pemfile::certs(&mut self.file("ca", ca)?.as_slice()) {
            roots
                .add(certificate.context("ca: is not a PEM file")?)
                .context("ca: holds a certificate that is not usable")?;
        }
        if roots.is_empty() {
            bail!("ca: holds no certificate");
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let config = match (&given.cert, &given.key) {
            (None, None) => builder.with_no_client_auth(),
            (Some(cert), Some(key)) => {
                let chain =
                    rustls_pemfile::certs(&mut self.file("cert", cert)?.as_slice()).collect::<Result<Vec<_>, _>>();
                let chain = chain.context("cert: is not a PEM file")?;
                let key = rustls_pemfile::private_key(&mut self.file("key", key)?.as_slice())
                    .context("key: is not a PEM file")?;
                let key = key.ok_or_else(|| anyhow!("key: holds no private key"))?;
                builder.with_client_auth_cert(chain, key).context("cert: does not fit the key")?
            }
            (Some(_), None) => bail!("key: is required with cert"),
            (None, Some(_)) => bail!("cert: is required with key"),
        };
        Ok(Arc::new(config))
    }

    fn required<T, E: fmt::Display>(
        &self,
        name: &str,
        text: &Option<Text>,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> anyhow::Result<T> {
        match text {
            Some(text) => self.read(name, text, parse),
            None => {
                let (flag, variable) = (name.replace('_', "-"), name.to_uppercase());
                bail!("{name}: is required (flag --{flag}, environment {ENVIRONMENT}{variable}, or in the file)")
            }
        }
    }

    fn parsed<T, E: fmt::Display>(
        &self,
        name: &str,
        text: &Option<Text>,
        default: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> anyhow::Result<T> {
        let default = Text(default.to_owned());
        self.read(name, text.as_ref().unwrap_or(&default), parse)
    }

    fn read<T, E: fmt::Display>(
        &self,
        name: &str,
        text: &Text,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> anyhow::Result<T> {
        parse(text.0.trim()).map_err(|e| {
            // A URL may hold a password.
            let shown = if name == "hub" { String::new() } else { format!("{:?}: ", text.0) };
            anyhow!("{name}: {shown}{e}{}", self.source(name))
        })
    }

    fn file(&self, name: &str, path: &Text) -> anyhow::Result<Vec<u8>> {
        let read = || {
            let mut bytes = Vec::new();
            File::open(&path.0)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
            match bytes.len() as u64 {
                ..=MAX_FILE => Ok(bytes),
                _ => Err(io::Error::other(format!("it is larger than {MAX_FILE} bytes"))),
            }
        };
        read().map_err(|e| anyhow!("{name}: cannot read {}: {e}{}", path.0, self.source(name)))
    }

    fn source(&self, name: &str) -> String {
        match self.sources.find_metadata(name) {
            Some(metadata) => match &metadata.source {
                Some(figment::Source::File(path)) => format!(" (from the file {})", path.display()),
                _ => format!(" (from {})", metadata.name),
            },
            None => String::new(),
        }
    }
}

fn stores(text: &str) -> Result<Vec<StoreId>, String> {
    let mut stores = text.split(',').map(str::parse).collect::<Result<Vec<StoreId>, _>>()?;
    stores.sort_unstable();
    stores.dedup();
    Ok(stores)
}

fn path(text: &str) -> Result<PathBuf, &'static str> {
    if text.is_empty() { Err("is empty") } else { Ok(PathBuf::from(text)) }
}

fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration >= Duration::from_secs(1) => Ok(duration),
        Ok(_) => Err("must be at least 1s".into()),
        Err(e) => Err(format!("{e}; write it as 30s, 10m or 35d")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(pairs: &[(&str, &str)]) -> Given {
        let map: BTreeMap<&str, &str> = pairs.iter().copied().collect();
        Figment::from(Serialized::defaults(map)).extract().unwrap()
    }

    const NEEDED: [(&str, &str); 4] =
        [("agent_id", "a-1"), ("stores", "2, 1,2"), ("data", "/tmp/d"), ("hub", "mqtt://u:p@hub:1883")];

    fn with(name: &'static str, value: &'static str) -> Result<Config, String> {
        let mut pairs = NEEDED.to_vec();
        pairs.push((name, value));
        load(&given(&pairs), None, BTreeMap::new()).map_err(|e| e.to_string())
    }

    #[test]
    fn defaults_are_as_documented() {
        let config = load(&given(&NEEDED), None, BTreeMap::new()).unwrap();
        assert_eq!(config.stores.iter().map(|s| s.get()).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(config.listen.to_string(), "127.0.0.1:7400");
        assert_eq!((config.max_buffer, config.remember_days), (2 << 30, 35));
        assert_eq!(config.hub.login, Some(("u".into(), "p".into())));
    }

    #[test]
    fn flags_win_over_the_environment_and_that_over_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("agent.toml");
        std::fs::write(
            &file,
            "agent_id = 'file'\nstores = [3, 4]\nwindow = 7\nlisten = '127.0.0.1:1'\nremember = '3d'\n",
        )
        .unwrap();
        let environment = BTreeMap::from([("agent_id", "env"), ("window", "8"), ("password", "007")]);
        let environment = environment.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        let flags = given(&[("data", "/tmp/d"), ("hub", "mqtt://hub"), ("window", "9")]);
        let config = load(&flags, Some(&file), environment).unwrap();
        assert_eq!((config.agent_id.as_str(), config.limits.max_frames, config.remember_days), ("env", 9, 3));
        assert_eq!(config.stores.len(), 2);
        assert_eq!(config.hub.login, Some(("env".into(), "007".into())), "digits of a password are text");
    }

    #[test]
    fn errors_name_the_setting_and_where_it_came_from() {
        for (name, value) in [
            ("agent_id", "a/b"),
            ("stores", "1,x"),
            ("stores", "-1"),
            ("hub", "http://hub"),
            ("listen", "localhost"),
            ("max_buffer", "lots"),
            ("max_buffer", "1KiB"),
            ("remember", "soon"),
            ("window", "0"),
            ("ack_timeout", "0s"),
            ("ca", "/does/not/exist"),
        ] {
            let error = with(name, value).err().unwrap();
            assert!(error.starts_with(&format!("{name}: ")), "{name}={value}: {error}");
        }
        assert!(with("window", "many").err().unwrap().ends_with("(from flags)"));
        let missing = load(&Given::default(), None, BTreeMap::new()).err().unwrap().to_string();
        assert!(missing.starts_with("agent_id: is required (flag --agent-id"), "{missing}");
        let secret = with("hub", "mqtt://me:secret@:1").err().unwrap();
        assert!(!secret.contains("secret"), "{secret}");
    }

    #[test]
    fn a_password_is_given_once_or_the_settings_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let (secret, file) = (dir.path().join("secret"), dir.path().join("agent.toml"));
        std::fs::write(&secret, "from-file\n").unwrap();
        let secret = secret.to_str().unwrap();
        let read = |hub: &str, flag: &str, environment: &str, toml: &str| {
            let mut pairs = vec![("agent_id", "a-1"), ("stores", "1"), ("data", "/tmp/d"), ("hub", hub)];
            if !flag.is_empty() {
                pairs.push((flag, if flag == "password" { "from-flag" } else { secret }));
            }
            let environment = (!environment.is_empty()).then(|| (environment.to_owned(), secret.to_owned()));
            std::fs::write(&file, toml).unwrap();
            let config = load(&given(&pairs), Some(&file), environment.into_iter().collect());
            config.map(|c| c.hub.login.map(|(_, password)| password)).map_err(|e| e.to_string())
        };
        let login = |password: &str| Ok(Some(password.to_owned()));
        assert_eq!(read("mqtt://h", "password", "", ""), login("from-flag"));
        assert_eq!(read("mqtt://h", "password_file", "", ""), login("from-file"));
        assert_eq!(read("mqtt://u:from-url@h", "", "", ""), login("from-url"));
        assert_eq!(read("mqtt://h", "password", "", "password = 'x'"), login("from-flag"), "one setting, two sources");
        for (hub, flag, environment, toml, named) in [
            ("mqtt://h", "password", "password_file", "", "password, password_file: "),
            ("mqtt://h", "password_file", "", "password = 'hidden'", "password, password_file: "),
            ("mqtt://u:hidden@h", "password", "", "", "password, hub: "),
            ("mqtt://u:hidden@h", "", "password_file", "", "password_file, hub: "),
            ("mqtt://u:hidden@h", "password", "password_file", "", "password, password_file, hub: "),
        ] {
            let error = read(hub, flag, environment, toml).unwrap_err();
            assert!(error.starts_with(named) && !error.contains("hidden"), "{error}");
        }
        let missing = load(
            &given(&[
                ("agent_id", "a"),
                ("stores", "1"),
                ("data", "d"),
                ("hub", "mqtt://h"),
                ("password_file", "/no/file"),
            ]),
            None,
            BTreeMap::new(),
        );
        let missing = missing.err().unwrap().to_string();
        assert!(missing.starts_with("password_file: cannot read /no/file"), "{missing}");
    }

    #[test]
    fn a_file_with_an_unknown_setting_or_bad_syntax_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("agent.toml");
        for (content, named) in [("maxbuffer = 1", "maxbuffer"), ("stores = {a = 1}", "stores"), ("= 1", "agent.toml")]
        {
            std::fs::write(&file, content).unwrap();
            let error = load(&given(&NEEDED), Some(&file), BTreeMap::new()).err().map(|e| e.to_string());
            // `stores` is overridden by a flag there, and so not looked at.
            assert!(error.as_ref().is_some_and(|e| e.contains(named)) || named == "stores", "{content}: {error:?}");
        }
    }
}
