//! Virtual clients: durable jobs by HTTP, repeated under one key until the coordinator says yes or no.

use std::time::{Duration, Instant};

use neurino_core::{ChatMessage, JobId, JobSpec, ModelId, Role, TextJob};
use serde_json::Value;

/// How a job was accepted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Accepted {
    pub(crate) job: JobId,
    /// When the request was sent first, and when the answer was there.
    pub(crate) asked: Instant,
    pub(crate) answered: Instant,
}

/// What a request came to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Outcome {
    Accepted(Accepted),
    /// Too much work: the coordinator said so.
    Refused,
    /// Nobody answered in time, or in words that are not of a gateway with too much work: their status.
    Unanswered(Option<u16>),
}

/// Longest time in which one job is submitted again and again.
const PATIENCE: Duration = Duration::from_mins(1);

/// A short text.
pub(crate) fn text(model: &ModelId, number: u64) -> JobSpec {
    let messages = vec![ChatMessage::new(Role::User, format!("virtual job {number}"))];
    let mut job = TextJob::new(model.clone(), messages, 32);
    job.sampling.seed = number;
    JobSpec::Text(job)
}

/// Submits one job. A repeat after a broken connection has the same idempotency key.
pub(crate) async fn submit(
    http: &reqwest::Client,
    url: &str,
    key: &str,
    spec: &JobSpec,
    number: u64,
) -> Outcome {
    let asked = Instant::now();
    while asked.elapsed() < PATIENCE {
        let request = http
            .post(format!("{url}/v1/jobs"))
            .bearer_auth(key)
            .header("idempotency-key", format!("job-{number}"))
            .header("neurino-service-tier", "priority")
            .json(spec);
        if let Ok(response) = request.send().await {
            let status = response.status().as_u16();
            let answer: Option<Value> = response.json().await.ok();
            let job = answer.as_ref().and_then(|a| a["id"].as_str()?.parse().ok());
            match (status, job) {
                (202, Some(job)) => {
                    return Outcome::Accepted(Accepted { job, asked, answered: Instant::now() });
                }
                (429, _) => return Outcome::Refused,
                (400..=499, _) => return Outcome::Unanswered(Some(status)),
                _ => {}
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Outcome::Unanswered(None)
}
