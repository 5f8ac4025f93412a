//! What the handlers share: errors in two shapes, bodies within limits, bearer keys.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::{Json, http::Method};
use futures::StreamExt;
use neurino_core::IdempotencyKey;
use neurino_protocol::{ErrorBody, ErrorCode};
use serde::de::DeserializeOwned;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::limits::TooSoon;
use super::words::plain;
use crate::coordinator::Coordinator;
use crate::depth::{DEPTH_MAX, is_too_deep};
use crate::keys::{Caller, Scope};
use crate::router::JobClass;
use crate::terms::{JobTerms, Prepaid};
use crate::vouchers::VoucherRefusal;

/// The header that names a request, for whoever asks about it: the job's id once there is one.
pub(crate) const REQUEST_ID: &str = "x-request-id";

/// The header that pays without a key.
pub(super) const VOUCHER: &str = "neurino-voucher";
/// The header of an answer that says which promise would do.
const VOUCHER_REQUIRED: &str = "neurino-voucher-required";

/// When a full queue or a missing node is worth another try.
const RETRY_AFTER_SECS: &str = "5";

/// How much of an oversize body is read and thrown away, in multiples of the limit, so that its
/// sender gets to read the answer instead of a broken connection.
const DRAIN: usize = 8;

/// How an error looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// [`ErrorBody`] as it is.
    Plain,
    /// `{"error": {"message", "type", "code", "param"}}`.
    OpenAi,
}

/// An error on its way out.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    body: ErrorBody,
    shape: Shape,
    param: Option<Box<str>>,
    /// What OpenAI calls it, where that is more than our own name says.
    named: Option<&'static str>,
    /// When another try is worth it, in seconds, where that is known.
    retry_after_s: Option<u64>,
    /// The smallest promise of a voucher that would do.
    voucher_required: Option<Box<HeaderValue>>,
}

impl ApiError {
    pub(crate) fn plain(body: ErrorBody) -> Self {
        Self {
            status: status_of(body.code),
            body,
            shape: Shape::Plain,
            param: None,
            named: None,
            retry_after_s: None,
            voucher_required: None,
        }
    }

    /// In OpenAI's shape. Where a part further in names the field at fault (`` `field` must be .. ``),
    /// the error says so as if the field had been refused here.
    pub(crate) fn openai(body: ErrorBody) -> Self {
        let param = match body.code {
            ErrorCode::UnknownModel => Some("model"),
            ErrorCode::ContextTooLong => Some("messages"),
            ErrorCode::InvalidRequest | ErrorCode::TooLarge => field_of(&body.message),
            _ => None,
        };
        let is_field = body.code == ErrorCode::InvalidRequest && param.is_some();
        let (param, named) = (param.map(Box::from), is_field.then_some("invalid_value"));
        Self { shape: Shape::OpenAi, param, named, ..Self::plain(body) }
    }

    /// Why a voucher was not taken: 402 where it does not pay.
    pub(crate) fn voucher(refusal: VoucherRefusal) -> Self {
        match refusal {
            VoucherRefusal::Wrong(body) => Self::openai(body),
            VoucherRefusal::Unpaid(unpaid) => Self {
                status: StatusCode::PAYMENT_REQUIRED,
                voucher_required: unpaid
                    .required
                    .and_then(|units| HeaderValue::from_str(&units).ok().map(Box::new)),
                ..Self::openai(unpaid.body).named(unpaid.name)
            },
        }
    }

    /// Why a job was not accepted. Credits that another request of the same payer took meanwhile are,
    /// for a voucher, a matter of promising more.
    pub(crate) fn submission(body: ErrorBody, caller: &Caller) -> Self {
        let meanwhile = caller.voucher.is_some() && body.code == ErrorCode::InsufficientCredits;
        if meanwhile {
            let hint = "another request took what was promised; sign a larger cumulative amount";
            let status = StatusCode::PAYMENT_REQUIRED;
            let error = Self::openai(body.with_hint(hint)).named("voucher_too_low");
            return Self { status, ..error };
        }
        Self::openai(body)
    }

    /// Names the field at fault.
    pub(crate) fn param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into().into_boxed_str());
        self
    }

    /// Gives the error OpenAI's name for it.
    pub(crate) fn named(mut self, name: &'static str) -> Self {
        self.named = Some(name);
        self
    }

    /// The error as OpenAI's clients read it.
    pub(crate) fn openai_json(&self) -> serde_json::Value {
        let mut message = self.body.message.clone();
        if let Some(hint) = &self.body.hint {
            message = format!("{message}; {hint}");
        }
        let (kind, code) = match self.body.code {
            _ if self.status == StatusCode::PAYMENT_REQUIRED => {
                ("payment_required", json!(self.named))
            }
            _ if self.named.is_some() => ("invalid_request_error", json!(self.named)),
            ErrorCode::UnknownModel => ("invalid_request_error", "model_not_found".into()),
            ErrorCode::ContextTooLong => {
                ("invalid_request_error", "context_length_exceeded".into())
            }
            ErrorCode::Unauthorized => ("invalid_request_error", "invalid_api_key".into()),
            ErrorCode::Declined => ("invalid_request_error", "content_policy_violation".into()),
            ErrorCode::Overloaded => ("rate_limit_error", json!(ErrorCode::Overloaded)),
            ErrorCode::RateLimited => ("rate_limit_error", "rate_limit_exceeded".into()),
            ErrorCode::InsufficientCredits => ("insufficient_quota", "insufficient_quota".into()),
            ErrorCode::Forbidden => ("invalid_request_error", "insufficient_permissions".into()),
            other if self.status.is_client_error() => ("invalid_request_error", json!(other)),
            other => ("server_error", json!(other)),
        };
        json!({ "error": { "message": message, "type": kind, "code": code, "param": self.param } })
    }
}

/// The field that a message begins with.
fn field_of(message: &str) -> Option<&str> {
    let (field, _) = message.strip_prefix('`')?.split_once('`')?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.[]$-".contains(c);
    (!field.is_empty() && field.chars().all(plain)).then_some(field)
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = match self.shape {
            Shape::Plain => (self.status, Json(&self.body)).into_response(),
            Shape::OpenAi => (self.status, Json(self.openai_json())).into_response(),
        };
        let headers = response.headers_mut();
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(required) = self.voucher_required {
            headers.insert(VOUCHER_REQUIRED, *required);
        }
        let named = self.retry_after_s.map(HeaderValue::from);
        let usual = || HeaderValue::from_static(RETRY_AFTER_SECS);
        if let Some(after) = named {
            headers.insert(RETRY_AFTER, after);
        } else if self.body.code.passes() {
            headers.insert(RETRY_AFTER, usual());
        }
        response
    }
}

fn status_of(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::InvalidRequest
        | ErrorCode::ContextTooLong
        | ErrorCode::Declined
        | ErrorCode::UnsupportedVersion => StatusCode::BAD_REQUEST,
        ErrorCode::Unauthorized | ErrorCode::BadSignature => StatusCode::UNAUTHORIZED,
        ErrorCode::NotFound | ErrorCode::UnknownModel => StatusCode::NOT_FOUND,
        ErrorCode::PayloadShredded => StatusCode::GONE,
        ErrorCode::StaleLease | ErrorCode::Cancelled => StatusCode::CONFLICT,
        ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::Overloaded | ErrorCode::RateLimited | ErrorCode::InsufficientCredits => {
            StatusCode::TOO_MANY_REQUESTS
        }
        ErrorCode::Forbidden => StatusCode::FORBIDDEN,
        ErrorCode::ModelNotReady | ErrorCode::NoNodeAvailable | ErrorCode::Unreachable => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        ErrorCode::DeadlinePassed => StatusCode::GATEWAY_TIMEOUT,
        ErrorCode::EngineFailed | ErrorCode::ModelUnreadable => StatusCode::BAD_GATEWAY,
        ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// An error in the shape that clients of a path expect: nodes have a protocol of their own.
pub(crate) fn for_path(uri: &Uri, body: ErrorBody) -> ApiError {
    let path = uri.path();
    if path == "/v1/node" || path.starts_with("/v1/node/") {
        ApiError::plain(body)
    } else {
        ApiError::openai(body)
    }
}

/// Nothing lives at that path.
pub(crate) async fn no_such_path(uri: Uri) -> ApiError {
    let body = ErrorBody::new(ErrorCode::NotFound, "there is nothing at this path").with_hint(
        "this server answers /v1/chat/completions, /v1/images/generations, /v1/models, \
             /v1/jobs, /v1/network, /healthz, and /openapi.json tells it all",
    );
    for_path(&uri, body)
}

/// Names a request in its answer, unless it has a name.
pub(crate) async fn with_request_id(mut response: Response) -> Response {
    let headers = response.headers_mut();
    if !headers.contains_key(REQUEST_ID)
        && let Ok(id) = HeaderValue::from_str(&uuid::Uuid::now_v7().to_string())
    {
        headers.insert(REQUEST_ID, id);
    }
    response
}

/// The path exists, the method does not.
pub(crate) async fn no_such_method(method: Method, uri: Uri) -> ApiError {
    let body = ErrorBody::new(
        ErrorCode::InvalidRequest,
        format!("this path does not answer {method} requests"),
    );
    ApiError { status: StatusCode::METHOD_NOT_ALLOWED, ..for_path(&uri, body) }
}

/// The token of an `Authorization: Bearer` header.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Whoever sends a request; it may be for anything that wants a key.
pub(crate) async fn caller(
    coordinator: &Coordinator,
    headers: &HeaderMap,
) -> Result<Caller, ApiError> {
    if let Some(voucher) = headers.get(VOUCHER) {
        if headers.contains_key(AUTHORIZATION) || headers.get_all(VOUCHER).iter().count() > 1 {
            let message = "the request carries both a voucher and an API key, or two vouchers";
            let body = ErrorBody::new(ErrorCode::InvalidRequest, message)
                .with_hint("send one of them: it says who pays");
            return Err(ApiError::openai(body));
        }
        let header = voucher.to_str().unwrap_or("");
        let caller = coordinator.voucher_caller(header).await.map_err(ApiError::voucher)?;
        // Whatever it asks for: anybody can promise a little.
        let counted = coordinator.rates.request(&caller);
        return counted.map_err(|error| too_soon(coordinator, error)).map(|()| caller);
    }
    let hint =
        "send the header `Authorization: Bearer nrn-…`; whoever runs this network makes keys";
    let refused = |message: &str| {
        ApiError::openai(ErrorBody::new(ErrorCode::Unauthorized, message).with_hint(hint))
    };
    let token = bearer(headers).ok_or_else(|| refused("the request carries no API key"))?;
    let caller = coordinator.caller(token).await;
    caller.ok_or_else(|| refused("this network does not know the API key"))
}

/// Whoever asks for work: the key must be good for such work and not ask too often.
pub(crate) async fn working_caller(
    coordinator: &Coordinator,
    headers: &HeaderMap,
    scope: Scope,
) -> Result<Caller, ApiError> {
    let caller = caller(coordinator, headers).await?;
    if !caller.key.terms.scopes.contains(&scope) {
        let message = format!("this API key is not for `{}`", scope.as_str());
        let error = ErrorBody::new(ErrorCode::Forbidden, message)
            .with_hint("whoever runs this network says what a key is for");
        return Err(ApiError::openai(error));
    }
    if caller.voucher.is_none() && !crate::fabric::is_put_again() {
        let counted = coordinator.rates.request(&caller);
        counted.map_err(|error| too_soon(coordinator, error))?;
    }
    Ok(caller)
}

/// Counts the work of a request against its key.
pub(crate) fn count_work(
    coordinator: &Coordinator,
    caller: &Caller,
    units: u64,
) -> Result<(), ApiError> {
    if crate::fabric::is_put_again() {
        return Ok(());
    }
    coordinator.rates.work(caller, units).map_err(|error| too_soon(coordinator, error))
}

fn too_soon(coordinator: &Coordinator, (error, wait): TooSoon) -> ApiError {
    coordinator.metrics.limited();
    let retry_after_s = wait.map(|wait| wait.as_millis().div_ceil(1000));
    let retry_after_s = retry_after_s.map(|s| u64::try_from(s).unwrap_or(u64::MAX));
    ApiError { retry_after_s, ..ApiError::openai(error) }
}

/// The terms that a request asks for: `service_tier` (`flex` is a batch job) and the header
/// `Neurino-Attempts` (1 discards the job at its first failure).
pub(crate) fn terms_of(
    caller: &Caller,
    headers: &HeaderMap,
    tier: Option<&str>,
    class: JobClass,
) -> Result<JobTerms, ApiError> {
    let class = match tier {
        None | Some("auto" | "default") => class,
        Some("flex") => JobClass::Batch,
        Some("priority") => JobClass::Interactive,
        Some(_) => {
            let message = "`service_tier` can be `auto`, `default`, `flex` or `priority`";
            return Err(ApiError::openai(ErrorBody::new(ErrorCode::InvalidRequest, message)));
        }
    };
    let attempts = headers.get("neurino-attempts").map(|value| {
        let attempts = value.to_str().ok().and_then(|text| text.parse::<u32>().ok());
        attempts.filter(|attempts| (1..=10).contains(attempts)).ok_or_else(|| {
            let message = "the header `Neurino-Attempts` takes a number from 1 to 10";
            ApiError::openai(ErrorBody::new(ErrorCode::InvalidRequest, message))
        })
    });
    let terms = &caller.key.terms;
    Ok(JobTerms {
        class,
        attempts_max: attempts.transpose()?,
        frontend: terms.frontend.clone(),
        no_node_wait_ms: None,
        attended: false,
        prepaid: terms
            .prepaid
            .then(|| Prepaid { key: caller.key.id.clone(), budget: terms.budget }),
    })
}

/// The key under which a repeated request is the same one.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, ApiError> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let key = value.to_str().ok().and_then(|text| IdempotencyKey::new(text).ok());
    key.map(Some).ok_or_else(|| {
        let message = "the header `Idempotency-Key` takes 1 to 200 visible ASCII characters";
        ApiError::openai(ErrorBody::new(ErrorCode::InvalidRequest, message))
    })
}

/// A number for what a request leaves to chance. A repeated request gets the same one again.
pub(crate) fn chance(caller: &Caller, key: Option<&IdempotencyKey>) -> u64 {
    let Some(key) = key else { return rand::random() };
    let digest = Sha256::digest(format!("{}\n{key}", caller.payer));
    let (first, _) = digest.split_at(size_of::<u64>());
    first.try_into().map_or(0, u64::from_be_bytes)
}

/// Reads a body of JSON within the limits of size and time. `shape` makes the errors.
pub(crate) async fn read_json<T: DeserializeOwned>(
    coordinator: &Coordinator,
    request: Request,
    shape: fn(ErrorBody) -> ApiError,
) -> Result<T, ApiError> {
    let named =
        request.headers().get(CONTENT_TYPE).map(|kind| is_json(kind.to_str().unwrap_or("")));
    let bytes = read_body(coordinator, request).await.map_err(shape)?;
    if named == Some(false) {
        let message = "the header `Content-Type` says that the body is not JSON";
        let body = ErrorBody::new(ErrorCode::InvalidRequest, message)
            .with_hint("send JSON with `Content-Type: application/json`");
        let error = shape(body).named("unsupported_content_type");
        return Err(ApiError { status: StatusCode::UNSUPPORTED_MEDIA_TYPE, ..error });
    }
    parse_json(&bytes).map_err(shape)
}

/// Whether a media type is JSON; its parameters do not matter.
fn is_json(kind: &str) -> bool {
    let essence = kind.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// Parses JSON; the error says whether it is JSON at all.
pub(crate) fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ErrorBody> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(ErrorBody::new(ErrorCode::InvalidRequest, "the body is empty")
            .with_hint("send a JSON object"));
    }
    if is_too_deep(bytes) {
        let message = format!("the body nests deeper than {DEPTH_MAX} levels");
        return Err(
            ErrorBody::new(ErrorCode::InvalidRequest, message).with_hint("send flatter JSON")
        );
    }
    serde_json::from_slice(bytes).map_err(|error| {
        let words = plain(&error);
        let message = if error.is_data() {
            format!("the body is JSON, but not what this endpoint takes: {words}")
        } else {
            format!("the body is not valid JSON: {words}")
        };
        ErrorBody::new(ErrorCode::InvalidRequest, message)
    })
}

/// Reads a whole body within the limits of size and time.
pub(crate) async fn read_body(
    coordinator: &Coordinator,
    request: Request,
) -> Result<Vec<u8>, ErrorBody> {
    let limits = &coordinator.config.limits;
    let wait = Duration::from_millis(limits.request_read_ms);
    read_within(request, limits.body_bytes_max, wait).await
}

/// The length that a request says its body has, in bytes.
pub(crate) fn declared_bytes(request: &Request) -> Option<usize> {
    request.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Reads a whole body of so many bytes within a time.
pub(crate) async fn read_within(
    request: Request,
    bytes_max: usize,
    wait: Duration,
) -> Result<Vec<u8>, ErrorBody> {
    read_growing(request, bytes_max, wait, |_| Ok(())).await
}

/// The same, and asks before it keeps more how many bytes it may have.
pub(crate) async fn read_growing(
    request: Request,
    bytes_max: usize,
    wait: Duration,
    may_have: impl FnMut(usize) -> Result<(), ErrorBody>,
) -> Result<Vec<u8>, ErrorBody> {
    let declared = declared_bytes(&request);
    if declared.is_some_and(|declared| declared > bytes_max.saturating_mul(DRAIN)) {
        return Err(too_large(bytes_max));
    }
    match tokio::time::timeout(wait, collect(request.into_body(), bytes_max, may_have)).await {
        Ok(body) => body,
        Err(_) => Err(ErrorBody::new(
            ErrorCode::InvalidRequest,
            format!("the body did not arrive within {} seconds", wait.as_secs()),
        )),
    }
}

async fn collect(
    body: Body,
    bytes_max: usize,
    mut may_have: impl FnMut(usize) -> Result<(), ErrorBody>,
) -> Result<Vec<u8>, ErrorBody> {
    let (mut bytes, mut drained) = (Vec::new(), 0);
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| {
            ErrorBody::new(ErrorCode::InvalidRequest, "the body broke off before its end")
        })?;
        if drained > 0 || bytes.len() + chunk.len() > bytes_max {
            bytes = Vec::new();
            drained += chunk.len();
            if drained > bytes_max.saturating_mul(DRAIN) {
                break;
            }
        } else {
            may_have(bytes.len() + chunk.len())?;
            bytes.extend_from_slice(&chunk);
        }
    }
    if drained > 0 { Err(too_large(bytes_max)) } else { Ok(bytes) }
}

pub(crate) fn too_large(bytes_max: usize) -> ErrorBody {
    let message = format!("the body is larger than {bytes_max} bytes");
    ErrorBody::new(ErrorCode::TooLarge, message).with_hint("shorten or split the request")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_token_is_found_whatever_the_case_of_its_scheme() {
        let check = |value: &str, token: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, HeaderValue::from_str(value).expect("ascii"));
            assert_eq!(bearer(&headers), token, "{value}");
        };
        check("Bearer nrn-1", Some("nrn-1"));
        check("bearer  nrn-1 ", Some("nrn-1"));
        check("Basic nrn-1", None);
        check("nrn-1", None);
    }

    #[test]
    fn a_field_named_further_in_is_the_param() {
        let check = |code: ErrorCode, message: &str, param: Option<&str>, named: &str| {
            let json = ApiError::openai(ErrorBody::new(code, message)).openai_json();
            assert_eq!(json["error"]["param"].as_str(), param, "{message}");
            assert_eq!(json["error"]["code"], named, "{message}");
        };
        let invalid = ErrorCode::InvalidRequest;
        check(invalid, "`stop` takes at most 4 texts", Some("stop"), "invalid_value");
        check(invalid, "`messages[0].role` is odd", Some("messages[0].role"), "invalid_value");
        check(invalid, "`not a field` is", None, "invalid_request");
        check(invalid, "the body is empty", None, "invalid_request");
        let large = ErrorCode::TooLarge;
        check(large, "`messages` and `tools` hold 9 bytes", Some("messages"), "too_large");
        let long = ErrorCode::ContextTooLong;
        check(long, "too long", Some("messages"), "context_length_exceeded");
        check(ErrorCode::EngineFailed, "`stop` broke", None, "engine_failed");
    }
}
