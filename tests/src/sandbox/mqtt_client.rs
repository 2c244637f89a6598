//! A MQTT 3.1.1 client of a few packets, which can also send what no client should.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A connection to an endpoint or broker.
pub struct MqttClient {
    stream: TcpStream,
    next_packet: u16,
}

impl MqttClient {
    /// Opens a TCP connection, no more.
    pub fn open(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("connect to {address}: {error}"));
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout can be set");
        stream.set_nodelay(true).expect("TCP_NODELAY can be set");
        Self { stream, next_packet: 1 }
    }

    /// Says CONNECT; returns the code of the CONNACK, `None` if the connection is closed instead.
    pub fn connect(&mut self, client_id: &str, login: Option<(&str, &str)>) -> Option<u8> {
        let mut body = text("MQTT");
        body.extend([4, if login.is_some() { 0b1100_0010 } else { 0b10 }, 0, 60]);
        body.extend(text(client_id));
        if let Some((user, password)) = login {
            body.extend(text(user));
            body.extend(text(password));
        }
        self.send(&packet(0x10, &body));
        let mut answer = [0; 4];
        self.stream.read_exact(&mut answer).ok()?;
        assert_eq!(answer[..2], [0x20, 2], "this is no CONNACK");
        Some(answer[3])
    }

    /// Publishes with QoS 1; whether the PUBACK came before the connection was closed.
    pub fn publish(&mut self, topic: &str, payload: &[u8]) -> bool {
        let number = self.send_publish(topic, payload);
        let mut answer = [0; 4];
        while self.stream.read_exact(&mut answer).is_ok() {
            if answer == [0x40, 2, (number >> 8) as u8, number as u8] {
                return true;
            }
        }
        false
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
        let mut answer = [0; 4];
        *unacknowledged -= 1;
        self.stream.set_read_timeout(Some(Duration::from_secs(120))).is_ok()
            && self.stream.read_exact(&mut answer).is_ok()
            && answer[..2] == [0x40, 2]
    }

    fn send_publish(&mut self, topic: &str, payload: &[u8]) -> u16 {
        let number = self.next_packet;
        self.next_packet = if number == u16::MAX { 1 } else { number + 1 };
        let mut body = text(topic);
        body.extend(number.to_be_bytes());
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
