//! Many virtual agents against one hub, or the broker before some gateways, on the wire itself: how much it takes, how soon it
//! is durable, and whether repeats, swaps and absences do any harm. (Durable is what is in silver; from a gateway, what is in Kafka.)

use crate::latency::Latencies;
use crate::summary;
use crate::virtual_agent::VirtualAgent;
use anyhow::{Context, bail, ensure};
use indicatif::ProgressBar;
use onhand_common::topics::{self, DurableAck};
use onhand_common::{AgentId, Count, Epoch, Event, Line, StoreId, Timestamp, TransId, Transaction};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rumqttc::NetworkOptions;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, Packet};
use rumqttc::v5::{AsyncClient, ConnectionError, Event as MqttEvent, MqttOptions};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

/// Frames of one agent under way; a hub's acks come once for each silver commit.
const WINDOW: usize = 256;
/// How often an agent gathers what its tills made into a frame.
const TICK: Duration = Duration::from_millis(100);
/// How long one part of the agents stays away before the next part does.
const TURN: Duration = Duration::from_secs(5);
/// Without progress for so long an agent sends again.
const RESEND_AFTER: Duration = Duration::from_secs(5);
/// Pause before a connection that was lost, or not made, is tried again.
const PAUSE: Duration = Duration::from_millis(500);
/// An agent with so much waiting makes no more.
const MOST_BACKLOG: u64 = 100_000;

/// What to do to a hub.
#[derive(Debug, Clone, clap::Args)]
pub struct LoadOptions {
    /// The MQTT endpoint of a hub, or of the broker that it or some gateways use, mqtt://HOST:PORT. From a gateway, durable
    /// means: in Kafka.
    #[arg(long)]
    pub hub: String,
    /// Stores, each with an agent of its own.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub stores: u32,
    /// Transactions per second, over all stores.
    #[arg(long, default_value_t = 1000., value_parser = positive)]
    pub rate: f64,
    /// How long transactions are made; the run ends when all of them are durable.
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    pub duration: Duration,
    /// How long to wait, when all transactions are made, for the hub to make more of them durable.
    #[arg(long, default_value = "2min", value_parser = humantime::parse_duration)]
    pub give_up_after: Duration,
    /// Share of frames that are sent twice (0.05 or 5%).
    #[arg(long, default_value = "0", value_parser = share)]
    pub duplicates: f64,
    /// Share of frames that are sent before the one in front of them.
    #[arg(long, default_value = "0", value_parser = share)]
    pub reorder: f64,
    /// Share of stores that are cut off, taking turns.
    #[arg(long, default_value = "0", value_parser = share)]
    pub offline: f64,
    /// Items that each store sells.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub items: u32,
    /// The same seed makes the same baskets.
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
    /// Password of the agents, which are called load-1, load-2, …
    #[arg(long, env = "ONHAND_LOAD_PASSWORD", hide_env_values = true)]
    pub password: Option<String>,
}

fn positive(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|rate: &f64| *rate > 0. && rate.is_finite())
        .ok_or_else(|| "a number above 0 is needed".into())
}

fn share(text: &str) -> Result<f64, String> {
    let (number, scale) = text.strip_suffix('%').map_or((text, 1.), |number| (number, 100.));
    let share = number.trim().parse::<f64>().map_err(|_| "a share such as 0.1 or 10% is needed".to_owned())? / scale;
    if (0. ..1.).contains(&share) { Ok(share) } else { Err("a share lies from 0 to less than 1".to_owned()) }
}

#[derive(Default)]
struct Counters {
    transactions: AtomicU64,
    lines: AtomicU64,
    counts: AtomicU64,
    frames: AtomicU64,
    again: AtomicU64,
    acked: AtomicU64,
    connections: AtomicU64,
    held_back: AtomicU64,
}

impl Counters {
    fn get(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }
}

/// Runs the load and prints what came of it.
///
/// # Errors
/// Says that the hub was not reached, refused an agent, or did not make everything durable.
pub async fn load(options: LoadOptions) -> anyhow::Result<()> {
    let address = hub_address(&options.hub)?;
    let probe = tokio::time::timeout(Duration::from_secs(5), tokio::net::TcpStream::connect((&*address.0, address.1)));
    probe
        .await
        .map_err(anyhow::Error::from)
        .and_then(|r| Ok(r?))
        .with_context(|| format!("reach the hub at {}", options.hub))?;
    let options = Arc::new(options);
    let counters = Arc::new(Counters::default());
    let epoch = Epoch(Timestamp::now().micros() as u64);
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for index in 0..options.stores {
        let run = AgentRun::new(index, epoch, began, options.clone(), address.clone(), counters.clone())?;
        tasks.spawn(run.run());
    }
    let bar = summary::rate_bar("transactions", (options.rate * options.duration.as_secs_f64()) as u64);
    let mut latencies = Latencies::default();
    let mut tick = tokio::time::interval(Duration::from_millis(250));
    let ended = loop {
        tokio::select! {
            done = tasks.join_next() => match done {
                Some(Ok(Ok(of_one))) => latencies.extend(&of_one),
                Some(Ok(Err(error))) => break Err(error),
                Some(Err(panicked)) => break Err(panicked.into()),
                None => break Ok(()),
            },
            _ = tick.tick() => show(&bar, &counters),
        }
    };
    bar.finish_and_clear();
    ended?;
    print_summary(&options, &counters, &latencies, began.elapsed());
    Ok(())
}

fn show(bar: &ProgressBar, counters: &Counters) {
    bar.set_position(Counters::get(&counters.transactions));
    let made = Counters::get(&counters.transactions) + Counters::get(&counters.counts);
    let open = made.saturating_sub(Counters::get(&counters.acked));
    bar.set_message(format!("{open} not durable yet"));
}

fn hub_address(url: &str) -> anyhow::Result<(String, u16)> {
    let rest = url.strip_prefix("mqtt://").with_context(|| format!("--hub: {url:?} is no mqtt://HOST:PORT"))?;
    let rest = rest.trim_end_matches('/');
    match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            let port = port.parse().with_context(|| format!("--hub: {port:?} is no port"))?;
            Ok((host.trim_matches(['[', ']']).to_owned(), port))
        }
        _ if rest.is_empty() => bail!("--hub: {url:?} names no host"),
        _ => Ok((rest.trim_matches(['[', ']']).to_owned(), 1883)),
    }
}

/// One agent's life.
struct AgentRun {
    agent: VirtualAgent,
    store: StoreId,
    rng: ChaCha8Rng,
    began: Instant,
    /// 0 to 1: when this agent's turn to be away comes.
    place: f64,
    options: Arc<LoadOptions>,
    address: (String, u16),
    counters: Arc<Counters>,
    latencies: Latencies,
    made: u64,
    last_progress: Instant,
    last_resend: Instant,
    /// Why there is no connection, as the last attempt ended.
    trouble: Option<String>,
}

/// What a connection reports.
enum News {
    Connected,
    Ack(DurableAck),
    /// It was lost or not made, and is tried again.
    Lost(String),
    /// The broker does not want this agent, now or later.
    Refused(ConnectReturnCode),
}

struct Connection {
    client: AsyncClient,
    news: mpsc::Receiver<News>,
    poll: JoinHandle<()>,
    ready: bool,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.poll.abort();
    }
}

impl AgentRun {
    fn new(
        index: u32,
        epoch: Epoch,
        began: Instant,
        options: Arc<LoadOptions>,
        address: (String, u16),
        counters: Arc<Counters>,
    ) -> anyhow::Result<Self> {
        let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
        rng.set_stream(u64::from(index));
        Ok(Self {
            agent: VirtualAgent::new(AgentId::new(&format!("load-{}", index + 1))?, epoch, WINDOW),
            store: StoreId::try_from(i64::from(index) + 1)?,
            rng,
            began,
            place: f64::from(index) / f64::from(options.stores),
            options,
            address,
            counters,
            latencies: Latencies::default(),
            made: 0,
            last_progress: Instant::now(),
            last_resend: Instant::now(),
            trouble: None,
        })
    }

    async fn run(mut self) -> anyhow::Result<Latencies> {
        self.count_everything();
        // Agents do not tick together.
        tokio::time::sleep(TICK.mul_f64(self.rng.random::<f64>())).await;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut connection: Option<Connection> = None;
        loop {
            if self.away() {
                connection = None;
            } else if connection.is_none() {
                connection = Some(self.connect());
            }
            tokio::select! {
                news = receive(&mut connection) => match (news, connection.as_mut()) {
                    (Some(news), Some(open)) => self.hear(news, open)?,
                    _ => connection = None,
                },
                _ = tick.tick() => {
                    self.make();
                    if self.began.elapsed() > self.options.duration && self.agent.backlog() == 0 {
                        return Ok(self.latencies);
                    }
                    self.watch()?;
                }
            }
            if let Some(open) = connection.as_mut().filter(|open| open.ready) {
                self.send(open);
            }
        }
    }

    /// Whether it is this agent's turn to be cut off.
    fn away(&self) -> bool {
        let elapsed = self.began.elapsed();
        if self.options.offline == 0. || elapsed >= self.options.duration {
            return false;
        }
        let turn = (elapsed.as_secs_f64() / TURN.as_secs_f64()).floor();
        let from = (turn * self.options.offline).fract();
        (self.place - from).rem_euclid(1.) < self.options.offline
    }

    fn connect(&mut self) -> Connection {
        let mut mqtt = MqttOptions::new(self.agent.id.as_str(), self.address.0.clone(), self.address.1);
        mqtt.set_keep_alive(Duration::from_secs(30)).set_clean_start(true).set_max_packet_size(Some(300 * 1024));
        mqtt.set_outgoing_inflight_upper_limit(4 * WINDOW as u16);
        if let Some(password) = &self.options.password {
            mqtt.set_credentials(self.agent.id.as_str(), password);
        }
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        mqtt.set_network_options(network);
        let (client, mut event_loop) = AsyncClient::new(mqtt, 4 * WINDOW);
        let (sender, news) = mpsc::channel(64);
        let counters = self.counters.clone();
        let poll = tokio::spawn(async move {
            loop {
                let news = match event_loop.poll().await {
                    Ok(MqttEvent::Incoming(Packet::ConnAck(_))) => {
                        counters.connections.fetch_add(1, Ordering::Relaxed);
                        News::Connected
                    }
                    Ok(MqttEvent::Incoming(Packet::Publish(publish))) => {
                        let Ok(ack) = serde_json::from_slice(&publish.payload) else { continue };
                        News::Ack(ack)
                    }
                    Ok(_) => continue,
                    Err(ConnectionError::ConnectionRefused(code)) if for_good(code) => News::Refused(code),
                    Err(error) => News::Lost(error.to_string()),
                };
                let lost = matches!(news, News::Lost(_));
                if sender.send(news).await.is_err() {
                    return;
                }
                if lost {
                    tokio::time::sleep(PAUSE).await;
                }
            }
        });
        Connection { client, news, poll, ready: false }
    }

    fn hear(&mut self, news: News, connection: &mut Connection) -> anyhow::Result<()> {
        match news {
            News::Connected => {
                self.trouble = None;
                connection.ready =
                    connection.client.try_subscribe(topics::ack(&self.agent.id), QoS::AtLeastOnce).is_ok();
                self.agent.rewind();
            }
            News::Ack(ack) => {
                let now = Instant::now();
                for (latency, events) in self.agent.acknowledge(&ack, now) {
                    self.latencies.record(latency);
                    self.counters.acked.fetch_add(events, Ordering::Relaxed);
                    self.last_progress = now;
                }
            }
            News::Lost(reason) => {
                tracing::debug!("connection lost: {reason}");
                connection.ready = false;
                self.trouble = Some(reason);
            }
            News::Refused(code) => {
                bail!("{} was refused by the broker at {}: {code:?}", self.agent.id, self.options.hub)
            }
        }
        Ok(())
    }

    fn send(&mut self, connection: &mut Connection) {
        while let Some(frame) = self.agent.next_frame(Instant::now()) {
            let mut frames = vec![frame];
            if self.options.reorder > 0. && self.rng.random_bool(self.options.reorder) {
                frames.extend(self.agent.next_frame(Instant::now()));
                frames.reverse();
            }
            for frame in frames {
                let twice = self.options.duplicates > 0. && self.rng.random_bool(self.options.duplicates);
                for again in [frame.again].into_iter().chain(twice.then_some(true)) {
                    let topic = topics::frames(&self.agent.id);
                    if connection.client.try_publish(topic, QoS::AtLeastOnce, false, frame.bytes.clone()).is_err() {
                        // The client's queue is full: whatever is lost here is asked for by a hub, or sent again in time.
                        return;
                    }
                    self.counters.frames.fetch_add(1, Ordering::Relaxed);
                    self.counters.again.fetch_add(u64::from(again), Ordering::Relaxed);
                }
            }
        }
    }

    /// Sends again when acks stay away, and gives up when they stay away for good, with a connection or without.
    fn watch(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        if self.agent.backlog() == 0 {
            self.last_progress = now;
            return Ok(());
        }
        let since_progress = now - self.last_progress;
        let since_end = (now - self.began).saturating_sub(self.options.duration);
        ensure!(
            since_progress.min(since_end) < self.options.give_up_after,
            "{} has {} events that the hub did not make durable within {}{}",
            self.agent.id,
            self.agent.backlog(),
            humantime::format_duration(self.options.give_up_after),
            self.trouble.as_ref().map(|trouble| format!("; it is not connected: {trouble}")).unwrap_or_default()
        );
        let silent = self.agent.under_way() > 0 && since_progress > RESEND_AFTER;
        if (silent || self.agent.has_lost(RESEND_AFTER, now)) && now - self.last_resend > RESEND_AFTER {
            self.last_resend = now;
            self.agent.rewind();
        }
        Ok(())
    }

    /// The first events: every item is counted, so that gold has rows for all of them.
    fn count_everything(&mut self) {
        let date_time = Timestamp::now();
        let counts: Vec<Event> = (1..=i64::from(self.options.items))
            .map(|item| {
                Event::Count(Count {
                    item_id: item.try_into().expect("at most a million items"),
                    employee_id: 1_i64.try_into().expect("1 is an id"),
                    store_id: self.store,
                    date_time,
                    quantity: 1_000,
                })
            })
            .collect();
        self.counters.counts.fetch_add(counts.len() as u64, Ordering::Relaxed);
        self.agent.make(&counts, Instant::now());
    }

    /// What the tills have made since the last time.
    fn make(&mut self) {
        let elapsed = self.began.elapsed().min(self.options.duration).as_secs_f64();
        let due = (elapsed * self.options.rate / f64::from(self.options.stores) + self.place) as u64;
        let missing = due.saturating_sub(self.made);
        self.made = due;
        if self.agent.backlog() > MOST_BACKLOG {
            self.counters.held_back.fetch_add(missing, Ordering::Relaxed);
            return;
        }
        let first = self.agent.next_seq().0;
        let mut lines = 0;
        let events: Vec<Event> = (0..missing)
            .map(|n| {
                let transaction = self.sale(first + n);
                lines += transaction.items.len() as u64;
                Event::Transaction(transaction)
            })
            .collect();
        self.counters.transactions.fetch_add(events.len() as u64, Ordering::Relaxed);
        self.counters.lines.fetch_add(lines, Ordering::Relaxed);
        self.agent.make(&events, Instant::now());
    }

    fn sale(&mut self, seq: u64) -> Transaction {
        let items = i64::from(self.options.items);
        let lines: Vec<Line> = (0..self.rng.random_range(1..=4))
            .map(|_| Line {
                item_id: self.rng.random_range(1..=items).try_into().expect("at most a million items"),
                quantity: -self.rng.random_range(1..=3),
            })
            .collect();
        let trans_id =
            TransId::new(&format!("{:x}-{}-{seq}", self.agent.epoch().0, self.store)).expect("short and plain");
        let sale = 1_i64.try_into().expect("1 is an id");
        Transaction::new(trans_id, self.store, Timestamp::now(), sale, lines).expect("a few small quantities")
    }
}

/// Whether trying again would be answered alike: wrong credentials, or a broker that is not made for this agent.
fn for_good(code: ConnectReturnCode) -> bool {
    use ConnectReturnCode::*;
    !matches!(code, ServiceUnavailable | ServerUnavailable | ServerBusy | QuotaExceeded | ConnectionRateExceeded)
}

/// Waits for ever without a connection; `None` when the connection's task has ended.
async fn receive(connection: &mut Option<Connection>) -> Option<News> {
    match connection {
        Some(open) => open.news.recv().await,
        None => std::future::pending().await,
    }
}

fn print_summary(options: &LoadOptions, counters: &Counters, latencies: &Latencies, elapsed: Duration) {
    let get = Counters::get;
    let (transactions, counts) = (get(&counters.transactions), get(&counters.counts));
    let per_second = |n: u64| n as f64 / elapsed.as_secs_f64();
    let mut rows = vec![
        ("agents", format!("{} ({} connections)", options.stores, get(&counters.connections))),
        (
            "made",
            format!(
                "{} transactions, {} lines, {} counts",
                summary::number(transactions),
                summary::number(get(&counters.lines)),
                summary::number(counts)
            ),
        ),
        (
            "durable",
            format!("{} of {} events", summary::number(get(&counters.acked)), summary::number(transactions + counts)),
        ),
        (
            "frames sent",
            format!(
                "{}, {} of them again",
                summary::number(get(&counters.frames)),
                summary::number(get(&counters.again))
            ),
        ),
        ("duration", format!("{:.1} s", elapsed.as_secs_f64())),
        (
            "rate",
            format!(
                "{} transactions/s, {} lines/s",
                summary::number(per_second(transactions) as u64),
                summary::number(per_second(get(&counters.lines)) as u64)
            ),
        ),
        ("frame made to durable", latencies.in_words()),
    ];
    let held_back = get(&counters.held_back);
    if held_back > 0 {
        rows.push((
            "held back",
            format!("{} transactions: agents had {MOST_BACKLOG} events waiting", summary::number(held_back)),
        ));
    }
    println!("{}", summary::facts(&rows));
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[test]
    fn shares_and_addresses_are_read() {
        assert_eq!(share("10%"), Ok(0.1));
        assert_eq!(share("0.25"), Ok(0.25));
        assert!(share("1").is_err() && share("-1%").is_err() && share("x").is_err());
        assert_eq!(hub_address("mqtt://127.0.0.1:1884").unwrap(), ("127.0.0.1".to_owned(), 1884));
        assert_eq!(hub_address("mqtt://hub").unwrap(), ("hub".to_owned(), 1883));
        assert_eq!(hub_address("mqtt://[::1]:1884/").unwrap(), ("::1".to_owned(), 1884));
        assert!(
            hub_address("http://hub").is_err() && hub_address("mqtt://").is_err() && hub_address("mqtt://h:x").is_err()
        );
    }

    fn options(hub: &str, more: &[&str]) -> LoadOptions {
        #[derive(clap::Parser)]
        struct Parsed {
            #[command(flatten)]
            options: LoadOptions,
        }
        <Parsed as clap::Parser>::parse_from([&["load", "--hub", hub][..], more].concat()).options
    }

    #[test]
    fn a_share_of_the_stores_is_away_at_a_time_and_all_take_turns() {
        let options = options("mqtt://h", &["--stores", "20", "--duration", "1000s", "--offline", "0.1"]);
        let options = Arc::new(options);
        let away_after = |seconds: u64| -> Vec<u32> {
            let began = Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap();
            let run = |index| {
                AgentRun::new(index, Epoch(1), began, options.clone(), (String::new(), 1), Arc::default()).unwrap()
            };
            (0..20).filter(|index| run(*index).away()).collect()
        };
        let mut seen = std::collections::BTreeSet::new();
        for turn in 0..10 {
            let away = away_after(turn * 5 + 2);
            assert!((1..=3).contains(&away.len()), "{away:?}");
            seen.extend(away);
        }
        assert_eq!(seen.len(), 20);
    }

    /// A broker that gives everyone the same answer, and its URL.
    async fn broker(answer: &'static [u8]) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("mqtt://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.write_all(answer).await;
                open.push(stream);
            }
        });
        url
    }

    #[tokio::test]
    async fn an_agent_that_is_refused_ends_the_run_at_once() {
        let hub = broker(&[0x20, 3, 0, 0x86, 0]).await;
        let error = load(options(&hub, &["--duration", "10days"])).await.unwrap_err().to_string();
        assert!(error.contains("refused by the broker") && error.contains("BadUserNamePassword"), "{error}");
    }

    #[tokio::test]
    async fn a_hub_that_never_takes_an_agent_ends_the_run_in_the_end() {
        let hub = broker(&[0x20, 3, 0, 0x89, 0]).await;
        let options = options(&hub, &["--stores", "1", "--duration", "100ms", "--give-up-after", "100ms"]);
        let error = load(options).await.unwrap_err().to_string();
        assert!(error.contains("did not make durable within 100ms") && error.contains("ServerBusy"), "{error}");
    }
}
