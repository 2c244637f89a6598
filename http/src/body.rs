//! What the server does with a request, told to its connection.

use crate::connection::{Connection, Doing};
use crate::connections::Open;
use actix_web::Error;
use actix_web::body::{BodySize, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use actix_web::web::Bytes;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// For `App::wrap(from_fn(observe))`: follows each request from its head to the end of its answer.
///
/// # Errors
/// Those of the service behind it.
pub async fn observe<B: MessageBody>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<Observed<B>>, Error> {
    let connection = request.conn_data::<Open>().map(|open| open.connection.clone());
    let now = |doing| {
        if let Some(connection) = &connection {
            connection.is(doing);
        }
    };
    now(Doing::Served);
    let response = next.call(request).await;
    now(if response.is_ok() { Doing::Answered } else { Doing::Quiet });
    Ok(response?.map_body(|_, body| Observed { body: Box::pin(body), connection }))
}

/// The body of an answer.
pub struct Observed<B> {
    body: Pin<Box<B>>,
    connection: Option<Arc<Connection>>,
}

impl<B: MessageBody> MessageBody for Observed<B> {
    type Error = B::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    /// Asked for more, the body knows that what came before is on its way.
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, B::Error>>> {
        if let Some(connection) = &self.connection {
            connection.is(Doing::Answered);
        }
        self.body.as_mut().poll_next(context)
    }
}

impl<B> Drop for Observed<B> {
    fn drop(&mut self) {
        if let Some(connection) = &self.connection {
            connection.is(Doing::Quiet);
        }
    }
}
