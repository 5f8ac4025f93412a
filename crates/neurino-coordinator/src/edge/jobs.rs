//! Durable jobs: accepted with 202 once they are on disk, asked for by id later.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use neurino_core::{JobId, JobKind, JobSpec};
use neurino_protocol::{ErrorBody, ErrorCode};
use serde::Deserialize as _;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Edge;
use super::chat::{Fields, Refusal, check_stops};
use super::gateway::refused;
use super::http::{
    ApiError, caller, count_work, idempotency_key, read_json, terms_of, working_caller,
};
use super::words::plain;
use crate::keys::Scope;
use crate::router::JobClass;
use crate::terms::cost_units;

/// `POST /v1/jobs`: the body is a job; with the header `Idempotency-Key` a repeat within 24 hours
/// gets the first job's id. It is a batch job unless `Neurino-Service-Tier: priority` says that
/// somebody waits.
pub(crate) async fn submit(
    State(coordinator): State<Edge>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, ApiError> {
    let coordinator = &coordinator;
    let caller = working_caller(coordinator, &headers, Scope::Jobs).await?;
    let key = idempotency_key(&headers)?;
    let tier = headers.get("neurino-service-tier").and_then(|tier| tier.to_str().ok());
    let terms = terms_of(&caller, &headers, tier, JobClass::Batch)?;
    let body: Value = read_json(coordinator, request, ApiError::openai).await?;
    let spec = spec_of(body).map_err(refused)?;
    if let JobSpec::Text(job) = &spec {
        check_stops(&job.stop).map_err(refused)?;
    }
    spec.validate().map_err(|error| refused(Refusal::new(error.field, error.rule)))?;
    count_work(coordinator, &caller, cost_units(&spec))?;
    let paid = coordinator.pay_ahead(&caller, key.as_ref(), [spec.clone()]).await;
    paid.map_err(ApiError::voucher)?;
    let submitted = coordinator.submit_on(caller.payer.clone(), key, spec, terms).await;
    let id = submitted.map_err(|error| ApiError::submission(error, &caller))?;
    let mut response = (StatusCode::ACCEPTED, Json(json!({ "id": id }))).into_response();
    if let Ok(location) = HeaderValue::from_str(&format!("/v1/jobs/{id}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// The job of a body. Its kind is read first: a structure that is read whole can say where it is wrong.
fn spec_of(body: Value) -> Result<JobSpec, Refusal> {
    let Value::Object(mut fields) = body else {
        let message = "the body must be a JSON object".into();
        return Err(Refusal { param: None, message, code: "invalid_type" });
    };
    let kind = fields.remove("kind").ok_or_else(|| missing("kind"))?;
    match JobKind::deserialize(kind).map_err(|error| unreadable("kind", &error))? {
        JobKind::Text => job_of(fields).map(JobSpec::Text),
        JobKind::Image => job_of(fields).map(JobSpec::Image),
    }
}

/// A job of a known kind; the field at fault is named by its path.
fn job_of<T: DeserializeOwned>(fields: Fields) -> Result<T, Refusal> {
    serde_path_to_error::deserialize(Value::Object(fields)).map_err(|error| {
        let (path, error) = (error.path().to_string(), error.into_inner());
        // The reader stops at what has the gap, not in it.
        let text = error.to_string();
        let gap = text.strip_prefix("missing field `").and_then(|rest| rest.split_once('`'));
        match gap {
            Some((field, _)) if path == "." => missing(field),
            Some((field, _)) => missing(&format!("{path}.{field}")),
            None => unreadable(&path, &error),
        }
    })
}

fn missing(path: &str) -> Refusal {
    Refusal { code: "missing_required_parameter", ..Refusal::new(path, "is missing") }
}

fn unreadable(path: &str, error: &serde_json::Error) -> Refusal {
    let text = error.to_string();
    let is_type = text.starts_with("invalid type") || text.starts_with("invalid length");
    let code = if is_type { "invalid_type" } else { "invalid_value" };
    Refusal { code, ..Refusal::new(path, format!("cannot be used: {}", plain(error))) }
}

/// `GET /v1/jobs/{id}`: where a job stands; its output, receipt or error once it has ended. After
/// their keeping time request and output are shredded, and it says so.
pub(crate) async fn show(
    State(coordinator): State<Edge>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    let coordinator = &coordinator;
    let caller = caller(coordinator, &headers).await?;
    let missing = || ErrorBody::new(ErrorCode::NotFound, "there is no such job");
    let id = id.ok().and_then(|Path(id)| id.parse::<JobId>().ok());
    let id = id.ok_or_else(|| ApiError::openai(missing()))?;
    let job = coordinator.stored_job(id).await.map_err(ApiError::openai)?;
    if job.payer != caller.payer {
        // Somebody else's job looks like none at all.
        return Err(ApiError::openai(missing()));
    }
    Ok(Json(json!({
        "id": id,
        "state": job.state,
        "created_at_ms": job.created_at_ms,
        "finished_at_ms": job.finished_at_ms,
        "output": job.output,
        "receipt": job.receipt,
        "error": job.error,
        "payload_shredded": job.shredded,
    })))
}
