//! All connections of one server, and who of them has to go.

use crate::connection::{Connection, Doing};
use actix_web::dev::Extensions;
use parking_lot::Mutex;
use socket2::SockRef;
use std::any::Any;
use std::collections::HashMap;
use std::net::Shutdown;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often it is looked for connections whose time is over.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often it is said that there are too many.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// What connections may do, and how many there may be.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Most connections. Each takes two file descriptors.
    pub most: usize,
    /// How long a connection may be without a request: from its beginning, or from its last answer, to a request's whole head.
    pub quiet: Duration,
    /// How long a client may read nothing of an answer that is being sent.
    pub unread: Duration,
}

/// The connections of one server. Clones are of the same.
#[derive(Clone)]
pub struct Connections(Arc<Shared>);

struct Shared {
    bounds: Bounds,
    open: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    next: u64,
    connections: HashMap<u64, Arc<Connection>>,
    said: Option<Instant>,
}

/// A connection's place in the table, kept with what actix-web knows of it; gone when it is.
pub(crate) struct Open {
    pub(crate) connection: Arc<Connection>,
    id: u64,
    shared: Arc<Shared>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.open.lock().connections.remove(&self.id);
    }
}

impl Connections {
    /// None yet.
    pub fn new(bounds: Bounds) -> Self {
        Self(Arc::new(Shared { bounds, open: Mutex::default() }))
    }

    /// What the server's own cap for each of its threads must be, so that it never stops accepting.
    pub fn accepted_at_most(&self) -> usize {
        self.0.bounds.most * 2
    }

    /// For `HttpServer::on_connect`: takes a new connection in, and has another give way if there are too many.
    pub fn opened(&self, io: &dyn Any, data: &mut Extensions) {
        let Some(stream) = io.downcast_ref::<actix_rt::net::TcpStream>() else { return };
        let stream = SockRef::from(stream);
        let mut open = self.0.open.lock();
        if open.connections.len() >= self.0.bounds.most {
            if open.said.is_none_or(|said| said.elapsed() >= SAY_EVERY) {
                open.said = Some(Instant::now());
                tracing::warn!(
                    limit = self.0.bounds.most,
                    "too many HTTP connections: those that have been quiet for the longest give way (logged once a minute)"
                );
            }
            let gives_way = open.longest_quiet();
            match gives_way.and_then(|id| open.connections.remove(&id)) {
                Some(connection) => connection.end(),
                None => {
                    let _ = stream.shutdown(Shutdown::Both);
                    return;
                }
            }
        }
        // Without a handle of its own (no file descriptor is left), it could not be ended later.
        let Ok(socket) = stream.try_clone() else {
            let _ = stream.shutdown(Shutdown::Both);
            return;
        };
        let connection = Arc::new(Connection::new(socket));
        let id = open.next;
        open.next += 1;
        open.connections.insert(id, connection.clone());
        data.insert(Open { connection, id, shared: self.0.clone() });
    }

    /// Ends connections whose time is over, until the task it runs on is.
    pub async fn watch(self) {
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            look.tick().await;
            self.look(Instant::now());
        }
    }

    fn look(&self, now: Instant) {
        let Bounds { quiet, unread, .. } = self.0.bounds;
        for connection in self.0.open.lock().connections.values() {
            let (doing, since) = connection.state();
            let may_last = match doing {
                Doing::Quiet => quiet,
                Doing::Answered => unread,
                Doing::SendingBody | Doing::Served => continue,
            };
            if now.duration_since(since) > may_last {
                connection.end();
            }
        }
    }
}

impl Table {
    fn longest_quiet(&self) -> Option<u64> {
        let waits = |(id, connection): (&u64, &Arc<Connection>)| {
            let (doing, since) = connection.state();
            matches!(doing, Doing::Quiet | Doing::SendingBody).then_some((since, *id))
        };
        self.connections.iter().filter_map(waits).min().map(|(_, id)| id)
    }
}
