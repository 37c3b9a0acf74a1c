//! Reading requests and writing answers: JSON bodies, entity tags, pages.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use meta::Expect;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::problem::Problem;

/// Entries of a page, if the request does not say, and at most.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1000;

/// Which page of a list is wanted.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Paging {
    /// The name after which it begins.
    #[serde(default)]
    pub(crate) after: String,
    limit: Option<usize>,
}

impl Paging {
    pub(crate) fn limit(&self) -> usize {
        self.limit.unwrap_or(PAGE).clamp(1, PAGE_MAX)
    }
}

/// A query string. What is wrong with it is told as a problem.
pub(crate) struct Asked<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let asked = Query::<T>::from_request_parts(parts, state).await;
        asked
            .map(|Query(asked)| Asked(asked))
            .map_err(|refused| Problem::new(refused.status(), refused.body_text()))
    }
}

/// A JSON body, of at most [`BODY_BYTES_MAX`](super::BODY_BYTES_MAX).
pub(crate) struct Given<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Given<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        // A page in somebody's browser cannot send this type to another host without asking first, and is not answered then.
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        if kind.is_none_or(|kind| kind.split(';').next().map(str::trim) != Some("application/json")) {
            let detail = "Content-Type has to be application/json";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
        }
        read(&bytes(request, state).await?).map(Given)
    }
}

/// A body that is a file, of at most what its route takes.
///
/// It is taken whatever its type: curl's `--data-binary` says that it is a form, and so could a page in somebody's browser,
/// without asking first. That is kept out by `Origin`, which browsers send with whatever a page posts, and nobody else sends.
pub(crate) struct GivenFile(pub(crate) Bytes);

impl<S: Send + Sync> FromRequest<S> for GivenFile {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if request.headers().contains_key(header::ORIGIN) {
            return Err(Problem::new(StatusCode::FORBIDDEN, "no file is taken from a page in a browser"));
        }
        bytes(request, state).await.map(GivenFile)
    }
}

async fn bytes<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    let body = Bytes::from_request(request, state).await;
    body.map_err(|refused| Problem::new(refused.status(), refused.body_text()))
}

/// A JSON body. What is wrong with it is told with the name of the field, where there is one.
fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        // Bodies hold secrets, so that no value may be told.
        match field_in(&error.to_string()) {
            Some((rule, field)) => Problem::field(field, rule),
            None => Problem::new(
                StatusCode::BAD_REQUEST,
                format!("the body is not as expected at line {}, column {}", error.line(), error.column()),
            ),
        }
    })
}

/// What is wrong with a field, and which: serde names it between backticks.
pub(crate) fn field_in(text: &str) -> Option<(&'static str, &str)> {
    ["unknown field", "missing field", "duplicate field"].into_iter().find_map(|rule| {
        let named = text.strip_prefix(rule)?.strip_prefix(" `")?;
        Some((rule, named.split_once('`')?.0))
    })
}

/// What `If-Match` and `If-None-Match` ask of the thing at hand.
pub(crate) fn expected(headers: &HeaderMap) -> Result<Option<Expect>, Problem> {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default().trim());
    match (text(header::IF_MATCH), text(header::IF_NONE_MATCH)) {
        (None, None) => Ok(None),
        (None, Some("*")) => Ok(Some(Expect::Absent)),
        (Some("*"), None) => Ok(Some(Expect::Present)),
        (Some(tag), None) => {
            let number = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
            let number = number.and_then(|number| number.parse().ok());
            number.map(|number| Some(Expect::Version(number))).ok_or_else(|| {
                Problem::field("If-Match", "must be * or an ETag of this API, which is a number in quotes")
            })
        }
        (_, Some(_)) => Err(Problem::field("If-None-Match", "must be *, and without If-Match")),
    }
}

/// An answer in JSON with the version of what it shows.
pub(crate) fn answer(status: StatusCode, version: Option<u64>, body: &Value) -> Response {
    let mut response =
        (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response();
    let tag = version.and_then(|version| HeaderValue::from_str(&format!("\"{version}\"")).ok());
    if let Some(tag) = tag {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Wanted {
        #[expect(dead_code, reason = "only read")]
        name: String,
    }

    async fn text(problem: Problem) -> String {
        let body = axum::body::to_bytes(problem.into_response().into_body(), 4096).await.unwrap();
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn what_is_wrong_is_named_and_no_value_is_told() {
        for (body, said) in [
            (r#"{"nane":"x"}"#, r#""field":"nane""#),
            ("{}", r#""field":"name""#),
            (r#"{"name":["hunter2"]}"#, "line 1, column"),
            ("{", "line 1, column"),
        ] {
            let problem = read::<Wanted>(&Bytes::from_static(body.as_bytes())).unwrap_err();
            let text = text(problem).await;
            assert!(text.contains(said) && !text.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn tags_are_versions() {
        let headers = |name: HeaderName, value: &'static str| {
            HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
        };
        assert_eq!(expected(&HeaderMap::new()).unwrap(), None);
        assert_eq!(expected(&headers(header::IF_MATCH, "\"7\"")).unwrap(), Some(Expect::Version(7)));
        assert_eq!(expected(&headers(header::IF_MATCH, "*")).unwrap(), Some(Expect::Present));
        assert_eq!(expected(&headers(header::IF_NONE_MATCH, "*")).unwrap(), Some(Expect::Absent));
        for value in ["7", "\"x\"", "", "W/\"7\""] {
            assert!(expected(&headers(header::IF_MATCH, value)).is_err(), "{value}");
        }
        assert!(expected(&headers(header::IF_NONE_MATCH, "\"7\"")).is_err());
    }
}
