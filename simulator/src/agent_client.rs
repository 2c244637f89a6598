//! What a till knows of its agent: where to send, and to send again until there is an answer.

use anyhow::{Context, ensure};
use rand::Rng;
use serde::Deserialize;
use serde_json::Value;
use std::time::{Duration, Instant};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// An agent, by its address.
#[derive(Debug, Clone)]
pub struct AgentClient {
    base: String,
    http: reqwest::Client,
}

/// What an agent says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct AgentState {
    /// Its id.
    pub agent_id: String,
    /// The stores it takes events of.
    pub stores: Vec<i32>,
    backlog: Backlog,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Backlog {
    events: u64,
}

impl AgentState {
    /// Events that the hub has not made durable yet.
    pub fn backlog(&self) -> u64 {
        self.backlog.events
    }
}

/// What an agent said to a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// Entries it took.
    pub accepted: u64,
    /// Entries it had already.
    pub duplicates: u64,
    /// Entries it will never take.
    pub refused: u64,
    /// The first of those it named: its place in the batch, and the reason.
    pub first_refused: Option<(u64, String)>,
    /// From the request that was answered at last to its answer.
    pub latency: Duration,
    /// Requests that were not answered so.
    pub retries: u64,
}

impl AgentClient {
    /// Takes `http://host:port`.
    ///
    /// # Errors
    /// Refuses what is no such address.
    pub fn new(url: &str) -> anyhow::Result<Self> {
        ensure!(url.starts_with("http://"), "{url:?} is no agent's address: http://HOST:PORT is needed");
        let http = reqwest::Client::builder()
            .timeout(REQUEST_TIMEOUT)
            .connect_timeout(Duration::from_secs(5))
            .tcp_nodelay(true)
            .build()
            .context("make an HTTP client")?;
        Ok(Self { base: url.trim_end_matches('/').to_owned(), http })
    }

    /// Asks once.
    ///
    /// # Errors
    /// Says that nobody answers, or what was answered instead.
    pub async fn state(&self) -> anyhow::Result<AgentState> {
        let url = format!("{}/v1/status", self.base);
        let response = self.http.get(&url).send().await.with_context(|| format!("ask {url}"))?;
        ensure!(response.status().is_success(), "{url} answers {}", response.status());
        response.json().await.with_context(|| format!("understand the answer of {url}"))
    }

    /// Asks until there is an answer.
    pub async fn state_when_there(&self) -> AgentState {
        let mut pause = Pause::default();
        loop {
            match self.state().await {
                Ok(state) => return state,
                Err(error) => pause.wait(&self.base, &format!("{error:#}")).await,
            }
        }
    }

    /// Sends a batch of `entries` entries until the agent takes or refuses it: one that is away, full or in trouble is
    /// waited for. Sending twice is harmless, an entry is taken once.
    pub async fn post(&self, path: &str, content_type: &'static str, body: &[u8], entries: u64) -> Answer {
        let url = format!("{}{path}", self.base);
        let mut pause = Pause::default();
        loop {
            let began = Instant::now();
            let request = self.http.post(&url).header("content-type", content_type).body(body.to_vec());
            let answered = async {
                let response = request.send().await?;
                let status = response.status();
                Ok::<_, reqwest::Error>((status, response.bytes().await?))
            };
            match answered.await {
                Ok((status, text)) if status.is_server_error() || matches!(status.as_u16(), 408 | 429) => {
                    pause.wait(&self.base, &format!("answers {status}: {}", shorten(&text))).await;
                }
                Ok((status, text)) => {
                    let refused_whole = || Answer {
                        refused: entries,
                        first_refused: Some((0, format!("{status}: {}", shorten(&text)))),
                        ..Answer::default()
                    };
                    let mut answer = understand(status.is_success(), &text, entries).unwrap_or_else(refused_whole);
                    answer.latency = began.elapsed();
                    answer.retries = pause.count;
                    pause.over(&self.base);
                    return answer;
                }
                Err(error) => pause.wait(&self.base, &format!("{:#}", anyhow::Error::from(error))).await,
            }
        }
    }
}

/// `None` if the answer says nothing about single entries.
fn understand(success: bool, text: &[u8], entries: u64) -> Option<Answer> {
    let value: Value = serde_json::from_slice(text).ok()?;
    let named = value.get("refused").and_then(Value::as_array);
    if !success && named.is_none() {
        return None;
    }
    let number = |name: &str| value.get(name).and_then(Value::as_u64);
    let duplicates = number("duplicates").unwrap_or(0);
    let accepted = number("accepted")?;
    let first_refused = named.and_then(|named| named.first()).map(|entry| {
        let part = |name: &str| entry.get(name).and_then(Value::as_str);
        let reason = part("reason").map_or_else(|| entry.to_string(), str::to_owned);
        let reason = part("field").map_or(reason.clone(), |field| format!("{field}: {reason}"));
        (entry.get("index").and_then(Value::as_u64).unwrap_or(0), reason)
    });
    // Not every refused entry is named, and a body that is refused whole is one name for all of them.
    let refused = entries.saturating_sub(accepted + duplicates);
    Some(Answer { accepted, duplicates, refused, first_refused, ..Answer::default() })
}

fn shorten(text: &[u8]) -> String {
    String::from_utf8_lossy(text).trim().chars().take(200).collect()
}

/// Longer and longer pauses; the first and the end of a row of them are said.
#[derive(Default)]
struct Pause {
    count: u64,
}

impl Pause {
    async fn wait(&mut self, who: &str, why: &str) {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.count.min(10)).min(LONGEST_PAUSE);
        if self.count == 3 {
            tracing::warn!("waiting for the agent at {who}: {why}");
        }
        self.count += 1;
        let jitter = rand::rng().random_range(0.5..1.0);
        tokio::time::sleep(pause.mul_f64(jitter)).await;
    }

    fn over(&self, who: &str) {
        if self.count > 3 {
            tracing::info!("the agent at {who} takes events again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_answer_is_understood_in_its_parts() {
        let text = br#"{"accepted":7,"duplicates":2,"refused":[{"index":4,"field":"items[0].quantity","reason":"is missing"}]}"#;
        let answer = understand(true, text, 10).unwrap();
        assert_eq!((answer.accepted, answer.duplicates), (7, 2));
        assert_eq!((answer.refused, answer.first_refused), (1, Some((4, "items[0].quantity: is missing".to_owned()))));
        // One name for all.
        let text = br#"{"accepted":0,"duplicates":0,"refused":[{"index":0,"field":"document","reason":"no"}]}"#;
        let answer = understand(false, text, 7).unwrap();
        assert_eq!((answer.refused, answer.first_refused), (7, Some((0, "document: no".to_owned()))));
        assert_eq!(understand(true, b"{}", 3), None);
        assert_eq!(understand(false, b"{\"error\":\"too large\"}", 3), None);
        assert_eq!(understand(false, b"<html>", 3), None);
    }
}
