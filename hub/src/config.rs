//! Settings of `onhand-hub run`: flags before environment (`ONHAND_HUB_LAKE` …) before file (`--config`) before defaults.
//!
//! Two types: [`GivenConfig`] is what somebody wrote, text by text; [`HubConfig`] is what was made of it, and all that the
//! rest of the hub sees. A refusal names the setting, where it was given, and what would be right.

use crate::actors::ActorLimits;
use crate::gateway::BrokerUrl;
use crate::lake::Retention;
use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Environment variables that begin so are settings, if the rest is a setting's name.
pub const ENV_PREFIX: &str = "ONHAND_HUB_";
/// Port of MQTT without TLS, and with.
const MQTT_PORTS: (u16, u16) = (1883, 8883);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A setting as it was written: in a file also a number or a truth value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(String);

impl std::str::FromStr for Text {
    type Err = std::convert::Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Text(String),
            Truth(bool),
            Integer(i64),
            Fraction(f64),
        }
        let written = Written::deserialize(deserializer)
            .map_err(|_| serde::de::Error::custom("is neither a text nor a number nor true or false"))?;
        Ok(Self(match written {
            Written::Text(text) => text,
            Written::Truth(truth) => truth.to_string(),
            Written::Integer(number) => number.to_string(),
            Written::Fraction(number) => number.to_string(),
        }))
    }
}

macro_rules! given {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// What was given, by flags, environment or file; none of it checked.
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
        #[serde(deny_unknown_fields)]
        pub struct GivenConfig {
            $($(#[$doc])* #[arg(long)] #[serde(default, skip_serializing_if = "Option::is_none")] pub $name: Option<Text>,)*
        }

        /// Names of all settings, as the file has them.
        const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

given! {
    /// Where the tables are: a folder, or an object store's URL
    #[arg(value_name = "ROOT")]
    lake,
    /// Where the hub's own MQTT endpoint listens [default: 0.0.0.0:1883 with --agents, else 127.0.0.1:1883; 8883 with TLS]
    #[arg(value_name = "ADDRESS", conflicts_with = "mqtt")]
    listen_mqtt,
    /// A broker that runs elsewhere, instead of the own endpoint: mqtt://HOST:1883 or mqtts://HOST:8883
    #[arg(value_name = "URL")]
    mqtt,
    /// Client id at that broker [default: onhand-hub]
    #[arg(value_name = "ID")]
    mqtt_client_id,
    /// File of the agents that may connect: ids, password hashes, stores
    #[arg(value_name = "FILE")]
    agents,
    /// Take any agent on any address, without --agents
    #[arg(value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    insecure_open,
    /// Certificate chain of the own MQTT endpoint, PEM
    #[arg(value_name = "FILE")]
    tls_cert,
    /// Its private key, PEM
    #[arg(value_name = "FILE")]
    tls_key,
    /// Folder with store.txt, item.txt, inventory_change_type.txt
    #[arg(value_name = "DIR")]
    reference,
    /// How often that folder is looked at [default: 24h]
    #[arg(value_name = "DURATION")]
    reference_interval,
    /// Folder in which count files appear
    #[arg(value_name = "DIR")]
    count_files,
    /// Where the HTTP API listens [default: 0.0.0.0:8080]
    #[arg(value_name = "ADDRESS")]
    http,
    /// Time between silver commits [default: 1s]
    #[arg(value_name = "DURATION")]
    silver_interval,
    /// Time between gold commits [default: 5s]
    #[arg(value_name = "DURATION")]
    gold_interval,
    /// Whether received documents are kept as they came [default: on]
    #[arg(value_name = "on|off")]
    bronze,
    /// Take what is there (count files, agents' backlogs), commit it, and end
    #[arg(value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    once,
    /// Most items with an actor of their own [default: 100000]
    #[arg(value_name = "N")]
    live_items,
    /// An item that nothing happened to for so long gives its actor up [default: 5min]
    #[arg(value_name = "DURATION")]
    idle_after,
    /// Most identities of taken events in memory, 32 bytes each; older ones are looked up in silver [default: 16000000]
    #[arg(value_name = "N")]
    identities,
    /// Most rows that await a commit; beyond it senders wait [default: 1000000]
    #[arg(value_name = "N")]
    max_awaiting_rows,
    /// How far back the tables' past can be read [default: 24h]
    #[arg(value_name = "DURATION")]
    log_retention,
    /// How long replaced data files stay: above the longest time a reader takes [default: 6h]
    #[arg(value_name = "DURATION")]
    file_retention,
    /// Which part of the cloud side this process is [default: all]
    #[arg(value_name = "all|gateway|processor")]
    role,
    /// Bootstrap servers of Kafka, for the other roles
    #[arg(value_name = "BOOTSTRAP")]
    kafka,
    /// Write the bound addresses to this file, as JSON: {"mqtt": …, "http": …}
    #[arg(value_name = "FILE")]
    addr_file,
}

/// Checked settings of `onhand-hub run`.
#[derive(Debug, Clone)]
pub struct HubConfig {
    /// Where the tables are.
    pub lake: String,
    /// How long the tables keep what no newest version needs.
    pub retention: Retention,
    /// How agents reach the hub.
    pub mqtt: MqttSide,
    /// The file of agents; `None`: any agent is taken.
    pub agents: Option<PathBuf>,
    /// Any agent is taken on any address, and whoever started the hub knows.
    pub insecure_open: bool,
    /// The folder of the reference data.
    pub reference: Option<PathBuf>,
    /// How often it is looked at.
    pub reference_interval: Duration,
    /// The folder of the count files.
    pub count_files: Option<PathBuf>,
    /// Where the HTTP API listens.
    pub http: SocketAddr,
    /// Time between silver commits.
    pub silver_interval: Duration,
    /// Time between gold commits.
    pub gold_interval: Duration,
    /// Whether bronze is written.
    pub bronze: bool,
    /// Take what is there, commit it, and end.
    pub once: bool,
    /// Caps of the actors.
    pub limits: ActorLimits,
    /// Most rows that await a commit.
    pub most_awaiting_rows: usize,
    /// Where the bound addresses are written.
    pub addr_file: Option<PathBuf>,
}

/// How agents reach the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MqttSide {
    /// By the hub's own endpoint.
    Embedded {
        /// Where it listens; port 0: any free one.
        listen: SocketAddr,
        /// Its certificate; `None`: plain TCP.
        tls: Option<TlsFiles>,
    },
    /// By a broker that runs elsewhere.
    External {
        /// `mqtt://` or `mqtts://`, with user and password where the broker asks for them.
        url: String,
        /// Fixed, so that the broker keeps what comes while the hub is away.
        client_id: String,
    },
}

/// Certificate and key of the own endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate chain, PEM.
    pub cert: PathBuf,
    /// Private key, PEM.
    pub key: PathBuf,
}

/// A setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting}{}: {reason}", .given_by.as_ref().map(|by| format!(" ({by})")).unwrap_or_default())]
pub struct ConfigError {
    /// Its name, as the file has it; the flag has dashes and the environment capitals.
    pub setting: String,
    /// Where it was given, if it was.
    pub given_by: Option<String>,
    /// What is wrong, and what would be right.
    pub reason: String,
}

impl HubConfig {
    /// Merges what was given and checks it. `env` are environment variables; those that are no settings are ignored,
    /// since others name theirs alike (Kubernetes does, for a service of this name).
    ///
    /// # Errors
    /// Names the setting.
    pub fn load(
        flags: &GivenConfig,
        env: impl IntoIterator<Item = (String, String)>,
        file: Option<&Path>,
    ) -> Result<Self, ConfigError> {
        let mut figment = Figment::new();
        if let Some(path) = file {
            if let Err(error) = std::fs::read_to_string(path) {
                let reason = format!("{} cannot be read: {error}", path.display());
                return Err(ConfigError { setting: "config".to_owned(), given_by: None, reason });
            }
            figment = figment.merge(Toml::file_exact(path));
        }
        let env = env.into_iter().filter_map(|(name, value)| {
            let name = name.strip_prefix(ENV_PREFIX)?.to_lowercase();
            NAMES.contains(&name.as_str()).then_some((name, Value::from(value)))
        });
        let flags = Value::serialize(flags).ok().and_then(Value::into_dict).expect("a struct of texts is a dictionary");
        let figment = figment
            .merge(Layer { name: "from the environment", values: env.collect() })
            .merge(Layer { name: "from the command line", values: flags });
        let given: GivenConfig = figment.extract().map_err(|error| not_extracted(&error))?;
        Checker { given_by: &|setting| given_by(&figment, setting) }.check(&given)
    }
}

/// Texts of one origin. (figment's own environment provider would make numbers of ids like 007.)
struct Layer {
    name: &'static str,
    values: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.values.clone())]))
    }
}

fn given_by(figment: &Figment, setting: &str) -> Option<String> {
    let metadata = figment.find_metadata(setting)?;
    Some(match metadata.source.as_ref().and_then(|source| source.file_path()) {
        Some(path) => format!("in {}", path.display()),
        None => metadata.name.to_string(),
    })
}

fn not_extracted(error: &figment::Error) -> ConfigError {
    let source = error.metadata.as_ref().and_then(|m| m.source.as_ref()).map(|source| format!("in {source}"));
    let (setting, reason) = match &error.kind {
        figment::error::Kind::UnknownField(name, _) => {
            (name.clone(), format!("is no setting; there are: {}", NAMES.join(", ")))
        }
        kind if error.path.is_empty() => ("config".to_owned(), kind.to_string()),
        kind => (error.path.join("."), kind.to_string()),
    };
    ConfigError { setting, given_by: source, reason }
}

struct Checker<'a> {
    given_by: &'a dyn Fn(&str) -> Option<String>,
}

impl Checker<'_> {
    fn refuse<T>(&self, setting: &str, reason: impl Into<String>) -> Result<T, ConfigError> {
        let (setting, given_by) = (setting.to_owned(), (self.given_by)(setting));
        Err(ConfigError { setting, given_by, reason: reason.into() })
    }

    fn check(&self, given: &GivenConfig) -> Result<HubConfig, ConfigError> {
        self.check_role(given)?;
        let Some(lake) = self.text("lake", &given.lake)? else {
            return self.refuse("lake", "is missing: say where the tables are, with --lake ROOT");
        };
        let insecure_open = self.truth("insecure_open", &given.insecure_open, false)?;
        let defaults = ActorLimits::default();
        let retention = Retention::default();
        let most_rows = tokio::sync::Semaphore::MAX_PERMITS.min(u32::MAX as usize);
        Ok(HubConfig {
            lake: lake.to_owned(),
            retention: Retention {
                log: self.duration("log_retention", &given.log_retention, retention.log, 365 * 100 * DAY)?,
                deleted_files: self.duration(
                    "file_retention",
                    &given.file_retention,
                    retention.deleted_files,
                    365 * 100 * DAY,
                )?,
            },
            mqtt: self.mqtt_side(given, insecure_open)?,
            agents: self.path("agents", &given.agents, Path::is_file, "is no file")?,
            insecure_open,
            reference: self.path("reference", &given.reference, Path::is_dir, "is no folder")?,
            reference_interval: self.duration("reference_interval", &given.reference_interval, DAY, 365 * DAY)?,
            count_files: self.count_files(&given.count_files)?,
            http: self
                .address("http", &given.http)?
                .unwrap_or(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8080)),
            silver_interval: self.duration("silver_interval", &given.silver_interval, Duration::from_secs(1), DAY)?,
            gold_interval: self.duration("gold_interval", &given.gold_interval, Duration::from_secs(5), DAY)?,
            bronze: self.truth("bronze", &given.bronze, true)?,
            once: self.truth("once", &given.once, false)?,
            limits: ActorLimits {
                live_items: self.number("live_items", &given.live_items, defaults.live_items, 1..=usize::MAX)?,
                idle_after: self.duration("idle_after", &given.idle_after, defaults.idle_after, 365 * DAY)?,
                identities: self.number("identities", &given.identities, defaults.identities, 1..=usize::MAX)?,
            },
            most_awaiting_rows: self.number(
                "max_awaiting_rows",
                &given.max_awaiting_rows,
                1_000_000,
                1_000..=most_rows,
            )?,
            addr_file: self.text("addr_file", &given.addr_file)?.map(PathBuf::from),
        })
    }

    fn check_role(&self, given: &GivenConfig) -> Result<(), ConfigError> {
        const NOT_YET: &str = "needs the Kafka form, which this build does not have yet";
        match self.text("role", &given.role)? {
            None | Some("all") => {}
            Some("gateway" | "processor") => return self.refuse("role", NOT_YET),
            Some(other) => return self.refuse("role", format!("{other:?} is none of all, gateway, processor")),
        }
        if given.kafka.is_some() { self.refuse("kafka", NOT_YET) } else { Ok(()) }
    }

    fn mqtt_side(&self, given: &GivenConfig, insecure_open: bool) -> Result<MqttSide, ConfigError> {
        if let Some(url) = self.text("mqtt", &given.mqtt)? {
            for (setting, value) in [
                ("listen_mqtt", &given.listen_mqtt),
                ("agents", &given.agents),
                ("tls_cert", &given.tls_cert),
                ("tls_key", &given.tls_key),
            ] {
                if value.is_some() {
                    return self.refuse(setting, "is for the hub's own MQTT endpoint, but mqtt names another broker");
                }
            }
            if let Err(error) = url.parse::<BrokerUrl>() {
                return self.refuse("mqtt", error.to_string());
            }
            let client_id = self.text("mqtt_client_id", &given.mqtt_client_id)?.unwrap_or("onhand-hub").to_owned();
            return Ok(MqttSide::External { url: url.to_owned(), client_id });
        }
        if given.mqtt_client_id.is_some() {
            return self.refuse("mqtt_client_id", "is for a broker that runs elsewhere, but mqtt names none");
        }
        let cert = self.path("tls_cert", &given.tls_cert, Path::is_file, "is no file")?;
        let key = self.path("tls_key", &given.tls_key, Path::is_file, "is no file")?;
        let tls = match (cert, key) {
            (Some(cert), Some(key)) => Some(TlsFiles { cert, key }),
            (None, None) => None,
            (Some(_), None) => return self.refuse("tls_key", "is missing: tls_cert needs it"),
            (None, Some(_)) => return self.refuse("tls_cert", "is missing: tls_key needs it"),
        };
        let closed = given.agents.is_some();
        let port = if tls.is_some() { MQTT_PORTS.1 } else { MQTT_PORTS.0 };
        let host = if closed { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST };
        let listen =
            self.address("listen_mqtt", &given.listen_mqtt)?.unwrap_or(SocketAddr::new(IpAddr::V4(host), port));
        if !closed && !insecure_open && !listen.ip().to_canonical().is_loopback() {
            return self.refuse(
                "listen_mqtt",
                format!(
                    "{listen} can be reached from other machines, and without agents anyone who reaches it is taken for an \
                     agent: name the agents (--agents FILE), listen on 127.0.0.1, or say --insecure-open"
                ),
            );
        }
        Ok(MqttSide::Embedded { listen, tls })
    }

    fn count_files(&self, given: &Option<Text>) -> Result<Option<PathBuf>, ConfigError> {
        match self.text("count_files", given)? {
            Some(url) if url.contains("://") => self.refuse(
                "count_files",
                format!("{url} is an object store, which this build does not read yet; a folder works"),
            ),
            folder => Ok(folder.map(PathBuf::from)),
        }
    }

    fn text<'t>(&self, setting: &str, given: &'t Option<Text>) -> Result<Option<&'t str>, ConfigError> {
        match given.as_ref().map(|text| text.0.trim()) {
            Some("") => self.refuse(setting, "is empty"),
            text => Ok(text),
        }
    }

    fn path(
        &self,
        setting: &str,
        given: &Option<Text>,
        is_right: impl Fn(&Path) -> bool,
        wrong: &str,
    ) -> Result<Option<PathBuf>, ConfigError> {
        match self.text(setting, given)?.map(PathBuf::from) {
            Some(path) if !is_right(&path) => self.refuse(setting, format!("{} {wrong}", path.display())),
            path => Ok(path),
        }
    }

    fn address(&self, setting: &str, given: &Option<Text>) -> Result<Option<SocketAddr>, ConfigError> {
        let Some(text) = self.text(setting, given)? else { return Ok(None) };
        match text.strip_prefix("localhost:").map_or(text.to_owned(), |port| format!("127.0.0.1:{port}")).parse() {
            Ok(address) => Ok(Some(address)),
            Err(_) => self.refuse(setting, format!("{text:?} is not an address with a port, like 127.0.0.1:1883")),
        }
    }

    fn duration(
        &self,
        setting: &str,
        given: &Option<Text>,
        default: Duration,
        most: Duration,
    ) -> Result<Duration, ConfigError> {
        const LEAST: Duration = Duration::from_millis(10);
        let Some(text) = self.text(setting, given)? else { return Ok(default) };
        match humantime::parse_duration(text) {
            Ok(duration) if (LEAST..=most).contains(&duration) => Ok(duration),
            Ok(_) => {
                let most = humantime::format_duration(most);
                self.refuse(setting, format!("{text} is not between 10ms and {most}"))
            }
            Err(_) => self.refuse(setting, format!("{text:?} is not a duration, like 500ms, 5s, 24h")),
        }
    }

    fn number(
        &self,
        setting: &str,
        given: &Option<Text>,
        default: usize,
        range: std::ops::RangeInclusive<usize>,
    ) -> Result<usize, ConfigError> {
        let Some(text) = self.text(setting, given)? else { return Ok(default) };
        match text.replace('_', "").parse() {
            Ok(number) if range.contains(&number) => Ok(number),
            Ok(_) => self.refuse(setting, format!("{text} is not between {} and {}", range.start(), range.end())),
            Err(_) => self.refuse(setting, format!("{text:?} is not a whole number")),
        }
    }

    fn truth(&self, setting: &str, given: &Option<Text>, default: bool) -> Result<bool, ConfigError> {
        match self.text(setting, given)?.map(str::to_lowercase).as_deref() {
            None => Ok(default),
            Some("true" | "on" | "yes" | "1") => Ok(true),
            Some("false" | "off" | "no" | "0") => Ok(false),
            Some(other) => self.refuse(setting, format!("{other:?} is neither on nor off")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(settings: &[(&str, &str)]) -> GivenConfig {
        let values: Dict = settings.iter().map(|&(k, v)| (k.to_owned(), Value::from(v))).collect();
        Figment::from(Layer { name: "test", values }).extract().unwrap()
    }

    fn load(flags: &[(&str, &str)], env: &[(&str, &str)], file: Option<&str>) -> Result<HubConfig, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hub.toml");
        let path = file.map(|text| {
            std::fs::write(&path, text).unwrap();
            path.as_path()
        });
        let env = env.iter().map(|&(k, v)| (k.to_owned(), v.to_owned()));
        HubConfig::load(&given(flags), env, path)
    }

    #[test]
    fn the_defaults_are_those_of_the_contract() {
        let config = load(&[("lake", "/l")], &[], None).unwrap();
        assert_eq!(config.lake, "/l");
        let listen = "127.0.0.1:1883".parse().unwrap();
        assert_eq!(config.mqtt, MqttSide::Embedded { listen, tls: None });
        assert_eq!(config.http, "0.0.0.0:8080".parse().unwrap());
        assert_eq!((config.silver_interval, config.gold_interval), (Duration::from_secs(1), Duration::from_secs(5)));
        assert_eq!((config.reference_interval, config.most_awaiting_rows), (DAY, 1_000_000));
        assert_eq!(config.retention, Retention::default());
        assert!(config.bronze && !config.once && !config.insecure_open && config.agents.is_none());
    }

    #[test]
    fn flags_win_over_environment_and_that_over_the_file() {
        let file = "lake = \"/file\"\nsilver_interval = \"2s\"\nlive_items = 7\nbronze = false\nhttp = \"[::1]:9\"";
        let env = [
            ("ONHAND_HUB_LAKE", "/env"),
            ("ONHAND_HUB_SILVER_INTERVAL", "3s"),
            ("ONHAND_HUB_PORT", "tcp://10.0.0.1:1883"),
            ("OTHER_LAKE", "/other"),
        ];
        let config = load(&[("lake", "/flag")], &env, Some(file)).unwrap();
        assert_eq!(config.lake, "/flag");
        assert_eq!(config.silver_interval, Duration::from_secs(3));
        assert_eq!(config.limits.live_items, 7);
        assert_eq!(config.http, "[::1]:9".parse().unwrap());
        assert!(!config.bronze);
        assert_eq!(load(&[], &env, Some(file)).unwrap().lake, "/env");
        assert_eq!(load(&[], &[], Some(file)).unwrap().lake, "/file");
    }

    #[test]
    fn texts_that_look_like_numbers_stay_texts() {
        let env = [("ONHAND_HUB_MQTT_CLIENT_ID", "007"), ("ONHAND_HUB_MQTT", "mqtt://h:1")];
        let config = load(&[("lake", "12")], &env, None).unwrap();
        assert_eq!(config.lake, "12");
        assert_eq!(config.mqtt, MqttSide::External { url: "mqtt://h:1".to_owned(), client_id: "007".to_owned() });
    }

    #[test]
    fn refusals_name_the_setting_and_where_it_was_given() {
        let error = |flags: &[(&str, &str)], env: &[(&str, &str)], file: Option<&str>| {
            let flags: Vec<_> = [("lake", "/l")].into_iter().chain(flags.iter().copied()).collect();
            load(&flags, env, file).unwrap_err().to_string()
        };
        for (flags, expected) in [
            (&[("silver_interval", "5")][..], "silver_interval (from the command line): \"5\" is not a duration"),
            (&[("gold_interval", "0s")], "gold_interval (from the command line): 0s is not between"),
            (&[("http", "8080")], "http (from the command line): \"8080\" is not an address"),
            (&[("bronze", "maybe")], "bronze (from the command line): \"maybe\" is neither"),
            (&[("live_items", "-1")], "live_items (from the command line): \"-1\" is not a whole number"),
            (&[("max_awaiting_rows", "1")], "max_awaiting_rows (from the command line): 1 is not between 1000"),
            (&[("listen_mqtt", "0.0.0.0:1883")], "--insecure-open"),
            (&[("listen_mqtt", "[::]:0")], "listen_mqtt (from the command line): [::]:0 can be reached"),
            (&[("mqtt", "http://h")], "mqtt (from the command line): not a broker's URL"),
            (&[("mqtt", "mqtt://h"), ("listen_mqtt", "127.0.0.1:0")], "listen_mqtt (from the command line): is for"),
            (&[("mqtt_client_id", "x")], "mqtt_client_id (from the command line): is for a broker"),
            (&[("agents", "/nowhere/agents.toml")], "agents (from the command line): /nowhere/agents.toml is no file"),
            (&[("tls_cert", "/nowhere/cert.pem")], "tls_cert (from the command line): /nowhere/cert.pem is no file"),
            (&[("reference", "/nowhere")], "reference (from the command line): /nowhere is no folder"),
            (&[("count_files", "s3://b/c")], "count_files (from the command line): s3://b/c is an object store"),
            (&[("role", "gateway")], "role (from the command line): needs the Kafka form, which this build"),
            (&[("role", "king")], "role (from the command line): \"king\" is none of"),
            (&[("kafka", "k:9092")], "kafka (from the command line): needs the Kafka form"),
        ] {
            let refusal = error(flags, &[], None);
            assert!(refusal.contains(expected), "{refusal}");
        }
        let refusal = error(&[], &[("ONHAND_HUB_ONCE", "perhaps")], None);
        assert!(refusal.starts_with("once (from the environment): "), "{refusal}");
        let refusal = error(&[], &[], Some("gold_interval = 5"));
        assert!(refusal.starts_with("gold_interval (in /") && refusal.contains("hub.toml): "), "{refusal}");
        let refusal = error(&[], &[], Some("golden_interval = 5"));
        assert!(refusal.starts_with("golden_interval (in ") && refusal.contains("is no setting"), "{refusal}");
        let refusal = error(&[], &[], Some("bronze = [1]"));
        assert!(refusal.starts_with("bronze (in ") && refusal.contains("is neither a text"), "{refusal}");
        let refusal = error(&[], &[], Some("bronze ="));
        assert!(refusal.starts_with("config"), "{refusal}");
        let refusal = load(&[], &[], None).unwrap_err().to_string();
        assert!(refusal.starts_with("lake: is missing"), "{refusal}");
        let refusal = HubConfig::load(&GivenConfig::default(), [], Some(Path::new("/nowhere/hub.toml"))).unwrap_err();
        assert!(refusal.to_string().starts_with("config: /nowhere/hub.toml cannot be read"), "{refusal}");
    }

    #[test]
    fn an_open_endpoint_beyond_this_machine_has_to_be_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let agents = folder.path().join("agents.toml");
        std::fs::write(&agents, "").unwrap();
        let listen = |flags: &[(&str, &str)]| {
            let flags: Vec<_> = [("lake", "/l")].into_iter().chain(flags.iter().copied()).collect();
            match load(&flags, &[], None).unwrap().mqtt {
                MqttSide::Embedded { listen, .. } => listen.to_string(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(listen(&[("listen_mqtt", "0.0.0.0:0"), ("insecure_open", "true")]), "0.0.0.0:0");
        assert_eq!(listen(&[("listen_mqtt", "localhost:7")]), "127.0.0.1:7");
        assert_eq!(listen(&[("agents", agents.to_str().unwrap())]), "0.0.0.0:1883");
        assert_eq!(listen(&[("agents", agents.to_str().unwrap()), ("listen_mqtt", "10.0.0.1:0")]), "10.0.0.1:0");
    }
}
