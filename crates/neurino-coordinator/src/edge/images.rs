//! `POST /v1/images/generations`: pictures in OpenAI's form. `request` reads what is asked for,
//! `stream` sends a picture with its previews. Several pictures are several jobs, answered together.

mod request;
mod stream;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::header::HOST;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::sse::{KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use neurino_core::{
    IdempotencyKey, ImageDefaults, ImageJob, ImageOutput, JobId, JobKind, JobOutput, JobSpec,
    ModelId, Png,
};
use neurino_protocol::{ErrorBody, ErrorCode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use self::request::{Form, PictureRequest};
use self::stream::PictureStream;
use super::Edge;
use super::gateway::{CancelGuard, no_node_wait_ms, refused};
use super::http::{
    ApiError, REQUEST_ID, chance, count_work, idempotency_key, read_json, terms_of, working_caller,
};
use super::serve::Leaving;
use crate::coordinator::{Coordinator, accepted_s, now_ms};
use crate::keys::{Caller, Scope};
use crate::router::JobClass;
use crate::state::Makes;
use crate::terms::{JobTerms, cost_units};
use crate::watch::JobWatch;

/// The handler. As with a chat, the status is decided by the first thing that happens to the job.
pub(crate) async fn generations(
    State(coordinator): State<Edge>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, ApiError> {
    let coordinator = &coordinator;
    let caller = working_caller(coordinator, &headers, Scope::Image).await?;
    let key = idempotency_key(&headers)?;
    let leaving = Leaving::of(&request);
    let body: Value = read_json(coordinator, request, ApiError::openai).await?;
    let model = request::model(&body).map_err(refused)?;
    let first = key.as_ref().map(|key| key_of_picture(key, 0));
    let usual = match (usual(coordinator, &model), &first) {
        (Err(refused), Some(first)) => match asked_before(coordinator, &caller, first).await? {
            Some(before) if before.model == model => usual_of(&before),
            _ => return Err(refused),
        },
        (usual, _) => usual?,
    };
    let asked =
        request::translate(&body, model, &usual, chance(&caller, key.as_ref())).map_err(refused)?;
    let tier = body["service_tier"].as_str();
    let mut terms = terms_of(&caller, &headers, tier, JobClass::Interactive)?;
    let specs = asked.jobs.iter().cloned().map(JobSpec::Image);
    count_work(coordinator, &caller, specs.map(|spec| cost_units(&spec)).sum())?;
    // From here on a client that goes away withdraws its jobs.
    terms.no_node_wait_ms = Some(no_node_wait_ms(coordinator, &asked.jobs[0].model, &headers));
    terms.attended = key.is_none() || crate::fabric::is_own_key();
    let specs = asked.jobs.iter().cloned().map(JobSpec::Image);
    let paid = coordinator.pay_ahead(&caller, first.as_ref(), specs).await;
    paid.map_err(ApiError::voucher)?;
    let mut pictures = Vec::with_capacity(asked.jobs.len());
    for (at, job) in asked.jobs.iter().enumerate() {
        let key = key.as_ref().map(|key| key_of_picture(key, at));
        let begun = Picture::begin(coordinator, &caller, key, job.clone(), terms.clone());
        let mut picture = begun.await?;
        picture.watch = picture.watch.until(leaving.clone());
        pictures.push(picture);
    }
    let named = HeaderValue::from_str(&pictures[0].id.to_string());
    let mut response = if asked.stream {
        let stream = PictureStream::open(pictures.remove(0), &asked).await?;
        Sse::new(stream.into_events()).keep_alive(KeepAlive::default()).into_response()
    } else {
        Json(together(coordinator, &headers, pictures, &asked).await?).into_response()
    };
    if let Ok(id) = named {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    Ok(response)
}

/// Several pictures of one request are several jobs, each repeated under a key of its own.
fn key_of_picture(key: &IdempotencyKey, at: usize) -> IdempotencyKey {
    let digest = Sha256::digest(format!("{key}\n{at}"));
    IdempotencyKey::new(hex::encode(digest)).expect("hexadecimal digits are visible ASCII")
}

/// What suits an image model.
fn usual(coordinator: &Coordinator, model: &ModelId) -> Result<ImageDefaults, ApiError> {
    let about_model = |error| ApiError::openai(error).param("model");
    coordinator
        .suits(model, JobKind::Image)
        .map_err(|error| about_model(error).named("invalid_value"))?;
    let state = coordinator.state();
    match coordinator.makes(&state, model) {
        Some(Makes::Pictures(usual)) => Ok(usual),
        _ if coordinator.known_models(&state).contains(model) => {
            let message = "nobody on the network serves this model right now";
            Err(about_model(ErrorBody::new(ErrorCode::NoNodeAvailable, message)))
        }
        _ => {
            drop(state);
            Err(about_model(coordinator.unknown_model(model.as_str())))
        }
    }
}

/// The first picture of a request that its payer repeats. After a change of coordinators its model may be
/// known to nobody for a moment, and the pictures are there or being made.
async fn asked_before(
    coordinator: &Coordinator,
    caller: &Caller,
    key: &IdempotencyKey,
) -> Result<Option<ImageJob>, ApiError> {
    let known = coordinator.store.job_of_key(&caller.payer, key).await;
    Ok(match known.map_err(|error| ApiError::openai(error.body()))? {
        Some((_, JobSpec::Image(job))) => Some(job),
        _ => None,
    })
}

/// What was usual when a picture was asked for: what the request leaves open is as it was.
fn usual_of(job: &ImageJob) -> ImageDefaults {
    ImageDefaults {
        width: job.width,
        height: job.height,
        steps: job.steps,
        guidance: job.guidance,
        negative_prompt: job.negative_prompt.clone(),
        side_multiple: ImageJob::SIDE_MULTIPLE,
        sampler: None,
    }
}

/// A picture that is being made for a client.
struct Picture {
    id: JobId,
    job: ImageJob,
    watch: JobWatch,
    guard: CancelGuard,
}

impl Picture {
    async fn begin(
        coordinator: &Arc<Coordinator>,
        caller: &Caller,
        key: Option<IdempotencyKey>,
        job: ImageJob,
        terms: JobTerms,
    ) -> Result<Self, ApiError> {
        let spec = JobSpec::Image(job.clone());
        let repeatable = key.is_some();
        let id = coordinator
            .submit_on(caller.payer.clone(), key, spec, terms)
            .await
            .map_err(|error| ApiError::submission(error, caller))?;
        let guard = CancelGuard::of(coordinator, id, repeatable);
        let watch = coordinator.watch_job(id).await.map_err(ApiError::openai)?;
        Ok(Self { id, job, watch, guard })
    }

    async fn finished(&mut self) -> Result<ImageOutput, ApiError> {
        let (output, _) = self.watch.finished().await.map_err(ApiError::openai)?;
        picture_of(output).map_err(ApiError::openai)
    }
}

/// All pictures in one answer, or none: the first that fails has the others withdrawn. Once one is paid for,
/// those that are made are answered all the same, and those that failed are named in `failed`.
async fn together(
    coordinator: &Coordinator,
    headers: &HeaderMap,
    mut pictures: Vec<Picture>,
    asked: &PictureRequest,
) -> Result<Value, ApiError> {
    let mut ended = BTreeMap::new();
    {
        let each = pictures.iter_mut().enumerate();
        let mut open: FuturesUnordered<_> =
            each.map(async |(at, picture)| (at, picture.finished().await)).collect();
        while let Some((at, output)) = open.next().await {
            match output {
                Err(error) if ended.is_empty() => return Err(error),
                output => ended.insert(at, output),
            };
        }
    }
    let created = pictures.first().map_or_else(|| now_ms() / 1000, |first| accepted_s(first.id));
    let until_ms = now_ms().saturating_add_unsigned(coordinator.config.limits.picture_link_ms);
    let size = size_name(asked.jobs[0].width, asked.jobs[0].height);
    let (mut data, mut failed) = (Vec::with_capacity(ended.len()), Vec::new());
    for (picture, (index, output)) in pictures.into_iter().zip(ended) {
        picture.guard.disarm();
        let output = match output {
            Ok(output) => output,
            Err(error) => {
                let mut entry = error.openai_json()["error"].take();
                entry["index"] = json!(index);
                failed.push(entry);
                continue;
            }
        };
        let seed = picture.job.seed;
        data.push(match asked.form {
            Form::Base64 => {
                let settings = asked.embed_settings.then_some(&picture.job);
                let png = file(output, settings, asked.sampler.as_deref());
                json!({ "b64_json": png, "seed": seed })
            }
            Form::Link => {
                let name = coordinator.links.name(picture.id, until_ms);
                let url = format!("{}/v1/images/{name}", origin(headers));
                json!({ "url": url, "seed": seed })
            }
        });
    }
    let mut answer = json!({
        "created": created,
        "data": data,
        "background": "opaque",
        "output_format": "png",
        "quality": "auto",
        "size": size,
    });
    if !failed.is_empty() {
        answer["failed"] = json!(failed);
    }
    Ok(answer)
}

/// Where the client found this server, for links. A proxy in front says whether it encrypts.
fn origin(headers: &HeaderMap) -> String {
    let of = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let scheme = match of("x-forwarded-proto") {
        Some("https") => "https",
        _ => "http",
    };
    format!("{scheme}://{}", of(HOST.as_str()).unwrap_or("localhost"))
}

/// The picture of a job. A settled result was checked against its job.
fn picture_of(output: JobOutput) -> Result<ImageOutput, ErrorBody> {
    match output {
        JobOutput::Image(picture) => Ok(picture),
        JobOutput::Text(_) => {
            Err(ErrorBody::new(ErrorCode::Internal, "the result of the job is no picture"))
        }
    }
}

/// The file of a picture; with what it was made with, if that is given.
fn file(output: ImageOutput, settings: Option<&ImageJob>, sampler: Option<&str>) -> Png {
    let described = settings.and_then(|job| output.png.with_settings(job, sampler));
    described.unwrap_or(output.png)
}

fn size_name(width: u32, height: u32) -> String {
    format!("{width}x{height}")
}
