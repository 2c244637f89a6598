//! Object storage by URL: `s3://`, `gs://`, `az://`, `abfss://`. Credentials come from the environment, under the names that
//! the providers' own tools use (`AWS_…`, `AZURE_…`, `GOOGLE_…`).

use anyhow::{Context, Result, bail};
use object_store::ObjectStore;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use std::sync::Arc;
use url::Url;

/// Schemes that lead to object storage.
pub const SCHEMES: &[&str] = &["s3", "s3a", "gs", "az", "azure", "abfs", "abfss"];

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

/// Where a URL leads to within its bucket or container.
///
/// # Errors
/// If it is none that [`open`] takes.
pub fn path_of(url: &str) -> Result<Path> {
    Path::from_url_path(parse(url)?.path()).with_context(|| format!("{url} names no path"))
}

fn parse(url: &str) -> Result<Url> {
    let parsed = Url::parse(url).with_context(|| format!("{url} is no URL"))?;
    if !SCHEMES.contains(&parsed.scheme()) {
        bail!("{url}: {:?} is no object storage that is known here; there are {}", parsed.scheme(), SCHEMES.join(", "));
    }
    if parsed.host_str().is_none_or(str::is_empty) {
        bail!("{url} names no bucket or container");
    }
    Ok(parsed)
}

/// An endpoint that was written with `http://` is meant so: an emulator, or a store within the own network.
fn is_plain_http(variable: &str) -> bool {
    std::env::var(variable).is_ok_and(|endpoint| endpoint.starts_with("http://"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_refused_by_what_is_wrong_with_it() {
        let refusal = |url: &str| path_of(url).unwrap_err().to_string();
        assert!(refusal("ftp://host/lake").contains("\"ftp\""), "{}", refusal("ftp://host/lake"));
        assert!(refusal("s3:///lake").contains("bucket"), "{}", refusal("s3:///lake"));
        assert_eq!(path_of("s3://bucket/a/b").unwrap().as_ref(), "a/b");
        assert_eq!(path_of("abfss://container@account.dfs.core.windows.net/lake").unwrap().as_ref(), "lake");
        assert_eq!(path_of("az://container").unwrap().as_ref(), "");
    }
}
