//! What handlers take and give: like axum's own, but each refusal is a problem document that names the place.

use alicia_contract::object::ObjectsOnly;
use alicia_contract::problem::InputFault;
use alicia_identity::Identity;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ApiError;

/// The largest body in bytes, unless the host's limit is smaller.
pub const BODY_BYTES_MAX: usize = 1 << 20;

/// A JSON body.
#[derive(Debug, Clone, Copy)]
pub struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let content_type = request.headers().get(header::CONTENT_TYPE);
        if !content_type.is_some_and(|value| is_json(value.as_bytes())) {
            return Err(ApiError::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "host.unsupported_media_type",
                "Not JSON",
                "send the body as JSON with `Content-Type: application/json`",
            ));
        }
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|rejection| unread(&rejection))?;
        if bytes.len() > BODY_BYTES_MAX {
            return Err(too_large());
        }
        let mut json = serde_json::Deserializer::from_slice(&bytes);
        let value = serde_path_to_error::deserialize(ObjectsOnly(&mut json)).map_err(|error| {
            let pointer = pointer(error.path());
            ApiError::input(
                "the body is not what the operation takes",
                vec![InputFault {
                    pointer,
                    message: error.inner().to_string(),
                }],
            )
        })?;
        json.end().map_err(|error| {
            let fault = InputFault {
                pointer: String::new(),
                message: error.to_string(),
            };
            ApiError::input("the body goes on after its end", vec![fault])
        })?;
        Ok(Self(value))
    }
}

fn is_json(content_type: &[u8]) -> bool {
    let end = content_type
        .iter()
        .position(|byte| *byte == b';')
        .unwrap_or(content_type.len());
    content_type[..end]
        .trim_ascii()
        .eq_ignore_ascii_case(b"application/json")
}

fn unread(rejection: &BytesRejection) -> ApiError {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return too_large();
    }
    ApiError::new(
        StatusCode::BAD_REQUEST,
        "host.body_broken_off",
        "Body broken off",
        "the body ended before its announced end, is badly chunked, or came too slowly",
    )
}

fn too_large() -> ApiError {
    ApiError::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "host.body_too_large",
        "Body too large",
        format!("the body has more than {BODY_BYTES_MAX} bytes"),
    )
}

/// `a.b[0]` as the JSON pointer `/a/b/0`.
fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    path.iter()
        .fold(String::new(), |pointer, segment| match segment {
            Segment::Seq { index } => format!("{pointer}/{index}"),
            Segment::Map { key } => {
                format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"))
            }
            Segment::Enum { .. } | Segment::Unknown => pointer,
        })
}

/// The query parameters.
#[derive(Debug, Clone, Copy)]
pub struct Params<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let query = parts.uri.query().unwrap_or_default();
        let pairs = serde_urlencoded::Deserializer::new(parse_pairs(query));
        serde_path_to_error::deserialize(pairs)
            .map(Self)
            .map_err(|error| {
                let pointer = error.path().to_string();
                let fault = InputFault {
                    pointer,
                    message: error.inner().to_string(),
                };
                ApiError::input(
                    "a query parameter is not what the operation takes",
                    vec![fault],
                )
            })
    }
}

fn parse_pairs(query: &str) -> form_urlencoded::Parse<'_> {
    form_urlencoded::parse(query.as_bytes())
}

/// The varying parts of the path, in order.
#[derive(Debug, Clone, Copy)]
pub struct PathParams<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for PathParams<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(value)) => Ok(Self(value)),
            Err(rejection) => Err(ApiError::new(
                StatusCode::NOT_FOUND,
                "host.no_such_path",
                "Not found",
                format!(
                    "a part of the path cannot be the name of anything: {}",
                    rejection.body_text()
                ),
            )),
        }
    }
}

/// Who calls. Present on every operation that is not open.
#[derive(Debug, Clone)]
pub struct Caller(pub Identity);

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts
            .extensions
            .get()
            .cloned()
            .map(Self)
            .ok_or_else(ApiError::unauthenticated)
    }
}

/// An answer in JSON with status 200.
#[derive(Debug, Clone, Copy)]
pub struct Answer<T>(pub T);

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        Json(self.0).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Access, Api, Operation};
    use alicia_contract::platform::Scope;
    use axum::body::Body as HttpBody;
    use schemars::JsonSchema;
    use serde::Deserialize;
    use serde_json::{Value, json};
    use tower::ServiceExt;

    #[derive(Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Light {
        level: Vec<u8>,
    }

    #[derive(Deserialize, JsonSchema)]
    struct Room {
        size: Option<u8>,
    }

    async fn light(Body(light): Body<Light>) -> Answer<usize> {
        Answer(light.level.len())
    }

    async fn room(Params(room): Params<Room>) -> Answer<Option<u8>> {
        Answer(room.size)
    }

    async fn call(request: axum::http::request::Builder, body: &str) -> (StatusCode, Value) {
        let api = Api::new()
            .with(
                Operation::post("/light", "x")
                    .access(Access::Open)
                    .body::<Light>(),
                light,
            )
            .with(Operation::get("/room", "x").params::<Room>(), room);
        let request = request
            .body(HttpBody::from(body.to_owned()))
            .expect("a request");
        let response = api
            .into_router(())
            .oneshot(request)
            .await
            .expect("an answer");
        let status = response.status();
        let bytes = axum::body::to_bytes(response.into_body(), 65_536)
            .await
            .expect("a body");
        (status, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    fn post() -> axum::http::request::Builder {
        Request::post("/light").header("content-type", "application/json; charset=utf-8")
    }

    #[tokio::test]
    async fn a_body_is_taken_or_refused_with_the_place() {
        assert_eq!(
            call(post(), r#"{"level":[1,2]}"#).await,
            (StatusCode::OK, json!(2))
        );
        let check = async |body: &str, pointer: &str| {
            let (status, problem) = call(post(), body).await;
            assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
            assert_eq!(
                problem["faults"][0]["pointer"], pointer,
                "{body}: {problem}"
            );
        };
        check(r#"{"level":[1,300]}"#, "/level/1").await;
        check(r#"{"level":[],"x":1}"#, "/x").await;
        check("{}", "").await;
        check("[[1,2]]", "").await;
        check("", "").await;
        check(r#"{"level":[]} x"#, "").await;
        let (status, _) = call(Request::post("/light"), "{}").await;
        assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }

    #[tokio::test]
    async fn an_operation_is_closed_unless_it_is_opened() {
        let get = |query: &str| Request::get(format!("/room{query}"));
        assert_eq!(call(get(""), "").await.0, StatusCode::UNAUTHORIZED);
        let key = |scope| Identity::Key {
            name: "k".into(),
            scope,
        };
        let service = Identity::Service {
            service: alicia_contract::ServiceName::new("api").expect("id"),
            instance: alicia_contract::InstanceId::from_parts(0, 0),
            epoch: alicia_contract::Epoch(1),
        };
        assert_eq!(
            call(get("").extension(service), "").await.0,
            StatusCode::FORBIDDEN
        );
        let reader = || get("?size=7").extension(key(Scope::Read));
        assert_eq!(call(reader(), "").await, (StatusCode::OK, json!(7)));
        let (status, problem) = call(get("?size=x").extension(key(Scope::Admin)), "").await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(problem["faults"][0]["pointer"], "size");
    }
}
