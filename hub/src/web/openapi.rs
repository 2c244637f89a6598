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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::test_hub::TestHub;
    use serde_json::Value;
    use std::collections::BTreeSet;

    #[test]
    fn every_route_is_described_and_nothing_else() {
        let served: BTreeSet<(String, String)> =
            api::routes().into_iter().map(|(method, path, _)| (method.to_string(), path.to_owned())).collect();
        let document = serde_json::to_value(openapi()).unwrap();
        let described = document["paths"].as_object().unwrap().iter().flat_map(|(path, operations)| {
            operations.as_object().unwrap().keys().map(|method| (method.to_uppercase(), path.clone()))
        });
        assert_eq!(described.collect::<BTreeSet<_>>(), served);
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_error_has_its_shape() {
        let document = serde_json::to_value(openapi()).unwrap();
        check_references(&document, &document);
        for (path, operations) in document["paths"].as_object().unwrap() {
            for operation in operations.as_object().unwrap().values() {
                for (status, response) in operation["responses"].as_object().unwrap() {
                    if status.starts_with(['4', '5']) {
                        let schema = &response["content"]["application/json"]["schema"]["$ref"];
                        assert_eq!(schema, "#/components/schemas/Error", "{path} {status}");
                    }
                }
            }
        }
    }

    fn check_references(document: &Value, value: &Value) {
        match value {
            Value::Object(fields) => {
                if let Some(Value::String(reference)) = fields.get("$ref") {
                    assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
                }
                fields.values().for_each(|value| check_references(document, value));
            }
            Value::Array(values) => values.iter().for_each(|value| check_references(document, value)),
            _ => {}
        }
    }

    #[tokio::test]
    async fn the_document_is_served() {
        let hub = TestHub::start().await;
        let document = hub.get("/v1/openapi.json").await.json(200);
        assert_eq!(document, serde_json::to_value(openapi()).unwrap());
        hub.stop().await;
    }
}
