//! Query parameters: each is known, given once, and right, or the answer names it.

use super::error::ApiError;
use actix_web::HttpRequest;
use actix_web::web::Query;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

/// The parameters of one request.
#[derive(Debug)]
pub(super) struct Parameters(BTreeMap<String, String>);

impl Parameters {
    /// Reads the query string. Only `known` parameters may be there.
    pub(super) fn of(request: &HttpRequest, known: &[&str]) -> Result<Self, ApiError> {
        Self::parse(request.query_string(), known)
    }

    fn parse(query: &str, known: &[&str]) -> Result<Self, ApiError> {
        let pairs = Query::<Vec<(String, String)>>::from_query(query)
            .map_err(|error| ApiError::parameter("query", format!("cannot be read: {error}")))?;
        let mut parameters = BTreeMap::new();
        for (name, value) in pairs.into_inner() {
            if !known.contains(&name.as_str()) {
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                return Err(ApiError::parameter(&name, format!("is no parameter of this path ({known})")));
            }
            if parameters.insert(name.clone(), value).is_some() {
                return Err(ApiError::parameter(&name, "is given twice"));
            }
        }
        Ok(Self(parameters))
    }

    /// A parameter's text.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A parameter as what it should be.
    pub(super) fn get<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>, ApiError> {
        self.text(name).map(|text| text.parse().map_err(|reason| ApiError::parameter(name, reason))).transpose()
    }

    /// A truth value; one without a value is true.
    pub(super) fn truth(&self, name: &str) -> Result<bool, ApiError> {
        match self.text(name) {
            None | Some("false" | "0") => Ok(false),
            Some("" | "true" | "1") => Ok(true),
            Some(other) => Err(ApiError::parameter(name, format!("{other:?} is neither true nor false"))),
        }
    }

    /// How many rows are wanted.
    pub(super) fn limit(&self, default: usize, most: usize) -> Result<usize, ApiError> {
        match self.text("limit").map(str::parse) {
            None => Ok(default),
            Some(Ok(limit)) if (1..=most).contains(&limit) => Ok(limit),
            Some(_) => Err(ApiError::parameter("limit", format!("is not a number from 1 to {most}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onhand_common::StoreId;

    #[test]
    fn what_is_wrong_is_named() {
        let refusal = |query: &str| {
            let read = |p: Parameters| {
                p.get::<StoreId>("store_id")?;
                p.truth("below")?;
                p.limit(1, 10)
            };
            Parameters::parse(query, &["store_id", "below", "limit"]).and_then(read).unwrap_err().to_string()
        };
        assert_eq!(refusal("store_id=x"), "store_id: \"x\" is not an integer");
        assert!(refusal("store_id=-1").starts_with("store_id: -1 is not an id"));
        assert!(refusal("store_id=1&store_id=2").starts_with("store_id: is given twice"));
        assert!(refusal("store=1").starts_with("store: is no parameter of this path (store_id, below, limit)"));
        assert!(refusal("below=perhaps").starts_with("below: "));
        for limit in ["0", "11", "-1", "x", ""] {
            assert_eq!(refusal(&format!("limit={limit}")), "limit: is not a number from 1 to 10");
        }
    }

    #[test]
    fn what_is_right_is_read() {
        let p = Parameters::parse("store_id=7&below&name=a%20b", &["store_id", "below", "name"]).unwrap();
        assert_eq!(p.get::<StoreId>("store_id").unwrap().unwrap().get(), 7);
        assert!(p.truth("below").unwrap() && !p.truth("other").unwrap());
        assert_eq!((p.text("name"), p.limit(5, 10).unwrap()), (Some("a b"), 5));
    }
}
