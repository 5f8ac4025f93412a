//! Links to finished pictures: whoever has one may look, until it expires; nobody can guess one.
//!
//! A link names its job and its end and carries a code over both, made with a key that only this
//! coordinator can derive. Nothing is stored for it, and it survives a restart. Where pictures lie in a
//! bucket, it leads on to a link of the bucket's server that is good for a few minutes.

use std::fmt;
use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION, X_CONTENT_TYPE_OPTIONS};
use axum::response::{IntoResponse, Response};
use hmac::{Hmac, Mac};
use neurino_core::{JobId, JobOutput};
use neurino_protocol::{ErrorBody, ErrorCode};
use neurino_wallet::IdentityKey;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::Edge;
use super::http::ApiError;
use crate::coordinator::now_ms;

/// How long a link into the bucket is good, which a link of ours leads to.
const REDIRECT: Duration = Duration::from_mins(5);

/// Makes and checks the codes of links.
pub(crate) struct LinkKey([u8; 32]);

impl fmt::Debug for LinkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkKey")
    }
}

impl LinkKey {
    /// The key of a coordinator. Signatures are deterministic, so that it is the same after a restart.
    pub(crate) fn of(key: &IdentityKey, network: &str) -> Self {
        let signature = key.sign(&format!("neurino picture links v1\nnetwork: {network}"));
        Self(Sha256::digest(signature).into())
    }

    fn mac(&self, job: JobId, until_ms: i64) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("a key of any length fits");
        mac.update(job.0.as_bytes());
        mac.update(&until_ms.to_be_bytes());
        mac
    }

    /// The file name of a link that is good until a time.
    pub(super) fn name(&self, job: JobId, until_ms: i64) -> String {
        let code = hex::encode(self.mac(job, until_ms).finalize().into_bytes());
        format!("{}-{until_ms:x}-{code}.png", job.0.simple())
    }

    /// The job of a link of ours, and until when it is good.
    fn read(&self, name: &str) -> Option<(JobId, i64)> {
        let mut parts = name.strip_suffix(".png")?.split('-');
        let (job, until, code) = (parts.next()?, parts.next()?, parts.next()?);
        let job = JobId(Uuid::try_parse(job).ok()?);
        let until_ms = i64::from_str_radix(until, 16).ok()?;
        self.mac(job, until_ms).verify_slice(&hex::decode(code).ok()?).ok()?;
        parts.next().is_none().then_some((job, until_ms))
    }
}

/// `GET /v1/images/{name}.png`: a picture by its link. Needs no API key: the link is one.
pub(crate) async fn show(
    State(coordinator): State<Edge>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let missing = |message| ApiError::openai(ErrorBody::new(ErrorCode::NotFound, message));
    let link = name.ok().and_then(|Path(name)| coordinator.links.read(&name));
    let (job, until_ms) = link.ok_or_else(|| missing("there is no such picture"))?;
    let left_ms = until_ms - now_ms();
    if left_ms <= 0 {
        return Err(missing("the link to the picture has expired"));
    }
    let valid = REDIRECT.min(Duration::from_millis(left_ms.unsigned_abs()));
    let elsewhere = coordinator.store.picture_link(job, valid).await;
    if let Some(url) = elsewhere.map_err(|error| ApiError::openai(error.body()))? {
        let headers = [(LOCATION, url), (CACHE_CONTROL, "no-store".to_owned())];
        return Ok((StatusCode::TEMPORARY_REDIRECT, headers).into_response());
    }
    let stored = coordinator.stored_job(job).await.map_err(ApiError::openai)?;
    let Some(JobOutput::Image(picture)) = stored.output else {
        return Err(ApiError::openai(crate::jobs::shredded()));
    };
    let headers = [
        (CONTENT_TYPE, "image/png".to_owned()),
        (CACHE_CONTROL, format!("private, max-age={}, immutable", left_ms / 1000)),
        (X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
    ];
    Ok((headers, picture.png.0).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_read_by_its_maker_alone() {
        let key = LinkKey([7; 32]);
        let job = JobId(Uuid::from_u128(5));
        let name = key.name(job, 1000);
        assert_eq!(key.read(&name), Some((job, 1000)));
        assert_eq!(LinkKey([8; 32]).read(&name), None);
        assert_eq!(key.read(&name.replace("-3e8-", "-3e9-")), None, "its end is fixed");
        assert_eq!(key.read(&name.replacen('5', "6", 1)), None, "its job is fixed");
        assert_eq!(key.read(&name.replace(".png", "-00.png")), None);
        let (cut, _) = name.split_at(name.len() - 6);
        assert_eq!(key.read(&format!("{cut}.png")), None, "half a code opens nothing");
        assert_eq!(key.read("generations"), None);
    }
}
