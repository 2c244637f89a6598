//! The API's description of itself.

use super::error::ErrorBody;
use super::{api, inventory, live, status};
use actix_web::HttpResponse;
use utoipa::OpenApi;
use utoipa::openapi::OpenApi as Document;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "onhand hub",
        description = "How many of every item are on hand in every store, now. Every error is JSON: `error` says what is \
                       wrong, `field` names the parameter, where it is one.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    tags(
        (name = "inventory", description = "Stores and items"),
        (name = "operation", description = "Agents, pipeline, health"),
    ),
    paths(
        status::healthz,
        status::readyz,
        status::metrics,
        api::stores,
        api::item,
        inventory::inventory,
        api::agents,
        status::pipeline,
        live::stream,
        api::reload_reference,
        document,
    ),
    components(schemas(ErrorBody)),
)]
struct Described;

/// The API's OpenAPI document.
pub fn openapi() -> Document {
    Described::openapi()
}

/// This description.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "operation", responses(
    (status = 200, description = "An OpenAPI 3.1 document", body = Object),
))]
pub(super) async fn document() -> HttpResponse {
    HttpResponse::Ok().json(openapi())
}
