//! Durable jobs: accepted with 202 once they are on disk, asked for by id later.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use neurino_core::{JobId, JobSpec};
use neurino_protocol::{ErrorBody, ErrorCode};
use serde_json::{Value, json};

use super::Edge;
use super::chat::{Refusal, check_stops};
use super::gateway::refused;
use super::http::{
    ApiError, caller, count_work, idempotency_key, read_json, terms_of, working_caller,
};
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
    let spec: JobSpec = read_json(coordinator, request, ApiError::openai).await?;
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
