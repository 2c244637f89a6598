//! Settings of `onhand-hub run`: flags before environment (`ONHAND_HUB_LAKE` …) before file (`--config`) before defaults.
//!
//! Two types: [`GivenConfig`] is what somebody wrote, text by text; [`HubConfig`] is what was made of it, and all that the
//! rest of the hub sees. A refusal names the setting, where it was given, and what would be right.

mod check;
mod given;
mod kafka;

pub use given::{GivenConfig, Pair, Text};
pub use kafka::KafkaSettings;

use crate::actors::ActorLimits;
use crate::lake::Retention;
use check::Checker;
use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use given::NAMES;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Environment variables that begin so are settings, if the rest is a setting's name.
pub const ENV_PREFIX: &str = "ONHAND_HUB_";

/// Checked settings of `onhand-hub run`.
#[derive(Debug, Clone)]
pub struct HubConfig {
    /// Which part of the cloud side this process is.
    pub role: Role,
    /// How Kafka is reached; always there for gateways and processors.
    pub kafka: Option<KafkaSettings>,
    /// Where the tables are; empty for a gateway, which needs none.
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
    /// Where count files come from: a folder, or a URL of object storage.
    pub count_files: Option<String>,
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

/// Which part of the cloud side a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// All of it.
    All,
    /// From MQTT to Kafka.
    Gateway,
    /// From Kafka to the lake.
    Processor,
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
        Self::over(figment, flags, env)
    }

    /// What environment and flags say, over what the file says.
    ///
    /// # Errors
    /// As [`HubConfig::load`].
    pub(crate) fn over(
        file: Figment,
        flags: &GivenConfig,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let env = env.into_iter().filter_map(|(name, value)| {
            let name = name.strip_prefix(ENV_PREFIX)?.to_lowercase();
            if name == "kafka_set" {
                return Some((name, Value::from(pairs_of(&value))));
            }
            NAMES.contains(&name.as_str()).then_some((name, Value::from(value)))
        });
        let flags = Value::serialize(flags).ok().and_then(Value::into_dict).expect("a struct of texts is a dictionary");
        let figment = file
            .merge(Layer { name: "from the environment", values: env.collect() })
            .merge(Layer { name: "from the command line", values: flags });
        let given: GivenConfig = figment.extract().map_err(|error| not_extracted(&error))?;
        Checker { given_by: &|setting| given_by(&figment, setting) }.check(&given)
    }
}

/// One `key=value` to a line. What is none is passed on as a key without a value, and refused there.
fn pairs_of(lines: &str) -> std::collections::BTreeMap<String, String> {
    let lines = lines.lines().filter(|line| !line.trim().is_empty());
    let pair = |line: &str| match line.parse::<Pair>() {
        Ok(Pair { key, value }) => (key, value),
        Err(_) => (line.to_owned(), String::new()),
    };
    lines.map(pair).collect()
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
    let named = |name: String| if name.is_empty() { "\"\"".to_owned() } else { name };
    let (setting, reason) = match &error.kind {
        figment::error::Kind::UnknownField(name, _) => {
            (name.clone(), format!("is no setting; there are: {}", NAMES.join(", ")))
        }
        kind if error.path.is_empty() => ("config".to_owned(), kind.to_string()),
        kind => (error.path.join("."), kind.to_string()),
    };
    // TOML allows a name of no letters.
    ConfigError { setting: named(setting), given_by: source, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

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
            let gateway = flags.contains(&("role", "gateway"));
            let lake = (!gateway).then_some(("lake", "/l"));
            let flags: Vec<_> = lake.into_iter().chain(flags.iter().copied()).collect();
            load(&flags, env, file).unwrap_err().to_string()
        };
        for (flags, expected) in [
            (&[("silver_interval", "5")][..], "silver_interval (from the command line): \"5\" is not a duration"),
            (&[("log_retention", "1m")], "log_retention (from the command line): is shorter than 1h"),
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
            (
                &[("count_files", "ftp://b/c")],
                "count_files (from the command line): ftp://b/c: \"ftp\" is no object storage",
            ),
            (&[("role", "gateway")], "kafka: is missing"),
            (
                &[("role", "processor"), ("kafka", "k:9092"), ("mqtt", "mqtt://h")],
                "mqtt (from the command line): is for gate",
            ),
            (
                &[("role", "gateway"), ("kafka", "k:9092"), ("reference", "/")],
                "reference (from the command line): is for",
            ),
            (&[("role", "gateway"), ("kafka", "k:9092"), ("lake", "/l")], "lake (from the command line): is for proc"),
            (
                &[("role", "gateway"), ("kafka", "k:9092"), ("gold_interval", "1s")],
                "gold_interval (from the command line): is for proc",
            ),
            (
                &[("role", "gateway"), ("kafka", "k:9092"), ("kafka_instance", "one")],
                "kafka_instance (from the command line): is for proc",
            ),
            (
                &[("role", "gateway"), ("kafka", "k:9092"), ("once", "true")],
                "once (from the command line): is for role all",
            ),
            (&[("kafka_raw_topic", "pos")], "kafka: is missing"),
            (&[("role", "king")], "role (from the command line): \"king\" is none of"),
            (&[("kafka", "k:9092")], "kafka (from the command line): is given, but nothing to do with it"),
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
