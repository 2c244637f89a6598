//! Object storage by URL: `s3://`, `gs://`, `az://`, `abfss://`. Credentials come from the environment, under the names that
//! the providers' own tools use (`AWS_…`, `AZURE_…`, `GOOGLE_…`).

pub use super::cloud_url::{SCHEMES, path_of};

use super::cloud_url::parse;
use anyhow::{Context, Result};
use object_store::ObjectStore;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use std::sync::Arc;

/// The store that a URL is in; its root is the bucket or container.
///
/// # Errors
/// If the scheme is none of [`SCHEMES`], or what the environment says is not enough to reach it.
pub fn open(url: &str) -> Result<Arc<dyn ObjectStore>> {
    let parsed = parse(url)?;
    let cannot = || format!("reach {url} with what the environment says");
    Ok(match parsed.scheme() {
        "s3" | "s3a" => {
            let plain =
                ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"].iter().any(|name| is_plain_http(name));
            Arc::new(AmazonS3Builder::from_env().with_url(url).with_allow_http(plain).build().with_context(cannot)?)
        }
        "gs" => Arc::new(GoogleCloudStorageBuilder::from_env().with_url(url).build().with_context(cannot)?),
        _ => {
            let builder = MicrosoftAzureBuilder::from_env().with_url(url);
            let plain = ["AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"].iter().any(|name| is_plain_http(name));
            let builder = if plain { builder.with_allow_http(true) } else { builder };
            Arc::new(builder.build().with_context(cannot)?)
        }
    })
}

/// An endpoint that was written with `http://` is meant so: an emulator, or a store within the own network.
fn is_plain_http(variable: &str) -> bool {
    std::env::var(variable).is_ok_and(|endpoint| endpoint.starts_with("http://"))
}
