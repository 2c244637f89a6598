//! What URLs of object storage look like.

use anyhow::{Context, Result, bail};
use object_store::path::Path;
use url::Url;

/// Schemes that lead to object storage.
pub const SCHEMES: &[&str] = &["s3", "s3a", "gs", "az", "azure", "abfs", "abfss"];

/// Where a URL leads to within its bucket or container.
///
/// # Errors
/// If it is no URL of object storage.
pub fn path_of(url: &str) -> Result<Path> {
    Path::from_url_path(parse(url)?.path()).with_context(|| format!("{url} names no path"))
}

pub(super) fn parse(url: &str) -> Result<Url> {
    let parsed = Url::parse(url).with_context(|| format!("{url} is no URL"))?;
    if !SCHEMES.contains(&parsed.scheme()) {
        bail!("{url}: {:?} is no object storage that is known here; there are {}", parsed.scheme(), SCHEMES.join(", "));
    }
    if parsed.host_str().is_none_or(str::is_empty) {
        bail!("{url} names no bucket or container");
    }
    Ok(parsed)
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
