//! The work queue: requests that make jobs, kept on NATS's disk until their job is in the books.
//!
//! Each router reads through a consumer of its own epoch and removes those of earlier ones, so that
//! what a dead router had taken comes to its successor at once, and one that slept gets nothing more.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::stream::{self, DiscardPolicy, RetentionPolicy, StorageType};
use async_nats::jetstream::{self, AckKind};
use futures::StreamExt as _;
use neurino_protocol::{ErrorBody, ErrorCode};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::answers::refuse;
use super::hub::{BODY_BYTES_MAX, Hub, Unanswered, full};
use super::wire::{Submit, unpack};
use crate::coordinator::now_ms;
use crate::edge::too_large;

/// How long a request is kept that nobody takes. The queue bridges a takeover; it is no archive.
const AGE_MAX: Duration = Duration::from_mins(10);
/// Within this time the same request is kept once.
const DUPLICATES: Duration = Duration::from_mins(2);
/// Most bytes in the queue; beyond that gateways are refused, which their clients are told.
const BYTES_MAX: i64 = 1 << 30;
/// Requests that are worked on before their jobs are in the books.
const AT_ONCE: usize = 1024;
/// Time until a request that was taken and not decided is given again.
const ACK_WAIT: Duration = Duration::from_secs(30);
/// Wait after NATS refused.
const RETRY: Duration = Duration::from_millis(500);

/// Works the queue off until `stop`.
pub(super) async fn work(hub: Arc<Hub>, stop: CancellationToken) {
    let mut told = false;
    while hub.routes() && !stop.is_cancelled() {
        let round = tokio::select! {
            () = stop.cancelled() => return,
            round = work_off(&hub) => round,
        };
        if let Err(error) = round {
            if !std::mem::replace(&mut told, true) {
                tracing::warn!(%error, "the work queue cannot be read; JetStream must be enabled");
            }
        } else {
            told = false;
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// The queue as it is made; one that is there keeps what its operator set.
pub(super) fn stream_config(name: &str, subject: &str) -> stream::Config {
    stream::Config {
        name: name.to_owned(),
        subjects: vec![subject.to_owned()],
        retention: RetentionPolicy::WorkQueue,
        storage: StorageType::File,
        discard: DiscardPolicy::New,
        max_bytes: BYTES_MAX,
        max_age: AGE_MAX,
        duplicate_window: DUPLICATES,
        ..stream::Config::default()
    }
}

async fn work_off(hub: &Arc<Hub>) -> Result<(), async_nats::Error> {
    let subjects = &hub.subjects;
    let context = jetstream::new(hub.client.clone());
    let stream =
        context.get_or_create_stream(stream_config(&subjects.stream, &subjects.submit)).await?;
    let mut names = stream.consumer_names();
    while let Some(name) = names.next().await.transpose()? {
        let epoch = name.strip_prefix("router-").and_then(|epoch| epoch.parse::<i64>().ok());
        if epoch.is_some_and(|epoch| epoch > hub.epoch()) {
            // Its books will tell this one, too.
            return Ok(());
        }
        if epoch.is_some_and(|epoch| epoch < hub.epoch()) {
            stream.delete_consumer(&name).await?;
        }
    }
    let own = format!("router-{}", hub.epoch());
    let config = pull::Config {
        durable_name: Some(own.clone()),
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        max_ack_pending: AT_ONCE as i64,
        ..pull::Config::default()
    };
    let consumer = stream.get_or_create_consumer(&own, config).await?;
    let mut requests = consumer.messages().await?;
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut generation = hub.generation.subscribe();
    loop {
        let request = tokio::select! {
            // NATS was away, and has forgotten that somebody waits for requests.
            _ = generation.changed() => return Ok(()),
            request = requests.next() => request,
        };
        let Some(request) = request.transpose()? else { return Ok(()) };
        let permit = Arc::clone(&room).acquire_owned().await?;
        let hub = Arc::clone(hub);
        hub.coordinator.tasks.clone().spawn(async move {
            take(&hub, request).await;
            drop(permit);
        });
    }
}

/// Answers a request, and has it removed from the queue once its jobs are in the books.
async fn take(hub: &Arc<Hub>, request: jetstream::Message) {
    let opened = hub.key.open(&hub.subjects.submit, &request.payload);
    let Some((submit, body)) = opened.as_deref().and_then(unpack::<Submit>) else {
        tracing::warn!("a request that no gateway of ours can have queued was dropped");
        return settle(&request, AckKind::Term).await;
    };
    // A gateway whose session is over asks again in the next one, under the same idempotency key. If
    // the gateway is gone, its clients are, too.
    let peer = hub.peer(&submit.gateway).filter(|peer| peer.session == submit.session);
    let Some(peer) = peer else { return settle(&request, AckKind::Term).await };
    let (circuit, path) = (submit.circuit, submit.ask.path.clone());
    if let Err(error) = takable(submit.at_ms, now_ms(), body.len()) {
        if error.code == ErrorCode::Unreachable && !hub.told_clock.swap(true, Ordering::Relaxed) {
            tracing::error!("requests of gateway {} are refused: {error}", submit.gateway);
        }
        // One that is being answered was taken, and somebody puts it again.
        if !peer.knows(circuit) {
            refuse(&peer, circuit, &path, error).await;
        }
        return settle(&request, AckKind::Term).await;
    }
    let body = body.to_vec().into();
    let answering = match Hub::answering(&peer, circuit, submit.ask, body) {
        Ok(answering) => answering,
        Err(Unanswered::Known) => return settle(&request, AckKind::Ack).await,
        Err(Unanswered::Full) => {
            refuse(&peer, circuit, &path, full()).await;
            return settle(&request, AckKind::Ack).await;
        }
    };
    answering.run(hub, async || settle(&request, AckKind::Ack).await).await;
    peer.forget(submit.circuit);
}

/// Whether a request that was queued at a time is taken. One that is old somebody may have kept and put
/// again; a gateway whose clock is wrong has no others.
///
/// # Errors
/// `Unreachable`, `TooLarge`.
fn takable(at_ms: i64, now_ms: i64, bytes: usize) -> Result<(), ErrorBody> {
    let apart_ms = now_ms.abs_diff(at_ms);
    if apart_ms > AGE_MAX.as_millis() as u64 {
        let minutes = apart_ms / 60_000;
        let words =
            format!("the request was queued {minutes} minutes away from the coordinator's time");
        let hint = "whoever runs this network should set the clock of the gateway";
        return Err(ErrorBody::new(ErrorCode::Unreachable, words).with_hint(hint));
    }
    if bytes > BODY_BYTES_MAX { Err(too_large(BODY_BYTES_MAX)) } else { Ok(()) }
}

async fn settle(request: &jetstream::Message, kind: AckKind) {
    if let Err(error) = request.ack_with(kind).await {
        // It comes again, and finds its job in the books.
        tracing::debug!(%error, "a request stays in the queue");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_of_another_time_is_refused_in_words() {
        let minute = 60_000;
        let now = 1_750_000_000_000;
        for apart in [-10 * minute, -1, 0, 1, 10 * minute] {
            assert_eq!(takable(now + apart, now, 1), Ok(()), "{apart}");
        }
        for apart in [-11 * minute, 11 * minute] {
            let refused = takable(now + apart, now, 1).expect_err("another time");
            assert_eq!(refused.code, ErrorCode::Unreachable);
            assert!(refused.message.contains("11 minutes"), "{refused}");
            assert!(refused.hint.is_some_and(|hint| hint.contains("clock")));
        }
        let large = takable(now, now, BODY_BYTES_MAX + 1).map_err(|error| error.code);
        assert_eq!(large, Err(ErrorCode::TooLarge));
    }
}
