//! Where a broker is.

use std::str::FromStr;

/// Where a broker is: `mqtt://[user[:password]@]host[:port]`, `mqtts://` with TLS.
#[derive(Clone, PartialEq, Eq)]
pub struct BrokerUrl {
    /// With TLS.
    pub tls: bool,
    /// Name or address; an IPv6 address in brackets.
    pub host: String,
    /// 1883 by default, with TLS 8883.
    pub port: u16,
    /// User name and password.
    pub login: Option<(String, String)>,
}

/// Why a text is no broker's URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a broker's URL: {0} (mqtt://[user[:password]@]host[:port], mqtts:// with TLS)")]
pub struct BrokerUrlError(String);

impl FromStr for BrokerUrl {
    type Err = BrokerUrlError;

    fn from_str(text: &str) -> Result<Self, BrokerUrlError> {
        let refused = |reason: &str| BrokerUrlError(reason.to_owned());
        let (scheme, rest) = text.trim().split_once("://").ok_or_else(|| refused("it has no scheme"))?;
        let tls = match scheme {
            "mqtt" | "tcp" => false,
            "mqtts" | "ssl" => true,
            _ => return Err(refused("its scheme is neither mqtt nor mqtts")),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#']) {
            return Err(refused("something follows the port"));
        }
        let (login, address) = match authority.rsplit_once('@') {
            Some((login, address)) => {
                let (user, password) = login.split_once(':').unwrap_or((login, ""));
                (Some((percent_decoded(user)?, percent_decoded(password)?)), address)
            }
            None => (None, authority),
        };
        // The colon of a port stands behind the bracket that ends an IPv6 address.
        let port_at = address.rfind(':').filter(|at| address.rfind(']').is_none_or(|bracket| bracket < *at));
        let (host, port) = match port_at {
            Some(at) => (&address[..at], address[at + 1..].parse().map_err(|_| refused("its port is no port"))?),
            None => (address, if tls { 8883 } else { 1883 }),
        };
        if host.is_empty() || (host.contains(':') && !host.starts_with('[')) {
            return Err(refused("its host is missing, or an IPv6 address without brackets"));
        }
        Ok(Self { tls, host: host.to_owned(), port, login })
    }
}

fn percent_decoded(text: &str) -> Result<String, BrokerUrlError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = tail.get(..2).and_then(|d| std::str::from_utf8(d).ok());
        let byte = digits.and_then(|d| u8::from_str_radix(d, 16).ok());
        bytes.push(byte.ok_or_else(|| BrokerUrlError("a % stands before what are no two hex digits".to_owned()))?);
        rest = &tail[2..];
    }
    String::from_utf8(bytes).map_err(|_| BrokerUrlError("user or password are no UTF-8".to_owned()))
}

impl std::fmt::Debug for BrokerUrl {
    /// Without the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let user = self.login.as_ref().map(|(user, _)| user);
        write!(f, "BrokerUrl {{ tls: {}, host: {:?}, port: {}, user: {user:?} }}", self.tls, self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_understood() {
        let url: BrokerUrl = "mqtt://hub:p%40ss%3Aw@broker.example:1884".parse().unwrap();
        assert_eq!((url.tls, url.host.as_str(), url.port), (false, "broker.example", 1884));
        assert_eq!(url.login, Some(("hub".to_owned(), "p@ss:w".to_owned())));
        assert!(!format!("{url:?}").contains("p@ss"));
        let url: BrokerUrl = "mqtts://[::1]/".parse().unwrap();
        assert_eq!((url.tls, url.host.as_str(), url.port, url.login), (true, "[::1]", 8883, None));
        let url: BrokerUrl = "mqtt://u@h".parse().unwrap();
        assert_eq!((url.port, url.login), (1883, Some(("u".to_owned(), String::new()))));
        for bad in
            ["", "localhost:1883", "http://h", "mqtt://", "mqtt://h:x", "mqtt://h/x", "mqtt://%zz@h", "mqtt://::1"]
        {
            assert!(bad.parse::<BrokerUrl>().is_err(), "{bad}");
        }
    }
}
