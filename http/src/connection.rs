//! One connection: what it is doing, and since when.

use actix_web::HttpRequest;
use parking_lot::Mutex;
use socket2::Socket;
use std::net::Shutdown;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doing {
    /// Nothing is owed to it: it has sent no request yet, or has got its answer.
    Quiet,
    /// It sends the body of a request.
    SendingBody,
    /// Its request is being worked on.
    Served,
    /// It is being answered.
    Answered,
}

/// A connection as the bounds see it. Its socket is a second handle on the same one: ending it wakes the server's own.
pub(crate) struct Connection {
    socket: Socket,
    state: Mutex<(Doing, Instant)>,
}

impl Connection {
    pub(crate) fn new(socket: Socket) -> Self {
        Self { socket, state: Mutex::new((Doing::Quiet, Instant::now())) }
    }

    /// Begins something else, now; or says that there was progress.
    pub(crate) fn is(&self, doing: Doing) {
        *self.state.lock() = (doing, Instant::now());
    }

    /// What it is doing, and since when without progress.
    pub(crate) fn state(&self) -> (Doing, Instant) {
        *self.state.lock()
    }

    /// Ends it. What waits to be sent is thrown away: its reader may never come.
    pub(crate) fn end(&self) {
        // Both fail only if the client has ended it already.
        let _ = self.socket.set_linger(Some(Duration::ZERO));
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// A request's body is being received until this is dropped.
pub struct Receiving(Option<Arc<Connection>>);

/// Says that the request's body is being received: as long as that lasts, the connection may have to give way.
pub fn receiving(request: &HttpRequest) -> Receiving {
    let connection = request.conn_data::<crate::connections::Open>().map(|open| open.connection.clone());
    if let Some(connection) = &connection {
        connection.is(Doing::SendingBody);
    }
    Receiving(connection)
}

impl Drop for Receiving {
    fn drop(&mut self) {
        if let Some(connection) = &self.0 {
            connection.is(Doing::Served);
        }
    }
}
