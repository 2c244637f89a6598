//! A client of a few packets, MQTT 3.1.1 or 5, which can also send what no client should.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A connection to an endpoint or broker.
pub struct MqttClient {
    stream: TcpStream,
    /// The protocol level of its CONNECT: 4 is 3.1.1, 5 is 5.
    level: u8,
    next_packet: u16,
}

impl MqttClient {
    /// Opens a TCP connection, no more.
    pub fn open(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("connect to {address}: {error}"));
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout can be set");
        stream.set_nodelay(true).expect("TCP_NODELAY can be set");
        Self { stream, level: 4, next_packet: 1 }
    }

    /// Says CONNECT; returns the code of the CONNACK, `None` if the connection is closed or something else said instead.
    pub fn connect(&mut self, client_id: &str, login: Option<(&str, &str)>) -> Option<u8> {
        let mut body = text("MQTT");
        body.extend([self.level, if login.is_some() { 0b1100_0010 } else { 0b10 }, 0, 60]);
        body.extend(self.no_properties());
        body.extend(text(client_id));
        if let Some((user, password)) = login {
            body.extend(text(user));
            body.extend(text(password));
        }
        self.send(&packet(0x10, &body));
        let (kind, answer) = self.receive()?;
        if kind == 0x20 { answer.get(1).copied() } else { None }
    }

    /// As [`MqttClient::connect`], in MQTT 5 and without a login.
    pub fn connect_v5(&mut self, client_id: &str) -> Option<u8> {
        self.level = 5;
        self.connect(client_id, None)
    }

    /// Subscribes with QoS 0; whether that was allowed.
    pub fn subscribe(&mut self, filter: &str) -> bool {
        let mut body = vec![0, 1];
        body.extend(self.no_properties());
        body.extend(text(filter));
        body.push(0);
        self.send(&packet(0x82, &body));
        self.receive().is_some_and(|(kind, answer)| kind == 0x90 && answer.last() == Some(&0))
    }

    /// The payload of the next message of a subscription; `None` if none comes for a second. (A client that speaks MQTT 3.1.1.)
    pub fn next_message(&mut self) -> Option<Vec<u8>> {
        self.stream.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout can be set");
        loop {
            let (kind, mut body) = self.receive()?;
            if kind & 0xf0 == 0x30 {
                let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
                return Some(body.split_off(2 + topic));
            }
        }
    }

    /// Publishes with QoS 1; whether the PUBACK came before the connection was closed.
    pub fn publish(&mut self, topic: &str, payload: &[u8]) -> bool {
        let number = self.send_publish(topic, payload);
        while let Some((kind, answer)) = self.receive() {
            if kind == 0x40 && answer[..2] == number.to_be_bytes() {
                return true;
            }
        }
        false
    }

    /// The reason with which the other side says DISCONNECT, whatever comes before; `None` if it hangs up without.
    pub fn disconnect_reason(&mut self) -> Option<u8> {
        loop {
            let (kind, answer) = self.receive()?;
            if kind == 0xe0 {
                // Without a body it means a normal disconnection.
                return Some(answer.first().copied().unwrap_or(0));
            }
        }
    }

    /// Publishes many with QoS 1, at most `window` of them unacknowledged; whether all were acknowledged.
    pub fn publish_all(&mut self, topic: &str, payloads: &[Vec<u8>], window: usize) -> bool {
        let mut unacknowledged = 0;
        for payload in payloads {
            if unacknowledged == window && !self.take_puback(&mut unacknowledged) {
                return false;
            }
            self.send_publish(topic, payload);
            unacknowledged += 1;
        }
        while unacknowledged > 0 {
            if !self.take_puback(&mut unacknowledged) {
                return false;
            }
        }
        true
    }

    /// Nothing else comes to a client that has not subscribed.
    fn take_puback(&mut self, unacknowledged: &mut usize) -> bool {
        *unacknowledged -= 1;
        self.stream.set_read_timeout(Some(Duration::from_secs(120))).is_ok()
            && self.receive().is_some_and(|(kind, _)| kind == 0x40)
    }

    /// The next packet's first byte and body; `None` if none comes.
    fn receive(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut byte = || {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).ok().map(|()| usize::from(byte[0]))
        };
        let kind = byte()? as u8;
        let mut length = 0;
        for shift in [0, 7, 14, 21] {
            let digit = byte()?;
            length |= (digit & 0x7f) << shift;
            if digit & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).ok()?;
        Some((kind, body))
    }

    /// What stands where MQTT 5 has properties.
    fn no_properties(&self) -> &'static [u8] {
        if self.level == 5 { &[0] } else { &[] }
    }

    /// Sends a PUBLISH with QoS 1, whatever the other side said it takes; returns its packet id.
    pub fn send_publish(&mut self, topic: &str, payload: &[u8]) -> u16 {
        let number = self.next_packet;
        self.next_packet = if number == u16::MAX { 1 } else { number + 1 };
        let mut body = text(topic);
        body.extend(number.to_be_bytes());
        body.extend(self.no_properties());
        body.extend(payload);
        self.send(&packet(0x32, &body));
        number
    }

    /// Sends bytes as they are. A peer that has hung up is no error.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Whether the other side hangs up, sooner or later, whatever it says before.
    pub fn is_hung_up(&mut self) -> bool {
        let mut buffer = [0; 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => {
                    return !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut);
                }
            }
        }
    }
}

fn text(text: &str) -> Vec<u8> {
    let mut bytes = u16::try_from(text.len()).expect("a short text").to_be_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    let mut left = body.len();
    loop {
        let digit = (left % 128) as u8;
        left /= 128;
        bytes.push(if left > 0 { digit | 0x80 } else { digit });
        if left == 0 {
            break;
        }
    }
    bytes.extend(body);
    bytes
}
