//! Pictures that nodes put into the network's bucket: who may put what where, and what is looked at
//! before it is paid.
//!
//! A node that finished a picture is given a link for its one file, of the length that it told, for as
//! long as its lease runs. What lies there is read once, no further than that length, must have the
//! digest that it told, and is then checked and paid as a result that came on the link. While the bucket
//! is away nothing is answered: nodes keep results and hand them in again.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use neurino_core::{ImageJob, ImageOutput, JobId, JobOutput, JobSpec, LeaseId, NodeId, Png};
use neurino_protocol::node::upload::{FILE_BYTES_MAX, StoredPicture, Uploaded};
use neurino_protocol::node::{CoordinatorMessage, Submission};
use neurino_protocol::{ErrorBody, ErrorCode};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::blobs::{BlobError, Blobs as _, Bucket};
use crate::coordinator::Coordinator;
use crate::jobs::short;
use crate::settle::Proof;
use crate::state::LeasePhase;
use crate::store::name_of;

/// How long a link is good beyond its lease.
const BEYOND: Duration = Duration::from_mins(1);
/// Longest time a link is good; shorter than files are young.
const VALID_MAX: Duration = Duration::from_mins(30);

/// A lease whose picture may be handed in.
struct Open {
    job: JobId,
    bytes_max: u64,
    left: Duration,
}

impl Coordinator {
    /// Where a node may put the picture of its lease, or how that lease ended; `None` if the books
    /// cannot be read, so that the node asks again.
    pub(crate) async fn place(
        self: &Arc<Self>,
        node: &NodeId,
        session: u64,
        lease: LeaseId,
        picture: &StoredPicture,
    ) -> Option<CoordinatorMessage> {
        let Some(bucket) = &self.config.bucket else { return Some(not_here()) };
        let Some(open) = self.open_for(node, lease) else {
            return self.settled_before(node, lease).await.ok();
        };
        if let Err(error) = fits(picture, &open) {
            return Some(self.refused(node, lease, open.job, error).await);
        }
        let mut another = false;
        if let Some(lease) = self.state().leases.get_mut(&lease) {
            // It is here, and works on it.
            (lease.session, lease.kept_until) = (Some(session), None);
            another = lease.picture.get_or_insert(*picture) != picture;
        }
        if another {
            // Each would be a file in the bucket that nobody asked for.
            let words = "there is a link for another picture of this lease already";
            let error = ErrorBody::new(ErrorCode::InvalidRequest, words);
            return Some(self.refused(node, lease, open.job, error).await);
        }
        let valid = (open.left + BEYOND).min(VALID_MAX);
        let url = bucket.upload_link(&name_of(lease, picture.sha256), picture.bytes, valid)?;
        Some(CoordinatorMessage::UploadTo { lease, url: url.into() })
    }

    /// Reads, checks and pays a picture that a node says it has put there, in a task of its own: the
    /// node's other messages do not wait for the bucket. One task for each lease that it holds; of any other
    /// lease it is told at once, and says nothing more meanwhile.
    pub(crate) async fn delivered(self: &Arc<Self>, node: &NodeId, uploaded: Uploaded) {
        let lease = uploaded.statement.lease;
        if self.open_for(node, lease).is_none() {
            if let Ok(reply) = self.settled_before(node, lease).await {
                self.state().send(node, reply);
            }
            return;
        }
        let mut delivered = self.delivered.lock().unwrap_or_else(PoisonError::into_inner);
        if !delivered.insert(lease) {
            return;
        }
        drop(delivered);
        let (this, node) = (Arc::clone(self), node.clone());
        self.tasks.spawn(async move {
            let reply = tokio::select! {
                reply = this.deliver(&node, uploaded) => reply,
                () = this.stop.cancelled() => None,
            };
            this.delivered.lock().unwrap_or_else(PoisonError::into_inner).remove(&lease);
            if let Some(reply) = reply {
                this.state().send(&node, reply);
            }
        });
    }

    async fn deliver(
        self: &Arc<Self>,
        node: &NodeId,
        uploaded: Uploaded,
    ) -> Option<CoordinatorMessage> {
        let Some(bucket) = &self.config.bucket else { return Some(not_here()) };
        let Uploaded { statement, signature, picture } = uploaded;
        let lease = statement.lease;
        let Some(open) = self.open_for(node, lease) else {
            return self.settled_before(node, lease).await.ok();
        };
        if let Err(error) = fits(&picture, &open) {
            return Some(self.refused(node, lease, open.job, error).await);
        }
        match read(bucket, lease, &picture).await {
            Ok(png) => {
                let StoredPicture { width, height, .. } = picture;
                let output = JobOutput::Image(ImageOutput { png: Png(png), width, height });
                let submission = Submission { statement, signature, output };
                self.settle(node, submission, Proof::Uploaded).await
            }
            Err(Unread::Refused(words)) => {
                let error = ErrorBody::new(ErrorCode::InvalidRequest, words);
                Some(self.refused(node, lease, open.job, error).await)
            }
            Err(Unread::Later(error)) => {
                let cause = &error as &dyn std::error::Error;
                tracing::warn!(
                    lease.id = %lease, error = cause,
                    "a picture of {} was not read yet: {error}", short(node),
                );
                None
            }
        }
    }

    /// A running lease of a node's, if it is for a picture.
    fn open_for(&self, node: &NodeId, lease: LeaseId) -> Option<Open> {
        let state = self.state();
        let held = state.leases.get(&lease).filter(|l| l.node == *node)?;
        let left = held.deadline.checked_duration_since(Instant::now())?;
        let JobSpec::Image(job) = &*state.jobs.get(&held.job)?.spec else { return None };
        let running = held.phase == LeasePhase::Running;
        running.then(|| Open { job: held.job, bytes_max: bytes_max(job), left })
    }
}

/// Largest file that a job's picture can be: its pixels unpacked, and what surrounds them.
fn bytes_max(job: &ImageJob) -> u64 {
    let row = 1 + 3 * u64::from(job.width);
    (row * u64::from(job.height) / 10 * 11 + (64 << 10)).min(FILE_BYTES_MAX)
}

fn fits(picture: &StoredPicture, open: &Open) -> Result<(), ErrorBody> {
    if (1..=open.bytes_max).contains(&picture.bytes) {
        Ok(())
    } else {
        let words = "the picture's file has a length that no picture of this job has";
        Err(ErrorBody::new(ErrorCode::TooLarge, words))
    }
}

/// Why a picture was not read.
enum Unread {
    /// It is not the one that was told.
    Refused(&'static str),
    /// The bucket is to blame, perhaps.
    Later(BlobError),
}

async fn read(bucket: &Bucket, lease: LeaseId, picture: &StoredPicture) -> Result<Vec<u8>, Unread> {
    let name = name_of(lease, picture.sha256);
    let png = match bucket.get(&name, picture.bytes).await {
        Ok(png) => png,
        Err(BlobError::TooLarge) => {
            return Err(Unread::Refused("the uploaded picture has another length than was told"));
        }
        // Also one that is missing: a server that was killed may have lost what it had taken.
        Err(error) => return Err(Unread::Later(error)),
    };
    let told = picture.sha256.0;
    let checked =
        tokio::task::spawn_blocking(move || (Sha256::digest(&png)[..] == told).then_some(png));
    match checked.await {
        Ok(Some(png)) => Ok(png),
        Ok(None) => Err(Unread::Refused("the uploaded picture has another digest than was told")),
        Err(error) => Err(Unread::Later(BlobError::Disk(std::io::Error::other(error)))),
    }
}

/// Said to a node that puts pictures where nobody offered to take them.
fn not_here() -> CoordinatorMessage {
    let words = "this network takes pictures on the link, in a submission";
    CoordinatorMessage::Bye(ErrorBody::new(ErrorCode::InvalidRequest, words))
}
