//! The server's threads: their start and their end.

use super::api;
use super::state::{Web, WebState};
use actix_web::dev::ServerHandle;
use actix_web::middleware::from_fn;
use actix_web::web::{Data, PayloadConfig};
use actix_web::{App, HttpServer};
use onhand_http::{Bounds, Connections, observe};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Threads that serve requests.
const WORKERS: usize = 2;
/// Bounds on connections; actix-web ends those that are idle a little earlier. A live stream is read at least once in its
/// heartbeat.
const BOUNDS: Bounds = Bounds { most: 256, quiet: Duration::from_secs(65), unread: Duration::from_secs(45) };
/// How long a client may take to send the head of a request.
const REQUEST_WITHIN: Duration = Duration::from_secs(5);
/// How long a connection may stay quiet between requests.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// How long a client may take to end a connection.
const DISCONNECT_WITHIN: Duration = Duration::from_secs(2);
/// Largest body that is read; no request needs one.
const LARGEST_BODY: usize = 64 * 1024;
/// How long running requests may take when the hub stops, in seconds.
const STOP_WITHIN: u64 = 3;
/// How often it is looked at whether commits keep up.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A running server.
pub struct WebServer {
    handle: ServerHandle,
    stopping: CancellationToken,
    thread: JoinHandle<io::Result<()>>,
}

/// Starts the server on threads of its own. Returns where it listens, which tells the port if 0 was asked for.
///
/// # Errors
/// Above all: the port is in use.
pub fn start(state: WebState, address: SocketAddr) -> io::Result<(SocketAddr, WebServer)> {
    let listener = TcpListener::bind(address)?;
    let address = listener.local_addr()?;
    let web = Data::new(Web::new(state));
    let stopping = web.stopping.clone();
    let (started, handle) = mpsc::channel();
    let thread = std::thread::Builder::new().name("web".to_owned()).spawn(move || serve(web, listener, &started))?;
    let handle = handle.recv().map_err(|_| io::Error::other("http: the server's thread ended at once"))??;
    tracing::info!(%address, "HTTP API is served");
    Ok((address, WebServer { handle, stopping, thread }))
}

/// The thread's life: an actix system of its own.
fn serve(web: Data<Web>, listener: TcpListener, started: &mpsc::Sender<io::Result<ServerHandle>>) -> io::Result<()> {
    actix_rt::System::new().block_on(async move {
        let watched = web.clone();
        let connections = Connections::new(BOUNDS);
        let opened = connections.clone();
        let server = HttpServer::new(move || {
            App::new()
                .app_data(web.clone())
                .app_data(PayloadConfig::new(LARGEST_BODY))
                .wrap(from_fn(observe))
                .configure(api::configure)
        })
        .workers(WORKERS)
        .max_connections(connections.accepted_at_most())
        .on_connect(move |io, data| opened.opened(io, data))
        .client_request_timeout(REQUEST_WITHIN)
        .client_disconnect_timeout(DISCONNECT_WITHIN)
        .keep_alive(KEEP_ALIVE)
        .shutdown_timeout(STOP_WITHIN)
        .disable_signals()
        .listen(listener);
        let server = match server {
            Ok(server) => server.run(),
            Err(error) => {
                let _ = started.send(Err(error));
                return Ok(());
            }
        };
        let _ = started.send(Ok(server.handle()));
        actix_rt::spawn(connections.watch());
        actix_rt::spawn(async move {
            let mut look = tokio::time::interval(LOOK_EVERY);
            while !watched.stopping.is_cancelled() {
                look.tick().await;
                watched.waiting(Instant::now());
            }
        });
        server.await
    })
}

impl WebServer {
    /// Ends the live streams, lets running requests finish for a moment, and ends.
    pub async fn stop(self) {
        self.stopping.cancel();
        self.handle.stop(true).await;
        match tokio::task::spawn_blocking(move || self.thread.join()).await {
            Ok(Ok(Ok(()))) => tracing::debug!("HTTP API has ended"),
            Ok(Ok(Err(error))) => tracing::warn!("HTTP API ended with an error: {error}"),
            Ok(Err(_)) | Err(_) => tracing::error!("the HTTP API's thread panicked"),
        }
    }
}
