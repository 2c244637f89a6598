//! Bounds on the connections of an HTTP server, beyond those that actix-web has.
//!
//! actix-web bounds how long the first head of a connection takes and how long a connection rests between requests. It does
//! not bound the heads that follow, a body in chunks that nobody asked for, or a client that reads nothing; and a server
//! with as many connections as it may have accepts no more, so that whoever holds them locks everybody out. Here:
//! - A connection that is owed nothing has [`Bounds::quiet`] for its next request, whatever trickles in meanwhile.
//! - A client has [`Bounds::unread`] to read some of an answer that is being sent.
//! - There are at most [`Bounds::most`] connections. One more, and the one that has been quiet, or sending its body, for the
//!   longest gives way: a client that does what it came for is served however many hang about.
//! - A request that is being worked on is never cut off from here.

mod body;
mod connection;
mod connections;

pub use body::{Observed, observe};
pub use connection::{Receiving, receiving};
pub use connections::{Bounds, Connections};
