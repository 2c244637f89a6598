//! What tills send and operators write, as a fuzzer makes it up. The fuzz targets `json` and `agent_config` are made of this
//! file; here, every input that was kept is taken again.
//!
//! What holds for any bytes: no panic, an error about a document is short, and a document that was read is written and read
//! to the same value.

use crate::config::{Given, load_over};
use crate::hub_url::HubUrl;
use crate::intake::documents::{Documents, parse_either};
use figment::Figment;
use figment::providers::{Format, Toml};
use onhand_common::Event;
use onhand_common::accelerator::{
    FieldError, MAX_DOCUMENT, count_to_json, parse_count, parse_transaction, transaction_to_json,
};
use onhand_common::frame::{MAX_BODY, decode_body, encode_event};
use onhand_common::topics::{AgentStatus, DurableAck};

/// Most bytes that an error says, whatever it is about: it goes into answers and files beside rejected ones.
const LONGEST_ERROR: usize = 2_000;

/// A request's body: one document, an array of them, or one on each line.
pub fn documents(body: &[u8]) {
    // What goes over MQTT as JSON.
    let _ = serde_json::from_slice::<DurableAck>(body);
    let _ = serde_json::from_slice::<AgentStatus>(body);
    match Documents::find(body) {
        Ok(documents) => {
            assert!(!documents.is_one() || documents.iter().count() == 1);
            for document in documents.iter() {
                assert!(!document.is_empty() && document.len() <= body.len());
                understood(parse_transaction(document).map(Event::Transaction));
                understood(parse_count(document).map(Event::Count));
                understood(parse_either(document));
            }
        }
        Err(error) => short(&error),
    }
}

fn understood(result: Result<Event, FieldError>) {
    let event = match result {
        Ok(event) => event,
        Err(error) => return short(&error),
    };
    let text = match &event {
        Event::Transaction(transaction) => transaction_to_json(transaction),
        Event::Count(count) => count_to_json(count),
    };
    if text.len() <= MAX_DOCUMENT {
        assert_eq!(parse_either(text.as_bytes()).as_ref(), Ok(&event));
    }
    let body = encode_event(&event);
    if body.len() <= MAX_BODY {
        assert_eq!(decode_body(&body, 1), Ok(vec![event]));
    }
}

fn short(error: &FieldError) {
    let text = error.to_string();
    assert!(
        text.len() <= LONGEST_ERROR,
        "an error of {} bytes: {}",
        text.len(),
        &text[..text.floor_char_boundary(200)]
    );
}

/// A configuration file; behind a zero, lines of `SETTING=VALUE` as the environment gives them.
pub fn settings(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    let (file, environment) = text.split_once('\0').unwrap_or((text, ""));
    let pair = |line: &str| line.split_once('=').map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    let environment = environment.lines().filter_map(pair).collect();
    if let Err(error) = load_over(Figment::from(Toml::string(file)), &Given::default(), environment) {
        assert!(!error.to_string().is_empty());
    }
    if let Ok(url) = HubUrl::parse(text) {
        assert!(!url.host.is_empty() && url.port != 0);
        // What is shown of it is a URL itself, without the password.
        let shown = HubUrl::parse(&url.to_string()).expect("what is shown of a URL is one");
        assert!(shown.password.is_none() && shown.port == url.port);
    }
}

#[cfg(test)]
#[path = "../../fuzz/kept.rs"]
mod kept;

#[cfg(test)]
mod tests {
    use super::{documents, kept, settings};

    #[test]
    fn every_kept_body_is_taken() {
        kept::all_are_taken("json", documents);
    }

    #[test]
    fn every_kept_configuration_is_taken() {
        kept::all_are_taken("agent_config", settings);
    }
}
