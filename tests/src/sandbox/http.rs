//! HTTP without ceremony.

use serde_json::Value;
use std::time::Duration;

/// What a server answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// The body as text.
    pub text: String,
}

impl Answer {
    /// The body as JSON; null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }
}

/// A client that gives up after a time, and keeps its connections.
pub fn client(patience: Duration) -> ureq::Agent {
    let config = ureq::Agent::config_builder().timeout_global(Some(patience)).http_status_as_error(false);
    config.build().into()
}

/// Longest that an answer takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks; `None` if nobody answers.
pub fn get(url: &str) -> Option<Answer> {
    get_within(url, PATIENCE)
}

/// As [`get`], for those who have no time.
pub fn get_within(url: &str, patience: Duration) -> Option<Answer> {
    let mut response = client(patience).get(url).call().ok()?;
    Some(Answer { status: response.status().as_u16(), text: response.body_mut().read_to_string().ok()? })
}

/// Asks for JSON; `None` if nobody answers with a success.
pub fn get_json(url: &str) -> Option<Value> {
    let answer = get(url).filter(|answer| (200..300).contains(&answer.status))?;
    serde_json::from_str(&answer.text).ok()
}

/// Sends a body; `None` if nobody answers.
pub fn post(url: &str, content_type: &str, body: impl AsRef<[u8]>) -> Option<Answer> {
    post_by(&client(PATIENCE), url, content_type, body)
}

/// As [`post`], by a client that is there.
pub fn post_by(client: &ureq::Agent, url: &str, content_type: &str, body: impl AsRef<[u8]>) -> Option<Answer> {
    let mut response = client.post(url).header("content-type", content_type).send(body.as_ref()).ok()?;
    Some(Answer { status: response.status().as_u16(), text: response.body_mut().read_to_string().ok()? })
}
