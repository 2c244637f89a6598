//! Who may connect: the file of agents, their password hashes and their stores; or, in open mode, anyone.
//!
//! ```toml
//! [[agent]]
//! id = "store-0001"
//! password_hash = "$argon2id$v=19$m=19456,t=2,p=1$…"   # onhand-hub hash-password
//! stores = [1, 2]                                       # left out: all stores
//! ```

use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use figment::Figment;
use figment::providers::{Format, Toml};
use onhand_common::{AgentId, StoreId};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Why a file of agents cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AgentsFileError {
    /// It cannot be read.
    #[error("agents file {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is not TOML of this shape.
    #[error("agents file: {0}")]
    Format(String),
    /// An entry holds what it must not.
    #[error("agents file: agent {number}{}: {field}: {reason}", .id.as_ref().map(|id| format!(" ({id:?})")).unwrap_or_default())]
    Entry {
        /// Which entry, the first is 1.
        number: usize,
        /// Its id, where it has one.
        id: Option<String>,
        /// The field.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// What an agent may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentGrant {
    /// Who it is.
    pub agent: AgentId,
    /// The stores it may speak for; `None`: all.
    pub stores: Option<Arc<[StoreId]>>,
}

impl AgentGrant {
    /// Whether it may speak for a store.
    pub fn allows(&self, store: StoreId) -> bool {
        self.stores.as_ref().is_none_or(|stores| stores.contains(&store))
    }
}

/// The agents that may connect. Clones share what is remembered of earlier logins.
#[derive(Clone)]
pub struct Agents(Option<Arc<Listed>>);

struct Listed {
    agents: HashMap<String, Entry>,
    /// Passwords that were right, by agent, as a fingerprint: hashing is slow on purpose, and all agents connect at
    /// once when a hub comes back.
    remembered: Mutex<HashMap<AgentId, Fingerprint>>,
    /// Drawn per process, so that a fingerprint is worth nothing elsewhere.
    salt: [u8; 16],
    /// Hashing takes a core and 19 MiB at a time; guessing must not take all of either.
    hashing: Arc<Semaphore>,
}

struct Entry {
    grant: AgentGrant,
    password_hash: Arc<str>,
}

type Fingerprint = [u8; 32];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    agent: Vec<BTreeMap<String, Value>>,
}

impl Agents {
    /// Takes anyone, under the user name given, or under the client id where none is.
    pub fn open() -> Self {
        Self(None)
    }

    /// Reads a file of agents.
    ///
    /// # Errors
    /// Names the entry and the field that is wrong.
    pub fn load(path: &Path) -> Result<Self, AgentsFileError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| AgentsFileError::Read { path: path.to_owned(), source })?;
        Self::parse(&text)
    }

    /// Reads a file's text.
    ///
    /// # Errors
    /// As [`Agents::load`].
    pub fn parse(text: &str) -> Result<Self, AgentsFileError> {
        let file: File =
            Figment::from(Toml::string(text)).extract().map_err(|e| AgentsFileError::Format(e.to_string()))?;
        if file.agent.is_empty() {
            return Err(AgentsFileError::Format("holds no [[agent]]: nobody could connect".to_owned()));
        }
        let mut agents = HashMap::new();
        for (index, fields) in file.agent.into_iter().enumerate() {
            let id = fields.get("id").and_then(Value::as_str).map(str::to_owned);
            let refused = |(field, reason): (String, String)| AgentsFileError::Entry {
                number: index + 1,
                id: id.clone(),
                field,
                reason,
            };
            let entry = read_entry(fields).map_err(refused)?;
            let name = entry.grant.agent.as_str().to_owned();
            if agents.insert(name, entry).is_some() {
                return Err(refused(("id".to_owned(), "was given to an earlier agent already".to_owned())));
            }
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self(Some(Arc::new(Listed {
            agents,
            remembered: Mutex::default(),
            salt: rand::random(),
            hashing: Arc::new(Semaphore::new((cores / 2).clamp(1, 8))),
        }))))
    }

    /// Whether anyone is taken.
    pub fn is_open(&self) -> bool {
        self.0.is_none()
    }

    /// Who this is, if the password is right; in open mode, if the name can be an agent's id.
    /// Unknown names are refused at once: they are part of topic names and no secret, and hashing for them would let
    /// strangers keep the agents waiting.
    pub async fn verify(&self, user: &str, password: &str) -> Option<AgentGrant> {
        let Some(listed) = &self.0 else {
            return AgentId::new(user).ok().map(|agent| AgentGrant { agent, stores: None });
        };
        let entry = listed.agents.get(user)?;
        let fingerprint = listed.fingerprint(password);
        if listed.remembered.lock().get(&entry.grant.agent) == Some(&fingerprint) {
            return Some(entry.grant.clone());
        }
        let permit = listed.hashing.clone().acquire_owned().await.ok()?;
        let (hash, password) = (entry.password_hash.clone(), password.to_owned());
        let right = tokio::task::spawn_blocking(move || {
            // Held in here: a caller that gave up waiting does not free the core.
            let _permit = permit;
            PasswordHash::new(&hash)
                .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
        });
        if !right.await.unwrap_or(false) {
            return None;
        }
        listed.remembered.lock().insert(entry.grant.agent.clone(), fingerprint);
        Some(entry.grant.clone())
    }
}

impl Listed {
    /// A salted hash that is quick to make: Argon2 with the least memory it takes.
    fn fingerprint(&self, password: &str) -> Fingerprint {
        let mut out = Fingerprint::default();
        let least = Params::new(Params::MIN_M_COST, 1, 1, Some(out.len())).expect("these are allowed parameters");
        Argon2::new(Algorithm::Argon2id, Version::V0x13, least)
            .hash_password_into(password.as_bytes(), &self.salt, &mut out)
            .expect("an MQTT password is short enough and the salt is long enough");
        out
    }
}

fn read_entry(mut fields: BTreeMap<String, Value>) -> Result<Entry, (String, String)> {
    let mut take = |field: &str| fields.remove(field);
    let text = |field: &str, value: Option<Value>| match value {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err((field.to_owned(), "is not a text".to_owned())),
        None => Err((field.to_owned(), "is missing".to_owned())),
    };
    let id = text("id", take("id"))?;
    let agent = AgentId::new(&id).map_err(|e| ("id".to_owned(), e.to_string()))?;
    let password_hash = text("password_hash", take("password_hash"))?;
    check_hash(&password_hash).map_err(|reason| ("password_hash".to_owned(), reason))?;
    let stores = take("stores").map(read_stores).transpose().map_err(|reason| ("stores".to_owned(), reason))?;
    if let Some((field, _)) = fields.pop_first() {
        return Err((field, "is not a field of an agent (id, password_hash, stores)".to_owned()));
    }
    Ok(Entry { grant: AgentGrant { agent, stores }, password_hash: password_hash.into() })
}

fn read_stores(value: Value) -> Result<Arc<[StoreId]>, String> {
    let Value::Array(values) = value else {
        return Err("is not a list of store ids".to_owned());
    };
    if values.is_empty() {
        return Err("is empty: such an agent could send nothing (leave the field out for all stores)".to_owned());
    }
    let store = |value: &Value| {
        let number = value.as_i64().ok_or_else(|| format!("{value} is not a store id"))?;
        StoreId::try_from(number).map_err(|e| e.to_string())
    };
    values.iter().map(store).collect()
}

fn check_hash(text: &str) -> Result<(), String> {
    let hint = "make one with: onhand-hub hash-password";
    let hash = PasswordHash::new(text).map_err(|e| format!("is no password hash in PHC format ({e}); {hint}"))?;
    Algorithm::try_from(hash.algorithm).map_err(|_| format!("is not made with Argon2; {hint}"))?;
    Params::try_from(&hash).map_err(|e| format!("has parameters that cannot be ({e}); {hint}"))?;
    if hash.salt.is_none() || hash.hash.is_none() {
        return Err(format!("lacks its salt or its hash; {hint}"));
    }
    Ok(())
}

/// Hashes a password for the file of agents, with a fresh salt.
pub fn hash_password(password: &str) -> String {
    let salt: [u8; 16] = rand::random();
    let salt = SaltString::encode_b64(&salt).expect("16 bytes are a salt's length");
    let hash = Argon2::default().hash_password(password.as_bytes(), &salt);
    hash.expect("the default parameters are allowed").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        Agents::parse(text).err().expect("must be refused").to_string()
    }

    #[tokio::test]
    async fn the_right_password_gets_the_stores_and_no_other_does() {
        let text = format!(
            "[[agent]]\nid = \"a-1\"\npassword_hash = \"{}\"\nstores = [2, 1]\n[[agent]]\nid = \"b\"\npassword_hash = \"{}\"",
            hash_password("pässword"),
            hash_password(""),
        );
        let agents = Agents::parse(&text).unwrap();
        assert!(!agents.is_open());
        for _ in 0..2 {
            let grant = agents.verify("a-1", "pässword").await.unwrap();
            assert_eq!(grant.agent.as_str(), "a-1");
            assert!(grant.allows(1_i64.try_into().unwrap()) && !grant.allows(3_i64.try_into().unwrap()));
            // Also after a success was remembered.
            assert_eq!(agents.verify("a-1", "password").await, None);
            assert_eq!(agents.verify("b", "pässword").await, None);
        }
        assert_eq!(agents.verify("b", "").await.unwrap().stores, None);
        assert_eq!(agents.verify("c", "pässword").await, None);
    }

    #[tokio::test]
    async fn a_success_is_remembered_under_its_password() {
        let agents =
            Agents::parse(&format!("[[agent]]\nid = \"a\"\npassword_hash = \"{}\"", hash_password("x"))).unwrap();
        agents.verify("a", "x").await.unwrap();
        // Nobody hashes any more; what was seen is still known, what was not is not answered.
        let listed = agents.0.as_ref().unwrap();
        listed.hashing.close();
        assert!(agents.verify("a", "x").await.is_some());
        assert!(agents.verify("a", "y").await.is_none());
    }

    #[tokio::test]
    async fn open_mode_takes_any_name_that_can_be_an_id() {
        let agents = Agents::open();
        assert_eq!(agents.verify("any-1", "").await.unwrap().agent.as_str(), "any-1");
        assert_eq!(agents.verify("a/b", "").await, None);
        assert_eq!(agents.verify("", "").await, None);
    }

    #[test]
    fn refusals_name_entry_and_field() {
        let hash = hash_password("x");
        let good = format!("[[agent]]\nid = \"a\"\npassword_hash = \"{hash}\"\n");
        for (text, expected) in [
            (format!("{good}[[agent]]\nid = \"b/c\""), "agent 2 (\"b/c\"): id: holds the character '/'"),
            (format!("{good}[[agent]]\nid = 7"), "agent 2: id: is not a text"),
            (format!("{good}{good}"), "agent 2 (\"a\"): id: was given"),
            ("[[agent]]\nid = \"a\"".to_owned(), "agent 1 (\"a\"): password_hash: is missing"),
            ("[[agent]]\nid = \"a\"\npassword_hash = \"secret\"".to_owned(), "password_hash: is no password hash"),
            (format!("{good}stores = []"), "agent 1 (\"a\"): stores: is empty"),
            (format!("{good}stores = [1, -2]"), "stores: -2 is not an id"),
            (format!("{good}stores = [\"x\"]"), "stores: \"x\" is not a store id"),
            (format!("{good}store = [1]"), "agent 1 (\"a\"): store: is not a field"),
            ("agents = 1".to_owned(), "agents"),
            (String::new(), "no [[agent]]"),
        ] {
            let refusal = refusal(&text);
            assert!(refusal.contains(expected), "{text}\n{refusal}");
        }
        assert!(Agents::load(Path::new("/nowhere/agents.toml")).err().unwrap().to_string().contains("/nowhere"));
    }
}
