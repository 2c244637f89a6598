//! A wire between agents and an MQTT endpoint or broker, which can be cut, slowed down, and made to lie while it runs.
//!
//! What holds:
//! - It stays where it is, however often what is behind it ends and starts again ([`Wire::lead_to`] if that moves).
//! - A fault holds until it is taken back or [`Wire::heal`], for connections that are there and (but for [`Wire::half_open`]) for new ones.
//! - What is done to frames is decided by the seed and the order of the connections. What is no MQTT (TLS) passes as it is.

mod meddler;
mod packets;

use meddler::Meddler;
pub use meddler::{FrameFaults, Meddled};
use packets::Splitter;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Frames are held back so long at most: until then others may come that they are mixed with.
const HELD: Duration = Duration::from_millis(400);
/// How often a pump that nothing reaches looks around.
const LOOK: Duration = Duration::from_millis(20);
/// How often a slow line takes a few bytes.
const SLOW_TICK: Duration = Duration::from_millis(50);

/// Which bytes vanish on a connection that is half open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vanishing {
    /// What the agent sends.
    ToHub,
    /// What the hub sends.
    ToAgent,
    /// Both.
    Both,
}

/// See the module. Connections end when it is dropped.
pub struct Wire {
    shared: Arc<Shared>,
    address: String,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Condition {
    refuses: bool,
    bytes_per_second: Option<u32>,
    faults: FrameFaults,
}

struct Shared {
    seed: u64,
    target: Mutex<String>,
    condition: Mutex<Condition>,
    links: Mutex<Vec<Arc<Link>>>,
    meddled: Mutex<Meddled>,
    accepted: AtomicU64,
    over: AtomicBool,
}

/// One connection through the wire.
struct Link {
    agent: TcpStream,
    hub: TcpStream,
    meddler: Mutex<Meddler>,
    vanishes_to_hub: AtomicBool,
    vanishes_to_agent: AtomicBool,
    /// Bytes are missing.
    broken: AtomicBool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    ToHub,
    ToAgent,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Wire {
    /// A wire that leads to an address (`127.0.0.1:1883`), where nobody need listen yet.
    pub fn start(target: &str, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("find a free port");
        let address = listener.local_addr().expect("a listener has an address").to_string();
        let shared = Arc::new(Shared {
            seed,
            target: Mutex::new(target.to_owned()),
            condition: Mutex::default(),
            links: Mutex::default(),
            meddled: Mutex::default(),
            accepted: AtomicU64::new(0),
            over: AtomicBool::new(false),
        });
        let accepting = {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || accept(&listener, &shared))
        };
        Self { shared, address, accepting: Some(accepting) }
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The URL of the endpoint behind it, for who needs no password.
    pub fn url(&self) -> String {
        format!("mqtt://{}", self.address)
    }

    /// New connections lead somewhere else.
    pub fn lead_to(&self, target: &str) {
        target.clone_into(&mut lock(&self.shared.target));
    }

    /// Connections that are there.
    pub fn connections(&self) -> usize {
        lock(&self.shared.links).len()
    }

    /// Connections that were ever made.
    pub fn connections_made(&self) -> u64 {
        self.shared.accepted.load(SeqCst)
    }

    /// Ends all connections, with whatever is under way. New ones are not affected.
    pub fn cut(&self) {
        lock(&self.shared.links).iter().for_each(|link| link.cut());
    }

    /// Whether new connections are closed at once.
    pub fn refuse(&self, refuses: bool) {
        lock(&self.shared.condition).refuses = refuses;
    }

    /// So much goes through each connection, each way.
    pub fn slow(&self, bytes_per_second: u32) {
        lock(&self.shared.condition).bytes_per_second = Some(bytes_per_second.max(1));
    }

    /// Everything goes through as fast as it can.
    pub fn quicken(&self) {
        lock(&self.shared.condition).bytes_per_second = None;
    }

    /// Bytes vanish on the connections that are there; they stay open, as when a router has forgotten them. New ones work.
    pub fn half_open(&self, vanishing: Vanishing) {
        for link in lock(&self.shared.links).iter() {
            link.vanishes_to_hub.fetch_or(vanishing != Vanishing::ToAgent, SeqCst);
            link.vanishes_to_agent.fetch_or(vanishing != Vanishing::ToHub, SeqCst);
        }
    }

    /// Frames are repeated, with this probability.
    pub fn repeat(&self, probability: f64) {
        lock(&self.shared.condition).faults.repeat = probability;
    }

    /// So many frames are held back and sent in another order.
    pub fn reorder(&self, window: usize) {
        lock(&self.shared.condition).faults.reorder = window;
    }

    /// Bytes of frames are changed, with this probability.
    pub fn damage(&self, probability: f64) {
        lock(&self.shared.condition).faults.damage = probability;
    }

    /// All is well again.
    pub fn heal(&self) {
        *lock(&self.shared.condition) = Condition::default();
        self.end_half_open();
    }

    /// Nothing vanishes any more. Connections from which bytes are missing end, as the peer of one would end it.
    pub fn end_half_open(&self) {
        for link in lock(&self.shared.links).iter() {
            link.vanishes_to_hub.store(false, SeqCst);
            link.vanishes_to_agent.store(false, SeqCst);
            if link.broken.load(SeqCst) {
                link.cut();
            }
        }
    }

    /// What was done to frames up to now.
    pub fn meddled(&self) -> Meddled {
        lock(&self.shared.meddled).clone()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.over.store(true, SeqCst);
        // So that the listener looks.
        let _ = TcpStream::connect(&self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        self.cut();
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for agent in listener.incoming() {
        if shared.over.load(SeqCst) {
            return;
        }
        let Ok(agent) = agent else { continue };
        if lock(&shared.condition).refuses {
            continue;
        }
        let number = shared.accepted.fetch_add(1, SeqCst);
        let shared = Arc::clone(shared);
        std::thread::spawn(move || {
            // Whoever is not there does not answer: the agent is hung up on.
            if let Ok(link) = Link::make(agent, &shared, number) {
                run(&shared, &Arc::new(link));
            }
        });
    }
}

fn run(shared: &Arc<Shared>, link: &Arc<Link>) {
    lock(&shared.links).push(Arc::clone(link));
    if shared.over.load(SeqCst) {
        link.cut();
    }
    let other_way = {
        let (shared, link) = (Arc::clone(shared), Arc::clone(link));
        std::thread::spawn(move || pump(&shared, &link, Way::ToAgent))
    };
    pump(shared, link, Way::ToHub);
    let _ = other_way.join();
    lock(&shared.links).retain(|other| !Arc::ptr_eq(other, link));
}

/// Brings what one side says to the other, until one of them has nothing more to say.
fn pump(shared: &Shared, link: &Link, way: Way) {
    let (from, to) = match way {
        Way::ToHub => (&link.agent, &link.hub),
        Way::ToAgent => (&link.hub, &link.agent),
    };
    match carry(shared, link, way, from, to) {
        // The other way may still have something to say.
        Ok(()) => drop(to.shutdown(Shutdown::Write)),
        Err(_) => link.cut(),
    }
}

fn carry(shared: &Shared, link: &Link, way: Way, mut from: &TcpStream, to: &TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    let mut splitter = Some(match way {
        Way::ToHub => Splitter::of_client(),
        Way::ToAgent => Splitter::of_server(),
    });
    let mut held_since = None;
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) =>
            {
                0
            }
            Err(error) => return Err(error),
        };
        if read > 0 && link.loses(way) {
            continue;
        }
        let mut out = link.passed(shared, way, &mut splitter, &buffer[..read]);
        if way == Way::ToHub {
            let mut meddler = lock(&link.meddler);
            let due = held_since.is_some_and(|since: Instant| since.elapsed() >= HELD);
            if due {
                let faults = lock(&shared.condition).faults;
                out.extend(meddler.release(&faults, &mut lock(&shared.meddled)));
            }
            held_since = if meddler.holds() { held_since.filter(|_| !due).or(Some(Instant::now())) } else { None };
        }
        for packet in out {
            write(shared, to, &packet)?;
        }
    }
}

fn write(shared: &Shared, mut to: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let rate = lock(&shared.condition).bytes_per_second;
        let Some(rate) = rate else { return to.write_all(bytes) };
        // Of a very slow line, a byte at a time, and that more seldom.
        let some = (u64::from(rate) * SLOW_TICK.as_millis() as u64 / 1000).max(1) as usize;
        let some = some.min(bytes.len());
        to.write_all(&bytes[..some])?;
        bytes = &bytes[some..];
        std::thread::sleep(Duration::from_secs_f64(some as f64 / f64::from(rate)).min(Duration::from_secs(1)));
    }
    Ok(())
}

impl Link {
    fn make(agent: TcpStream, shared: &Shared, number: u64) -> io::Result<Self> {
        let hub = TcpStream::connect(lock(&shared.target).as_str())?;
        for stream in [&agent, &hub] {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(LOOK))?;
        }
        Ok(Self {
            agent,
            hub,
            meddler: Mutex::new(Meddler::new(shared.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15))),
            vanishes_to_hub: AtomicBool::new(false),
            vanishes_to_agent: AtomicBool::new(false),
            broken: AtomicBool::new(false),
        })
    }

    fn cut(&self) {
        let _ = self.agent.shutdown(Shutdown::Both);
        let _ = self.hub.shutdown(Shutdown::Both);
    }

    /// Whether what came vanishes.
    fn loses(&self, way: Way) -> bool {
        let vanishes = match way {
            Way::ToHub => &self.vanishes_to_hub,
            Way::ToAgent => &self.vanishes_to_agent,
        };
        let loses = vanishes.load(SeqCst);
        self.broken.fetch_or(loses, SeqCst);
        loses
    }

    /// What passes, now that these bytes came. A splitter that meets what is no MQTT is not needed any more.
    fn passed(&self, shared: &Shared, way: Way, splitter: &mut Option<Splitter>, bytes: &[u8]) -> Vec<bytes::Bytes> {
        let Some(packets) = splitter.as_mut() else { return vec![bytes::Bytes::copy_from_slice(bytes)] };
        packets.push(bytes);
        let mut out = Vec::new();
        loop {
            match packets.take() {
                Ok(None) => return out,
                Ok(Some(packet)) => {
                    let mut meddler = lock(&self.meddler);
                    match way {
                        Way::ToHub => {
                            let faults = lock(&shared.condition).faults;
                            out.extend(meddler.agent_sent(packet, &faults, &mut lock(&shared.meddled)));
                        }
                        Way::ToAgent => out.extend(meddler.hub_sent(packet)),
                    }
                }
                Err(packets::NotMqtt) => {
                    out.push(packets.rest());
                    *splitter = None;
                    return out;
                }
            }
        }
    }
}
