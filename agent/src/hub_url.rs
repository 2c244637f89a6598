//! Where the hub is: `mqtt://[user:password@]host[:port]`, or `mqtts://` for TLS.

/// A hub's address, understood. Its `Debug` form hides the password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct HubUrl {
    /// Whether the connection is encrypted.
    pub(crate) tls: bool,
    /// Name or address; an IPv6 address in its brackets.
    pub(crate) host: String,
    /// Port.
    pub(crate) port: u16,
    /// User name in the URL.
    pub(crate) user: Option<String>,
    /// Password in the URL.
    pub(crate) password: Option<String>,
}

impl HubUrl {
    /// Understands a URL.
    ///
    /// # Errors
    /// Says which part is not as it should be; the text does not repeat a password.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (tls, rest) = match text.split_once("://") {
            Some(("mqtt", rest)) => (false, rest),
            Some(("mqtts", rest)) => (true, rest),
            _ => return Err("must begin with mqtt:// or mqtts://".into()),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (login, address) = match rest.rsplit_once('@') {
            Some((login, address)) => (Some(login), address),
            None => (None, rest),
        };
        let (user, password) = match login.map(|l| l.split_once(':').map_or((l, None), |(u, p)| (u, Some(p)))) {
            Some((user, password)) => (Some(percent_decoded(user)?), password.map(percent_decoded).transpose()?),
            None => (None, None),
        };
        let port_at = address.rfind(':').filter(|&at| !address[at..].contains(']'));
        let (host, port) = match port_at {
            Some(at) => {
                let port = &address[at + 1..];
                let port = port.parse().ok().filter(|p| *p != 0).ok_or_else(|| format!("{port:?} is not a port"))?;
                (&address[..at], port)
            }
            None => (address, if tls { 8883 } else { 1883 }),
        };
        if host.is_empty() || host.contains(['/', '?', '#', ' ']) {
            return Err(format!("{host:?} is not a host name"));
        }
        Ok(Self { tls, host: host.to_owned(), port, user, password })
    }
}

impl std::fmt::Debug for HubUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

impl std::fmt::Display for HubUrl {
    /// Without user and password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}:{}", if self.tls { "mqtts" } else { "mqtt" }, self.host, self.port)
    }
}

fn percent_decoded(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let hex = tail.get(..2).and_then(|h| std::str::from_utf8(h).ok()).and_then(|h| u8::from_str_radix(h, 16).ok());
        bytes.push(hex.ok_or("a % in user or password must be followed by two hexadecimal digits")?);
        rest = &tail[2..];
    }
    String::from_utf8(bytes).map_err(|_| "user or password is not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_that_are_promised_are_understood() {
        let url = HubUrl::parse("mqtts://till%40a:p%3Aw@hub.example:9000/").unwrap();
        assert_eq!((url.tls, url.host.as_str(), url.port), (true, "hub.example", 9000));
        assert_eq!((url.user.as_deref(), url.password.as_deref()), (Some("till@a"), Some("p:w")));
        assert_eq!(format!("{url:?}"), "mqtts://hub.example:9000");
        assert_eq!(HubUrl::parse("mqtt://h").unwrap().port, 1883);
        assert_eq!(HubUrl::parse("mqtts://h").unwrap().port, 8883);
        assert_eq!(HubUrl::parse("mqtt://[::1]:7").unwrap().host, "[::1]");
        assert_eq!(HubUrl::parse("mqtt://[::1]").unwrap().port, 1883);
    }

    #[test]
    fn others_are_refused() {
        for bad in [
            "",
            "hub:1883",
            "http://hub",
            "mqtt://",
            "mqtt://hub:0",
            "mqtt://hub:70000",
            "mqtt://hub/x",
            "mqtt://%zz@hub",
        ] {
            assert!(HubUrl::parse(bad).is_err(), "{bad:?}");
        }
    }
}
