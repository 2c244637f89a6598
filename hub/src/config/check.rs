//! From texts to settings that can be used, or a refusal that names the one that cannot.

use super::given::{GivenConfig, Pair, Text};
use super::{ConfigError, HubConfig, KafkaSettings, MqttSide, Role, TlsFiles};
use crate::actors::ActorLimits;
use crate::gateway::BrokerUrl;
use crate::lake::{Retention, cloud};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Port of MQTT without TLS, and with.
const MQTT_PORTS: (u16, u16) = (1883, 8883);
/// Shortest time for which log entries are kept.
const LEAST_LOG_RETENTION: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Knows who gave what, for its refusals.
pub(super) struct Checker<'a> {
    pub(super) given_by: &'a dyn Fn(&str) -> Option<String>,
}

impl Checker<'_> {
    fn refuse<T>(&self, setting: &str, reason: impl Into<String>) -> Result<T, ConfigError> {
        let (setting, given_by) = (setting.to_owned(), (self.given_by)(setting));
        Err(ConfigError { setting, given_by, reason: reason.into() })
    }

    pub(super) fn check(&self, given: &GivenConfig) -> Result<HubConfig, ConfigError> {
        let role = self.role(given)?;
        let kafka = self.kafka(given, role)?;
        let lake = match self.text("lake", &given.lake)? {
            Some(lake) => lake,
            None if role == Role::Gateway => "",
            None => return self.refuse("lake", "is missing: say where the tables are, with --lake ROOT"),
        };
        let insecure_open = self.truth("insecure_open", &given.insecure_open, false)?;
        let defaults = ActorLimits::default();
        let retention = Retention::default();
        let interval = usize::try_from(retention.checkpoint_interval).expect("a small number");
        let most_rows = tokio::sync::Semaphore::MAX_PERMITS.min(u32::MAX as usize);
        Ok(HubConfig {
            role,
            kafka,
            lake: lake.to_owned(),
            retention: Retention {
                log: self.log_retention(&given.log_retention, retention.log)?,
                deleted_files: self.duration(
                    "file_retention",
                    &given.file_retention,
                    retention.deleted_files,
                    365 * 100 * DAY,
                )?,
                look_every: self.duration("clean_interval", &given.clean_interval, retention.look_every, DAY)?,
                checkpoint_interval: self
                    .number("checkpoint_interval", &given.checkpoint_interval, interval, 1..=10_000)?
                    .try_into()
                    .expect("it is at most 10000"),
            },
            mqtt: self.mqtt_side(given, role, insecure_open)?,
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

    fn role(&self, given: &GivenConfig) -> Result<Role, ConfigError> {
        let role = match self.text("role", &given.role)? {
            None | Some("all") => Role::All,
            Some("gateway") => Role::Gateway,
            Some("processor") => Role::Processor,
            Some(other) => return self.refuse("role", format!("{other:?} is none of all, gateway, processor")),
        };
        let of_gateways = [
            ("listen_mqtt", &given.listen_mqtt),
            ("mqtt", &given.mqtt),
            ("agents", &given.agents),
            ("tls_cert", &given.tls_cert),
            ("tls_key", &given.tls_key),
        ];
        let of_processors = [
            ("lake", &given.lake),
            ("log_retention", &given.log_retention),
            ("file_retention", &given.file_retention),
            ("reference", &given.reference),
            ("reference_interval", &given.reference_interval),
            ("count_files", &given.count_files),
            ("silver_interval", &given.silver_interval),
            ("gold_interval", &given.gold_interval),
            ("bronze", &given.bronze),
            ("live_items", &given.live_items),
            ("idle_after", &given.idle_after),
            ("identities", &given.identities),
            ("max_awaiting_rows", &given.max_awaiting_rows),
            ("kafka_group", &given.kafka_group),
            ("kafka_instance", &given.kafka_instance),
        ];
        for (setting, value) in of_gateways {
            if role == Role::Processor && value.is_some() {
                return self.refuse(setting, "is for gateways: a processor hears of agents through Kafka only");
            }
        }
        for (setting, value) in of_processors {
            if role == Role::Gateway && value.is_some() {
                return self.refuse(setting, "is for processors: a gateway has no tables, and joins no consumer group");
            }
        }
        if role != Role::All && given.once.is_some() {
            return self.refuse("once", "is for role all: gateways and processors go on until they are stopped");
        }
        Ok(role)
    }

    fn kafka(&self, given: &GivenConfig, role: Role) -> Result<Option<KafkaSettings>, ConfigError> {
        let raw_topic = self.text("kafka_raw_topic", &given.kafka_raw_topic)?;
        let Some(bootstrap) = self.text("kafka", &given.kafka)? else {
            if role != Role::All || raw_topic.is_some() {
                return self.refuse("kafka", "is missing: name the bootstrap servers, with --kafka HOST:9092");
            }
            return Ok(None);
        };
        match (role, raw_topic) {
            (Role::All, None) => {
                return self.refuse(
                    "kafka",
                    "is given, but nothing to do with it: say --kafka-raw-topic TOPIC, or --role gateway or processor",
                );
            }
            (Role::Gateway | Role::Processor, Some(_)) => {
                return self.refuse("kafka_raw_topic", "is for role all");
            }
            _ => {}
        }
        for Pair { key, value } in &given.kafka_set {
            if value.is_empty() {
                return self.refuse("kafka_set", format!("{key:?} has no value: it is KEY=VALUE"));
            }
        }
        let text = |setting: &str, given, default: &str| Ok(self.text(setting, given)?.unwrap_or(default).to_owned());
        let partitions = self.number("kafka_partitions", &given.kafka_partitions, 12, 1..=10_000)?;
        Ok(Some(KafkaSettings {
            bootstrap: bootstrap.to_owned(),
            topic: text("kafka_topic", &given.kafka_topic, "onhand.events")?,
            partitions: i32::try_from(partitions).expect("it is in the range"),
            group: text("kafka_group", &given.kafka_group, "onhand-processors")?,
            instance: self.text("kafka_instance", &given.kafka_instance)?.map(str::to_owned),
            raw_topic: raw_topic.map(str::to_owned),
            settings: given.kafka_set.iter().map(|pair| (pair.key.clone(), pair.value.clone())).collect(),
        }))
    }

    fn mqtt_side(&self, given: &GivenConfig, role: Role, insecure_open: bool) -> Result<MqttSide, ConfigError> {
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
            let client_id = match (self.text("mqtt_client_id", &given.mqtt_client_id)?, role) {
                (Some(given), _) => given.to_owned(),
                // Of several, each needs one of its own, and the same after a restart.
                (None, Role::Gateway) => format!("onhand-gateway-{}", host_name()),
                (None, _) => "onhand-hub".to_owned(),
            };
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

    fn count_files(&self, given: &Option<Text>) -> Result<Option<String>, ConfigError> {
        match self.text("count_files", given)? {
            Some(url) if url.contains("://") && !url.starts_with("file://") => match cloud::path_of(url) {
                Ok(_) => Ok(Some(url.to_owned())),
                Err(error) => self.refuse("count_files", format!("{error:#}")),
            },
            folder => Ok(folder.map(str::to_owned)),
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

    /// Not below the time after which a handle on a table reads its log anew.
    fn log_retention(&self, given: &Option<Text>, default: Duration) -> Result<Duration, ConfigError> {
        let retention = self.duration("log_retention", given, default, 365 * 100 * DAY)?;
        if retention < LEAST_LOG_RETENTION {
            let least = humantime::format_duration(LEAST_LOG_RETENTION);
            return self
                .refuse("log_retention", format!("is shorter than {least}: a writer that stood still would be lost"));
        }
        Ok(retention)
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

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "unnamed".to_owned() } else { name.trim().to_owned() }
}
