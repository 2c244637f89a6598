//! The HTTP interface on the store's network. Every answer is JSON, errors too; only `/metrics` is text.
//!
//! What holds: 200 means that everything accepted would survive pulling the plug. A till that got no answer sends again,
//! and is told of a duplicate if the first time was enough.

use super::documents::Documents;
use super::gate::Intake;
use crate::committer::{Ready, Refusal};
use actix_web::dev::Server;
use actix_web::http::{StatusCode, header};
use actix_web::middleware::from_fn;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use bytes::BytesMut;
use futures::StreamExt;
use onhand_common::Event;
use onhand_common::accelerator::{FieldError, LineError, parse_count, parse_transaction, read_counts};
use onhand_http::{Bounds, Connections, observe, receiving};
use serde::Serialize;
use serde_json::json;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// Largest body that is taken.
const MAX_BODY: usize = 32 * 1024 * 1024;
/// Of a body that is too large, so much is read and thrown away, so that its sender gets to see the answer.
const MAX_DISCARDED: usize = 256 * 1024 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// Entries of one request that become durable together.
const SLICE: usize = 2_000;
/// Refused entries that an answer names; the rest is counted.
const MAX_NAMED: usize = 10_000;
/// Entries after which others get their turn: a request may hold millions of them.
const TURN: usize = 200;
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// Bounds on connections; actix-web ends those that are idle a little earlier.
const BOUNDS: Bounds = Bounds { most: 256, quiet: Duration::from_secs(80), unread: Duration::from_secs(45) };

/// Serves until the returned server is stopped. Must be called inside an actix system.
///
/// # Errors
/// When the listener is not usable.
pub(crate) fn serve(listener: TcpListener, intake: Intake) -> std::io::Result<Server> {
    let connections = Connections::new(BOUNDS);
    let opened = connections.clone();
    let app = move || App::new().app_data(web::Data::new(intake.clone())).wrap(from_fn(observe)).configure(routes);
    let server = HttpServer::new(app)
        .workers(2)
        .max_connections(connections.accepted_at_most())
        .on_connect(move |io, data| opened.opened(io, data))
        .client_request_timeout(Duration::from_secs(10))
        .client_disconnect_timeout(Duration::from_secs(2))
        .keep_alive(KEEP_ALIVE)
        .shutdown_timeout(1)
        .disable_signals()
        .listen(listener)?;
    actix_web::rt::spawn(connections.watch());
    Ok(server.run())
}

fn routes(app: &mut web::ServiceConfig) {
    for (path, route) in [
        ("/v1/transactions", web::post().to(post_transactions)),
        ("/v1/counts", web::post().to(post_counts)),
        ("/v1/status", web::get().to(get_status)),
        ("/healthz", web::get().to(get_health)),
        ("/metrics", web::get().to(get_metrics)),
    ] {
        app.service(web::resource(path).route(route).default_service(web::to(wrong_method)));
    }
    app.default_service(web::to(nothing_here));
}

async fn wrong_method() -> HttpResponse {
    error(StatusCode::METHOD_NOT_ALLOWED, "this address takes another method")
}

async fn nothing_here() -> HttpResponse {
    error(StatusCode::NOT_FOUND, "there is nothing at this address")
}

async fn post_transactions(request: HttpRequest, payload: web::Payload, intake: web::Data<Intake>) -> HttpResponse {
    let (body, _permit) = match read_body(&request, payload, &intake).await {
        Ok(body) => body,
        Err(answer) => return answer,
    };
    take_documents(&intake, &body, |document| parse_transaction(document).map(Event::Transaction)).await
}

async fn post_counts(request: HttpRequest, payload: web::Payload, intake: web::Data<Intake>) -> HttpResponse {
    let (body, _permit) = match read_body(&request, payload, &intake).await {
        Ok(body) => body,
        Err(answer) => return answer,
    };
    // A byte order mark says nothing.
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&body);
    let said_csv = request.headers().get(header::CONTENT_TYPE).is_some_and(|t| t.as_bytes().starts_with(b"text/csv"));
    let looks_like_json =
        matches!(body.trim_ascii().first(), Some(b'{' | b'[') | None) || body.starts_with(&[0x1f, 0x8b]);
    if said_csv || !looks_like_json {
        take_count_file(&intake, body).await
    } else {
        take_documents(&intake, body, |document| parse_count(document).map(Event::Count)).await
    }
}

async fn take_documents(
    intake: &Intake,
    body: &[u8],
    parse: impl Fn(&[u8]) -> Result<Event, FieldError>,
) -> HttpResponse {
    let documents = match Documents::find(body) {
        Ok(documents) => documents,
        Err(refused) => return refused_whole(intake, &refused),
    };
    let mut batch = Batch::new(intake);
    for document in documents.iter() {
        let parsed = parse(document).and_then(|event| intake.admit(&event));
        if documents.is_one()
            && let Err(refused) = &parsed
        {
            return refused_whole(intake, refused);
        }
        if let Err(refusal) = batch.add(parsed.map_err(|e| (e, None))).await {
            return batch.put_off(&refusal);
        }
    }
    batch.finish(documents.is_one()).await
}

/// A row that is refused does not end the file. The file is gone through once, however many there are.
async fn take_count_file(intake: &Intake, body: &[u8]) -> HttpResponse {
    let mut batch = Batch::new(intake);
    // Blank lines before the header say nothing.
    let mut rows = read_counts(body.trim_ascii_start());
    for row in &mut rows {
        let entry = match row {
            Ok(count) => intake.admit(&Event::Count(count)).map_err(|e| (e, None)),
            Err(LineError { line, field, reason }) => Err((FieldError { field, reason }, Some(line))),
        };
        match entry {
            // The header: no row was looked at, so none was taken.
            Err((refused, Some(..=1))) if batch.next_index == 0 => return refused_whole(intake, &refused),
            entry => {
                if let Err(refusal) = batch.add(entry).await {
                    return batch.put_off(&refusal);
                }
            }
        }
    }
    batch.lines_left_out = rows.has_left_lines_out();
    batch.finish(false).await
}

/// One entry that was not taken.
#[derive(Debug, Serialize)]
struct RefusedEntry {
    /// Its place in the request, from 0.
    index: usize,
    /// Its line, if the request was a CSV file.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    field: String,
    reason: String,
}

/// The entries of a request on their way to the disk, a slice at a time.
struct Batch<'a> {
    intake: &'a Intake,
    next_index: usize,
    pending: Vec<Ready>,
    accepted: usize,
    duplicates: usize,
    refused: Vec<RefusedEntry>,
    refused_count: usize,
    /// Lines of a file are in no entry: what the sender has of them is not known.
    lines_left_out: bool,
}

impl<'a> Batch<'a> {
    fn new(intake: &'a Intake) -> Self {
        let (pending, refused) = (Vec::new(), Vec::new());
        Self {
            intake,
            next_index: 0,
            pending,
            accepted: 0,
            duplicates: 0,
            refused,
            refused_count: 0,
            lines_left_out: false,
        }
    }

    async fn add(&mut self, entry: Result<Ready, (FieldError, Option<u64>)>) -> Result<(), Refusal> {
        let index = self.next_index;
        self.next_index += 1;
        if self.next_index.is_multiple_of(TURN) {
            tokio::task::yield_now().await;
        }
        match entry {
            Ok(event) => self.pending.push(event),
            Err((FieldError { field, reason }, line)) => {
                self.intake.metrics().refused.inc();
                self.refused_count += 1;
                if self.refused.len() < MAX_NAMED {
                    self.refused.push(RefusedEntry { index, line, field, reason });
                }
            }
        }
        if self.pending.len() >= SLICE { self.commit().await } else { Ok(()) }
    }

    async fn commit(&mut self) -> Result<(), Refusal> {
        if !self.pending.is_empty() {
            let taken = self.intake.submit(std::mem::take(&mut self.pending)).await?;
            self.accepted += taken.accepted();
            self.duplicates += taken.duplicates();
        }
        Ok(())
    }

    async fn finish(mut self, is_one: bool) -> HttpResponse {
        if let Err(refusal) = self.commit().await {
            return self.put_off(&refusal);
        }
        let mut answer = self.answer();
        if is_one {
            answer["result"] = if self.accepted > 0 { "accepted" } else { "duplicate" }.into();
        }
        if self.lines_left_out {
            answer["error"] = "lines were not read as rows of their own: mend the row, and send all of it again".into();
            return HttpResponse::BadRequest().json(answer);
        }
        if self.refused_count > 0 && self.refused_count == self.next_index {
            answer["error"] = "every entry was refused".into();
            return HttpResponse::BadRequest().json(answer);
        }
        HttpResponse::Ok().json(answer)
    }

    fn answer(&self) -> serde_json::Value {
        let mut answer = json!({ "accepted": self.accepted, "duplicates": self.duplicates, "refused": self.refused });
        if self.refused_count > self.refused.len() {
            answer["refused_not_named"] = (self.refused_count - self.refused.len()).into();
        }
        answer
    }

    /// What was accepted before stays accepted, and the answer says how many; sending all again does no harm.
    fn put_off(&self, refusal: &Refusal) -> HttpResponse {
        let mut answer = self.answer();
        answer["error"] = refusal.to_string().into();
        let status = match refusal {
            Refusal::Full(_) => StatusCode::INSUFFICIENT_STORAGE,
            Refusal::Storage(_) | Refusal::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        };
        HttpResponse::build(status).insert_header((header::RETRY_AFTER, "5")).json(answer)
    }
}

fn refused_whole(intake: &Intake, refused: &FieldError) -> HttpResponse {
    intake.metrics().refused.inc();
    HttpResponse::BadRequest().json(json!({
        "error": refused.to_string(), "field": refused.field, "reason": refused.reason,
        "accepted": 0, "duplicates": 0, "refused": [{ "index": 0, "field": refused.field, "reason": refused.reason }],
    }))
}

fn error(status: StatusCode, text: &str) -> HttpResponse {
    HttpResponse::build(status).json(json!({ "error": text }))
}

/// Reads a body within its bounds. The permit stands for the memory that it takes.
async fn read_body(
    request: &HttpRequest,
    mut payload: web::Payload,
    intake: &Intake,
) -> Result<(BytesMut, Option<OwnedSemaphorePermit>), HttpResponse> {
    if let Some(encoding) = request.headers().get(header::CONTENT_ENCODING)
        && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        let text = "content-encoding: compressed bodies are not taken, send plain text";
        return Err(error(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
    }
    let receiving = receiving(request);
    let reading = async {
        let mut body = BytesMut::new();
        let mut permit: Option<OwnedSemaphorePermit> = None;
        let mut length = 0;
        while let Some(chunk) = payload.next().await {
            let chunk = chunk.map_err(|e| error(StatusCode::BAD_REQUEST, &format!("the body cannot be read: {e}")))?;
            length += chunk.len();
            if length > MAX_DISCARDED {
                break;
            }
            if length > MAX_BODY {
                body = BytesMut::new();
                permit = None;
                continue;
            }
            let kib = u32::try_from(chunk.len().div_ceil(1024)).unwrap_or(u32::MAX);
            let more = Arc::clone(&intake.body_budget).try_acquire_many_owned(kib).map_err(|_| busy())?;
            match &mut permit {
                Some(permit) => permit.merge(more),
                None => permit = Some(more),
            }
            body.extend_from_slice(&chunk);
        }
        if length > MAX_BODY {
            let text = format!("the body is larger than {MAX_BODY} bytes: send it in parts");
            return Err(error(StatusCode::PAYLOAD_TOO_LARGE, &text));
        }
        Ok((body, permit))
    };
    let read = tokio::time::timeout(BODY_TIMEOUT, reading).await;
    drop(receiving);
    match read {
        Ok(done) => done,
        Err(_) => Err(error(StatusCode::REQUEST_TIMEOUT, "the body did not come within a minute")),
    }
}

fn busy() -> HttpResponse {
    HttpResponse::ServiceUnavailable()
        .insert_header((header::RETRY_AFTER, "1"))
        .json(json!({ "error": "too much is being received at this moment: send it again in a second" }))
}

async fn get_status(intake: web::Data<Intake>) -> HttpResponse {
    HttpResponse::Ok().json(intake.reporter.report())
}

/// Healthy is an agent that can take events; whether the hub is there is not its health.
async fn get_health(intake: web::Data<Intake>) -> HttpResponse {
    match intake.reporter.trouble() {
        None => HttpResponse::Ok().json(json!({ "status": "ok" })),
        Some(trouble) => HttpResponse::ServiceUnavailable().json(json!({ "status": "trouble", "error": trouble })),
    }
}

async fn get_metrics(intake: web::Data<Intake>) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("application/openmetrics-text; version=1.0.0; charset=utf-8")
        .body(intake.reporter.metrics.render(&intake.reporter.outbox))
}

#[cfg(test)]
mod tests;
