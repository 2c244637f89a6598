//! What operators write, as a fuzzer makes it up. The fuzz target `hub_config` is made of this file; here, every input that
//! was kept is taken again: none makes the hub panic, and an error names the setting.

use crate::config::{ENV_PREFIX, GivenConfig, HubConfig};
use crate::gateway::BrokerUrl;
use figment::Figment;
use figment::providers::{Format, Toml};

/// A configuration file; behind a zero, lines of `NAME=VALUE` as the environment gives them.
pub fn settings(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    let (file, environment) = text.split_once('\0').unwrap_or((text, ""));
    let pair = |line: &str| {
        let (name, value) = line.split_once('=')?;
        Some((format!("{}{}", ENV_PREFIX, name.to_uppercase()), value.to_owned()))
    };
    let environment = environment.lines().filter_map(pair);
    if let Err(error) = HubConfig::over(Figment::from(Toml::string(file)), &GivenConfig::default(), environment) {
        assert!(!error.setting.is_empty() && !error.reason.is_empty(), "{error:?}");
    }
    if let Ok(url) = text.parse::<BrokerUrl>() {
        assert!(!url.host.is_empty());
    }
}

#[cfg(test)]
#[path = "../../fuzz/kept.rs"]
pub(crate) mod kept;

#[cfg(test)]
mod tests {
    use super::{kept, settings};

    #[test]
    fn every_kept_configuration_is_taken() {
        kept::all_are_taken("hub_config", settings);
    }
}
