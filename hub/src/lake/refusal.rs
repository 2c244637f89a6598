//! Why an object store turns us away, in words that name the settings: what stores themselves say is XML, and names none.

use anyhow::{Error, anyhow};
use object_store::Error as StoreError;

/// What is likely to be set wrongly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// Keys that the store does not know, or that may not do this.
    Refused,
    /// There are none, so a service of the cloud's machines was asked for some.
    NoCredentials,
    /// There is no such bucket or container.
    NoBucket,
    /// It is in another region.
    Region,
}

/// Codes of S3, Azure and Google's XML interface.
const CODES: [(Cause, &[&str]); 3] = [
    (
        Cause::Refused,
        &[
            "AccessDenied",
            "AuthenticationFailed",
            "AuthenticationRequired",
            "AuthorizationFailure",
            "AuthorizationPermissionMismatch",
            "ExpiredToken",
            "InvalidAccessKeyId",
            "InvalidAuthenticationInfo",
            "InvalidSecurity",
            "InvalidToken",
            "NoAuthenticationInformation",
            "SignatureDoesNotMatch",
        ],
    ),
    (Cause::NoBucket, &["ContainerNotFound", "NoSuchBucket", "InvalidBucketName"]),
    (Cause::Region, &["AuthorizationHeaderMalformed", "PermanentRedirect"]),
];
/// Where the machines of all clouds are told their credentials.
const METADATA: [&str; 3] = ["//169.254.", "//metadata.google.internal", "//[fd00:ec2::"];

/// The same error, or where it is one that settings explain, one that says which. `url` is what could not be reached.
pub fn in_words(url: &str, error: Error) -> Error {
    // Some of those who pass a store's error on show its text only.
    let text = format!("{error:#}");
    let code = between(&text, "<Code>", "</Code>");
    let Some(cause) = cause(&error, &text, code) else { return error };
    tracing::debug!("{text}");
    let message = between(&text, "<Message>", "</Message>").and_then(|message| message.lines().next());
    let said = match (code, message) {
        (Some(code), Some(message)) => format!(" ({code}: {})", message.trim_end_matches('.')),
        (Some(code), None) => format!(" ({code})"),
        _ => String::new(),
    };
    let settings = settings(url);
    match cause {
        Cause::Refused => anyhow!(
            "{url}: the store refuses the credentials{said}: look at {}, then at {}",
            settings.credentials,
            settings.then
        ),
        Cause::NoCredentials => {
            anyhow!(
                "{url}: there are no credentials in the environment, and this machine has no role of its own: set {}",
                settings.credentials
            )
        }
        Cause::NoBucket => {
            anyhow!(
                "{url}: there is no such bucket or container{said}: look at the URL and at {}; it is not made here",
                settings.place
            )
        }
        Cause::Region => anyhow!("{url}: the store expects another region{said}: look at {}", settings.place),
    }
}

fn cause(error: &Error, text: &str, code: Option<&str>) -> Option<Cause> {
    let of_code = |code| CODES.iter().find(|(_, codes)| codes.contains(&code)).map(|(cause, _)| *cause);
    if let Some(cause) = code.and_then(of_code) {
        return Some(cause);
    }
    if METADATA.iter().any(|place| text.contains(place)) {
        return Some(Cause::NoCredentials);
    }
    let refused = error.chain().any(|cause| {
        let error = cause.downcast_ref::<StoreError>();
        matches!(error, Some(StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. }))
    });
    refused.then_some(Cause::Refused)
}

/// Names of environment variables, as [`super::cloud`] reads them.
struct Settings {
    credentials: &'static str,
    /// What else may be the reason why they are refused.
    then: &'static str,
    /// What says which store it is, beside the URL.
    place: &'static str,
}

fn settings(url: &str) -> Settings {
    match url.split_once("://").map(|(scheme, _)| scheme) {
        Some("s3" | "s3a") => Settings {
            credentials: "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (with temporary ones AWS_SESSION_TOKEN, too)",
            then: "AWS_REGION and AWS_ENDPOINT_URL",
            place: "AWS_REGION and AWS_ENDPOINT_URL",
        },
        Some("gs") => Settings {
            credentials: "GOOGLE_SERVICE_ACCOUNT or GOOGLE_APPLICATION_CREDENTIALS",
            then: "what the account may do in the bucket",
            place: "the account's project",
        },
        _ => Settings {
            credentials: "AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_KEY, or AZURE_TENANT_ID, \
                          AZURE_CLIENT_ID and AZURE_CLIENT_SECRET",
            then: "what the account may do in the container",
            place: "AZURE_STORAGE_ACCOUNT_NAME",
        },
    }
}

fn between<'t>(text: &'t str, start: &str, end: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(start)?;
    Some(rest.split_once(end)?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(url: &str, error: StoreError) -> String {
        format!("{:#}", in_words(url, Error::from(error).context("write")))
    }

    fn generic(body: &str) -> StoreError {
        StoreError::Generic { store: "S3", source: body.into() }
    }

    #[test]
    fn refusals_name_the_settings_and_what_the_store_said() {
        let body = "<?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code><Message>It does not match.</Message></Error>";
        let denied = || StoreError::PermissionDenied { path: "lake/x".to_owned(), source: body.into() };
        let text = said("s3://b/lake", denied());
        assert!(
            text.starts_with(
                "s3://b/lake: the store refuses the credentials (SignatureDoesNotMatch: It does not match)"
            ),
            "{text}"
        );
        assert!(text.contains("AWS_SECRET_ACCESS_KEY") && !text.contains('<'), "{text}");
        for (url, setting) in
            [("abfss://c@a.dfs/lake", "AZURE_STORAGE_ACCOUNT_KEY"), ("gs://b/l", "GOOGLE_SERVICE_ACCOUNT")]
        {
            assert!(said(url, denied()).contains(setting), "{url}");
        }
        let nothing = StoreError::Unauthenticated { path: "lake/x".to_owned(), source: "no body".into() };
        assert!(
            said("az://c/lake", nothing).starts_with("az://c/lake: the store refuses the credentials: look at AZURE_")
        );
    }

    #[test]
    fn other_wrong_settings_are_told_apart() {
        let text = said("s3://b/lake", generic("<Code>NoSuchBucket</Code>"));
        assert!(
            text.starts_with("s3://b/lake: there is no such bucket or container (NoSuchBucket): look at"),
            "{text}"
        );
        let text = said("s3://b/lake", generic("<Code>AuthorizationHeaderMalformed</Code>"));
        assert!(text.contains("another region") && text.contains("AWS_REGION"), "{text}");
        let text = said("s3://b/lake", generic("Error performing PUT http://169.254.169.254/latest/api/token in 2s"));
        assert!(text.contains("no credentials in the environment"), "{text}");
    }

    #[test]
    fn an_error_that_no_setting_explains_stays_as_it_is() {
        let text = said("s3://b/lake", generic("<Code>SlowDown</Code>"));
        assert_eq!(text, "write: Generic S3 error: <Code>SlowDown</Code>: <Code>SlowDown</Code>");
        let gone = StoreError::NotFound { path: "x".to_owned(), source: "gone".into() };
        assert!(in_words("s3://b/lake", gone.into()).downcast_ref::<StoreError>().is_some());
    }
}
