//! What somebody wrote: every setting once, for flags, environment and file alike.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A setting as it was written: in a file also a number or a truth value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(pub(super) String);

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

/// A setting of another program: `key=value` on the command line and, one to a line, in the environment; an entry of a table in
/// the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// Its name there.
    pub key: String,
    /// Its value.
    pub value: String,
}

impl std::str::FromStr for Pair {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=').map(|(key, value)| (key.trim(), value)) {
            Some((key, value)) if !key.is_empty() => Ok(Self { key: key.to_owned(), value: value.to_owned() }),
            _ => Err(format!("{text:?} is not KEY=VALUE")),
        }
    }
}

mod pairs {
    use super::{Pair, Text};
    use serde::{Deserialize, Deserializer, Serializer};
    use std::collections::BTreeMap;

    pub(super) fn serialize<S: Serializer>(pairs: &[Pair], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(pairs.iter().map(|pair| (&pair.key, &pair.value)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Pair>, D::Error> {
        let table = BTreeMap::<String, Text>::deserialize(deserializer)?;
        Ok(table.into_iter().map(|(key, Text(value))| Pair { key, value }).collect())
    }
}

macro_rules! given {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// What was given, by flags, environment or file; none of it checked.
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
        #[serde(deny_unknown_fields)]
        pub struct GivenConfig {
            $($(#[$doc])* #[arg(long)] #[serde(default, skip_serializing_if = "Option::is_none")] pub $name: Option<Text>,)*
            /// A setting of librdkafka, as it is (repeatable)
            #[arg(long, value_name = "KEY=VALUE")]
            #[serde(default, with = "pairs", skip_serializing_if = "Vec::is_empty")]
            pub kafka_set: Vec<Pair>,
        }

        /// Names of all settings, as the file has them.
        pub(super) const NAMES: &[&str] = &[$(stringify!($name),)* "kafka_set"];
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
    /// Client id at that broker [default: onhand-hub; for gateways onhand-gateway-HOSTNAME]
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
    /// Where count files appear: a folder, s3://, az://, abfss:// or gs://
    #[arg(value_name = "URL")]
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
    /// Take what lies ready (count files, reference data), commit it, and end
    #[arg(value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    once,
    /// Most items with an actor of their own [default: 100000]
    #[arg(value_name = "N")]
    live_items,
    /// An item that nothing happened to for so long gives its actor up [default: 5min]
    #[arg(value_name = "DURATION")]
    idle_after,
    /// Most identities of taken events in memory, 32 bytes each; what is beyond takes an eighth to a quarter, in filters, and is then looked up in silver [default: 16000000]
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
    /// How often files and log entries older than that are looked for, and removed [default: 10min]
    #[arg(value_name = "DURATION")]
    clean_interval,
    /// Commits between two checkpoints of a table [default: 100]
    #[arg(value_name = "N")]
    checkpoint_interval,
    /// Which part of the cloud side this process is [default: all]
    #[arg(value_name = "all|gateway|processor")]
    role,
    /// Bootstrap servers of Kafka: HOST:PORT, several separated by commas
    #[arg(value_name = "BOOTSTRAP")]
    kafka,
    /// Topic between gateways and processors; made if it is not there [default: onhand.events]
    #[arg(value_name = "TOPIC")]
    kafka_topic,
    /// Partitions that the topic gets when it is made; never to be changed afterwards [default: 12]
    #[arg(value_name = "N")]
    kafka_partitions,
    /// Consumer group of the processors [default: onhand-processors]
    #[arg(value_name = "GROUP")]
    kafka_group,
    /// Name of this processor in the group, kept over restarts: who comes back soon keeps its partitions
    #[arg(value_name = "ID")]
    kafka_instance,
    /// Topic with the accelerator's JSON documents, read by a hub of role all
    #[arg(value_name = "TOPIC")]
    kafka_raw_topic,
    /// Write the bound addresses to this file, as JSON: {"mqtt": …, "http": …}
    #[arg(value_name = "FILE")]
    addr_file,
}
