//! MQTT 3.1.1 and 5 as the own endpoint speaks them, over rumqttc's packet formats, behind one set of types.
//!
//! - A declared length is checked before anything is kept for it.
//! - A packet is given to the parser whole, so "more bytes needed" from inside it means that the packet lies.
//! - The parser is not trusted: should it panic, that packet counts as malformed.

use bytes::{BufMut, Bytes, BytesMut};
use rumqttc::mqttbytes::{self as three, v4};
use rumqttc::v5::mqttbytes::{self as five, v5};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Which MQTT a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// 3.1.1
    V3,
    /// 5.0
    V5,
}

/// Quality of service of what is taken and sent; 2 is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Qos {
    AtMostOnce,
    AtLeastOnce,
}

/// What is wrong with what a client sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Malformed {
    /// The packet would be larger than allowed.
    TooLarge(usize),
    /// It is no MQTT, or none that is allowed there.
    Packet(String),
    /// A protocol level that is not spoken here.
    ProtocolLevel(u8),
}

/// A CONNECT.
#[derive(Debug)]
pub(super) struct Connect {
    pub(super) version: Version,
    pub(super) client_id: String,
    pub(super) user: Option<String>,
    pub(super) password: String,
    /// Seconds; 0: none.
    pub(super) keep_alive: u16,
    pub(super) clean: bool,
    /// v5: most QoS 1 messages that may be sent to the client unacknowledged.
    pub(super) receive_maximum: u16,
    /// v5: largest packet that may be sent to the client.
    pub(super) max_packet: usize,
    /// v5: the session is to outlive the connection. It does not here, and the client is told.
    pub(super) wants_session: bool,
    /// v5: an authentication method other than user name and password.
    pub(super) enhanced_auth: bool,
}

/// A packet after CONNECT, as far as it matters here.
#[derive(Debug)]
pub(super) enum Packet {
    Publish(Publish),
    PubAck(u16),
    Subscribe { id: u16, filters: Vec<(String, Qos)> },
    Unsubscribe { id: u16, filters: Vec<String> },
    PingReq,
    Disconnect,
}

/// A PUBLISH.
#[derive(Debug)]
pub(super) struct Publish {
    /// `None`: QoS 0.
    pub(super) id: Option<u16>,
    /// It asks for QoS 2, which is refused.
    pub(super) exactly_once: bool,
    /// Empty where a v5 client used a topic alias.
    pub(super) topic: Bytes,
    pub(super) payload: Bytes,
    /// Length of the whole packet, in bytes.
    pub(super) size: usize,
}

/// Whether a packet begins at the start of `buffer` that is complete: its length, `None` while there is too little.
///
/// # Errors
/// Says that the packet is larger than `max` (fixed header not counted), or that its length is no length.
pub(super) fn complete(buffer: &BytesMut, max: usize) -> Result<Option<usize>, Malformed> {
    match three::check(buffer.iter(), max) {
        Ok(header) => Ok(Some(header.frame_length())),
        Err(three::Error::InsufficientBytes(_)) => Ok(None),
        Err(three::Error::PayloadSizeLimitExceeded(size)) => Err(Malformed::TooLarge(size)),
        Err(e) => Err(Malformed::Packet(e.to_string())),
    }
}

/// Takes a CONNECT off `buffer`; `None` while it is not complete.
///
/// # Errors
/// Says what came instead.
pub(super) fn read_connect(buffer: &mut BytesMut, max: usize) -> Result<Option<Connect>, Malformed> {
    if buffer.first().is_some_and(|first| first >> 4 != 1) {
        return Err(Malformed::Packet("the first packet is not CONNECT".to_owned()));
    }
    let Some(len) = complete(buffer, max)? else {
        return Ok(None);
    };
    let mut packet = buffer.split_to(len);
    let body = packet.iter().skip(1).position(|byte| byte & 0x80 == 0).map_or(len, |at| at + 2);
    let level = match packet[body.min(len)..] {
        [0, 4, b'M', b'Q', b'T', b'T', level, ..] => level,
        // MQTT 3.1 had another name.
        [0, 6, b'M', b'Q', b'I', b's', b'd', b'p', level, ..] => level,
        _ => return Err(Malformed::Packet("CONNECT does not name the protocol".to_owned())),
    };
    match level {
        4 => guarded(|| v4::Packet::read(&mut packet, max).map_err(|e| e.to_string())).and_then(connect_v3),
        5 => {
            guarded(|| v5::Packet::read(&mut packet, Some(max as u32)).map_err(|e| e.to_string())).and_then(connect_v5)
        }
        other => Err(Malformed::ProtocolLevel(other)),
    }
    .map(Some)
}

/// Takes the next packet off `buffer`; `None` while it is not complete.
///
/// # Errors
/// Says what is wrong with it; nothing that follows can be trusted then.
pub(super) fn read(buffer: &mut BytesMut, version: Version, max: usize) -> Result<Option<Packet>, Malformed> {
    let Some(len) = complete(buffer, max)? else {
        return Ok(None);
    };
    // DISCONNECT is looked at here alone: whatever it says, the connection ends, and rumqttc does not read the form
    // without a body that most v5 clients send.
    if buffer[0] >> 4 == 14 {
        return Ok(Some(Packet::Disconnect));
    }
    let mut packet = buffer.split_to(len);
    match version {
        Version::V3 => packet_v3(guarded(|| v4::Packet::read(&mut packet, max).map_err(|e| e.to_string()))?, len),
        Version::V5 => {
            packet_v5(guarded(|| v5::Packet::read(&mut packet, Some(max as u32)).map_err(|e| e.to_string()))?, len)
        }
    }
    .map(Some)
}

fn guarded<T>(parse: impl FnOnce() -> Result<T, String>) -> Result<T, Malformed> {
    match catch_unwind(AssertUnwindSafe(parse)) {
        Ok(result) => result.map_err(Malformed::Packet),
        Err(_) => Err(Malformed::Packet("the parser gave up on it".to_owned())),
    }
}

fn unexpected<T>(packet: &impl std::fmt::Debug) -> Result<T, Malformed> {
    let mut name = format!("{packet:?}");
    name.truncate(name.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(name.len()));
    Err(Malformed::Packet(format!("{name} is not expected from a client now")))
}

fn connect_v3(packet: v4::Packet) -> Result<Connect, Malformed> {
    let v4::Packet::Connect(connect) = packet else {
        return unexpected(&packet);
    };
    let (user, password) = connect.login.map(|l| (l.username, l.password)).unzip();
    Ok(Connect {
        version: Version::V3,
        client_id: connect.client_id,
        user: user.filter(|name| !name.is_empty()),
        password: password.unwrap_or_default(),
        keep_alive: connect.keep_alive,
        clean: connect.clean_session,
        receive_maximum: u16::MAX,
        max_packet: usize::MAX,
        wants_session: false,
        enhanced_auth: false,
    })
}

fn connect_v5(packet: v5::Packet) -> Result<Connect, Malformed> {
    let v5::Packet::Connect(connect, _, login) = packet else {
        return unexpected(&packet);
    };
    let (user, password) = login.map(|l| (l.username, l.password)).unzip();
    let properties = connect.properties.unwrap_or_default();
    if properties.receive_maximum == Some(0) || properties.max_packet_size == Some(0) {
        return Err(Malformed::Packet("CONNECT: a maximum of 0".to_owned()));
    }
    Ok(Connect {
        version: Version::V5,
        client_id: connect.client_id,
        user: user.filter(|name| !name.is_empty()),
        password: password.unwrap_or_default(),
        keep_alive: connect.keep_alive,
        clean: connect.clean_start,
        receive_maximum: properties.receive_maximum.unwrap_or(u16::MAX),
        max_packet: properties.max_packet_size.map_or(usize::MAX, |size| size as usize),
        wants_session: properties.session_expiry_interval.is_some_and(|seconds| seconds > 0),
        enhanced_auth: properties.authentication_method.is_some(),
    })
}

fn packet_v3(packet: v4::Packet, size: usize) -> Result<Packet, Malformed> {
    Ok(match packet {
        v4::Packet::Publish(p) => Packet::Publish(Publish {
            id: (p.qos != three::QoS::AtMostOnce).then_some(p.pkid),
            exactly_once: p.qos == three::QoS::ExactlyOnce,
            topic: p.topic.into(),
            payload: p.payload,
            size,
        }),
        v4::Packet::PubAck(ack) => Packet::PubAck(ack.pkid),
        v4::Packet::Subscribe(s) => {
            let qos = |q| if q == three::QoS::AtMostOnce { Qos::AtMostOnce } else { Qos::AtLeastOnce };
            Packet::Subscribe { id: s.pkid, filters: s.filters.into_iter().map(|f| (f.path, qos(f.qos))).collect() }
        }
        v4::Packet::Unsubscribe(u) => Packet::Unsubscribe { id: u.pkid, filters: u.topics },
        v4::Packet::PingReq => Packet::PingReq,
        other => return unexpected(&other),
    })
}

fn packet_v5(packet: v5::Packet, size: usize) -> Result<Packet, Malformed> {
    Ok(match packet {
        v5::Packet::Publish(p) => Packet::Publish(Publish {
            id: (p.qos != five::QoS::AtMostOnce).then_some(p.pkid),
            exactly_once: p.qos == five::QoS::ExactlyOnce,
            topic: p.topic,
            payload: p.payload,
            size,
        }),
        v5::Packet::PubAck(ack) => Packet::PubAck(ack.pkid),
        v5::Packet::Subscribe(s) => {
            let qos = |q| if q == five::QoS::AtMostOnce { Qos::AtMostOnce } else { Qos::AtLeastOnce };
            Packet::Subscribe { id: s.pkid, filters: s.filters.into_iter().map(|f| (f.path, qos(f.qos))).collect() }
        }
        v5::Packet::Unsubscribe(u) => Packet::Unsubscribe { id: u.pkid, filters: u.filters },
        v5::Packet::PingReq(_) => Packet::PingReq,
        other => return unexpected(&other),
    })
}

/// Why a CONNECT is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    ProtocolVersion,
    ClientId,
    Credentials,
    NotAuthorized,
    AuthenticationMethod,
}

/// What a v5 client is told with its CONNACK.
pub(super) struct Welcome {
    pub(super) receive_maximum: u16,
    pub(super) max_packet: usize,
    pub(super) assigned_client_id: Option<String>,
    pub(super) no_session: bool,
}

const WRITES: &str = "packets of the hub's own fit into memory";

/// Writes the CONNACK that takes a client.
pub(super) fn write_welcome(out: &mut BytesMut, version: Version, welcome: Welcome) {
    match version {
        Version::V3 => v4::ConnAck::new(v4::ConnectReturnCode::Success, false).write(out),
        Version::V5 => {
            let properties = v5::ConnAckProperties {
                session_expiry_interval: welcome.no_session.then_some(0),
                receive_max: Some(welcome.receive_maximum),
                max_qos: Some(1),
                retain_available: None,
                max_packet_size: Some(welcome.max_packet as u32),
                assigned_client_identifier: welcome.assigned_client_id,
                topic_alias_max: None,
                reason_string: None,
                user_properties: vec![],
                wildcard_subscription_available: Some(0),
                subscription_identifiers_available: Some(0),
                shared_subscription_available: Some(0),
                server_keep_alive: None,
                response_information: None,
                server_reference: None,
                authentication_method: None,
                authentication_data: None,
            };
            let code = v5::ConnectReturnCode::Success;
            let connack = v5::ConnAck { session_present: false, code, properties: Some(properties) };
            connack.write(out).expect(WRITES);
            return;
        }
    }
    .expect(WRITES);
}

/// Writes the CONNACK that turns a client away.
pub(super) fn write_refusal(out: &mut BytesMut, version: Version, refusal: Refusal) {
    let (old, new) = match refusal {
        Refusal::ProtocolVersion => (1, 0x84),
        Refusal::ClientId => (2, 0x85),
        Refusal::Credentials => (4, 0x86),
        Refusal::NotAuthorized => (5, 0x87),
        Refusal::AuthenticationMethod => (5, 0x8C),
    };
    match version {
        Version::V3 => out.put_slice(&[0x20, 2, 0, old]),
        Version::V5 => out.put_slice(&[0x20, 3, 0, new, 0]),
    }
}

/// Writes a PUBACK. To a v3 client a denial cannot be said; its connection is ended instead.
pub(super) fn write_puback(out: &mut BytesMut, version: Version, id: u16, authorized: bool) {
    let [high, low] = id.to_be_bytes();
    if authorized || version == Version::V3 {
        out.put_slice(&[0x40, 2, high, low]);
    } else {
        out.put_slice(&[0x40, 4, high, low, 0x87, 0]);
    }
}

/// Writes a SUBACK; `None` stands for a filter that is not authorized.
pub(super) fn write_suback(out: &mut BytesMut, version: Version, id: u16, granted: &[Option<Qos>]) {
    match version {
        Version::V3 => {
            let code = |g: &Option<Qos>| match g {
                Some(Qos::AtMostOnce) => v4::SubscribeReasonCode::Success(three::QoS::AtMostOnce),
                Some(Qos::AtLeastOnce) => v4::SubscribeReasonCode::Success(three::QoS::AtLeastOnce),
                None => v4::SubscribeReasonCode::Failure,
            };
            v4::SubAck::new(id, granted.iter().map(code).collect()).write(out).expect(WRITES);
        }
        Version::V5 => {
            let code = |g: &Option<Qos>| match g {
                Some(Qos::AtMostOnce) => v5::SubscribeReasonCode::Success(five::QoS::AtMostOnce),
                Some(Qos::AtLeastOnce) => v5::SubscribeReasonCode::Success(five::QoS::AtLeastOnce),
                None => v5::SubscribeReasonCode::NotAuthorized,
            };
            let return_codes = granted.iter().map(code).collect();
            v5::SubAck { pkid: id, return_codes, properties: None }.write(out).expect(WRITES);
        }
    }
}

/// Writes an UNSUBACK; each filter was subscribed to or not.
pub(super) fn write_unsuback(out: &mut BytesMut, version: Version, id: u16, existed: &[bool]) {
    match version {
        Version::V3 => {
            v4::UnsubAck::new(id).write(out).expect(WRITES);
        }
        Version::V5 => {
            let reason = |existed: &bool| match existed {
                true => v5::UnsubAckReason::Success,
                false => v5::UnsubAckReason::NoSubscriptionExisted,
            };
            let reasons = existed.iter().map(reason).collect();
            v5::UnsubAck { pkid: id, reasons, properties: None }.write(out).expect(WRITES);
        }
    }
}

/// Writes a PINGRESP.
pub(super) fn write_pingresp(out: &mut BytesMut) {
    out.put_slice(&[0xD0, 0]);
}

/// Writes a PUBLISH, with QoS 1 under `id`, with QoS 0 without. Returns its length in bytes.
pub(super) fn write_publish(
    out: &mut BytesMut,
    version: Version,
    topic: &str,
    id: Option<u16>,
    retain: bool,
    payload: Vec<u8>,
) -> usize {
    match version {
        Version::V3 => {
            let qos = if id.is_some() { three::QoS::AtLeastOnce } else { three::QoS::AtMostOnce };
            let mut publish = v4::Publish::new(topic, qos, payload);
            (publish.retain, publish.pkid) = (retain, id.unwrap_or(0));
            publish.write(out).expect(WRITES)
        }
        Version::V5 => {
            let qos = if id.is_some() { five::QoS::AtLeastOnce } else { five::QoS::AtMostOnce };
            let mut publish = v5::Publish::new(topic, qos, payload, None);
            (publish.retain, publish.pkid) = (retain, id.unwrap_or(0));
            publish.write(out).expect(WRITES)
        }
    }
}

/// Writes a DISCONNECT with its reason code. Only v5 servers may send one. (rumqttc's own writer announces one byte less
/// than it writes when there are no properties.)
pub(super) fn write_disconnect(out: &mut BytesMut, reason: v5::DisconnectReasonCode) {
    out.put_slice(&[0xE0, 2, reason as u8, 0]);
}
