//! The state sentence: what the miner does and, if it does nothing, why and what helps.

use neurino_core::JobKind;
use neurino_protocol::ErrorBody;
use neurino_protocol::app::{CurrentJob, JobStage, MiningState, NetworkStatus};

/// Begins what a network wants its person to know, see `CoordinatorMessage::Notice`.
const NETWORK_SAYS: &str = "the network says";

/// What the sentence is made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub(crate) state: MiningState,
    pub(crate) network: &'a NetworkStatus,
    pub(crate) job: Option<&'a CurrentJob>,
    /// What the miner is preparing, how it ends, or why it waits, as words: "fetching SmolLM2 (42 %)",
    /// "no job: 3 need sdxl".
    pub(crate) preparing: Option<&'a str>,
    pub(crate) problem: Option<&'a ErrorBody>,
}

/// One sentence for people.
pub(crate) fn sentence(facts: Facts<'_>) -> String {
    let network = network_name(facts.network);
    match facts.state {
        // A rule's own sentence stands there.
        MiningState::Paused => "Paused.".into(),
        MiningState::Stopped => "Not mining. Press Start to earn points.".into(),
        MiningState::Starting => {
            let what = facts.preparing.map_or(String::new(), |what| format!(": {what}"));
            match facts.problem {
                // What went wrong is being mended; the person is told, and has nothing to do.
                Some(problem) => format!("{}. Getting ready again{what}.", told(&problem.message)),
                None => format!("Getting ready{what}."),
            }
        }
        MiningState::Waiting if !facts.network.connected => {
            format!("Connecting to {network}.")
        }
        MiningState::Waiting => match (facts.problem, facts.preparing) {
            (Some(problem), _) if problem.message.starts_with(NETWORK_SAYS) => {
                format!("Connected to {network}. {}.", told(&problem.message))
            }
            (_, Some(why)) => format!("Connected to {network}. {}.", told(why)),
            _ => format!("Connected to {network}. Waiting for a job."),
        },
        MiningState::Working => match facts.job {
            Some(job) => working(job, &network),
            None => format!("Connected to {network}. Waiting for a job."),
        },
        MiningState::Finishing => match (facts.preparing, facts.job) {
            (Some(what), _) => format!("Stopping: {what}."),
            (None, Some(job)) => {
                let last = if job.jobs > 1 { format!("{} jobs", job.jobs) } else { "job".into() };
                format!("Finishing the last {last}, then stopping: {}.", progress(job))
            }
            (None, None) => "Finishing, then stopping.".into(),
        },
        MiningState::NeedsYou => match facts.problem {
            Some(problem) => {
                format!("Stopped by a problem: {}.", problem.message.trim_end_matches('.'))
            }
            None => "Stopped by a problem.".into(),
        },
    }
}

fn network_name(network: &NetworkStatus) -> String {
    if network.practice { "the practice network".into() } else { network.name.clone() }
}

/// A message, which is a fragment, as the beginning of a sentence.
fn told(message: &str) -> String {
    let mut letters = message.trim_end_matches('.').chars();
    let first = letters.next().map(char::to_uppercase);
    first.into_iter().flatten().chain(letters).collect()
}

fn working(job: &CurrentJob, network: &str) -> String {
    let kind = match job.kind {
        JobKind::Text => "text",
        JobKind::Image => "image",
    };
    match job.stage {
        JobStage::Loading => format!("Loading {} for a job of {network}.", job.model),
        JobStage::Running if job.jobs > 1 => {
            format!("Running {} {kind} jobs for {network}: {}.", job.jobs, progress(job))
        }
        JobStage::Running => {
            let article = if job.kind == JobKind::Image { "an" } else { "a" };
            format!("Running {article} {kind} job for {network}: {}.", progress(job))
        }
        JobStage::Sending => {
            let what = if job.kind == JobKind::Image { "picture" } else { "result of a text job" };
            format!("Sending the {what} to {network}.")
        }
    }
}

fn progress(job: &CurrentJob) -> String {
    let tenths = job.elapsed_ms / 100;
    let done = match job.kind {
        JobKind::Text if job.done == 1 => "1 token".to_owned(),
        JobKind::Text => format!("{} tokens", job.done),
        JobKind::Image => format!("step {} of {}", job.done, job.of),
    };
    let whose = if job.jobs > 1 { " for the oldest" } else { "" };
    format!(
        "{done}, {}.{} s of {} s{whose}",
        tenths / 10,
        tenths % 10,
        // A lease of 180 s arrives with a few milliseconds less.
        job.budget_ms.div_ceil(1000)
    )
}

#[cfg(test)]
mod tests {
    use neurino_core::{JobId, ModelId};
    use neurino_protocol::ErrorCode;

    use super::*;

    fn network() -> NetworkStatus {
        NetworkStatus {
            name: "practice".into(),
            practice: true,
            connected: true,
            gateway_url: None,
        }
    }

    fn job(stage: JobStage) -> CurrentJob {
        CurrentJob {
            job: JobId("00000000-0000-0000-0000-000000000000".parse().expect("a uuid")),
            model: ModelId::new("smollm2-135m-instruct").expect("valid"),
            stage,
            kind: JobKind::Text,
            done: 43,
            of: 512,
            elapsed_ms: 3_149,
            budget_ms: 180_000,
            jobs: 1,
        }
    }

    fn check(state: MiningState, job: Option<&CurrentJob>, expect: &str) {
        let network = network();
        let facts = Facts { state, network: &network, job, preparing: None, problem: None };
        assert_eq!(sentence(facts), expect);
    }

    #[test]
    fn a_lost_engine_is_told_while_another_starts() {
        let network = network();
        let problem = ErrorBody::new(ErrorCode::EngineFailed, "the engine ended unexpectedly");
        let facts = Facts {
            state: MiningState::Starting,
            network: &network,
            job: None,
            preparing: Some("loading a model"),
            problem: Some(&problem),
        };
        let expect = "The engine ended unexpectedly. Getting ready again: loading a model.";
        assert_eq!(sentence(facts), expect);
    }

    #[test]
    fn each_state_says_what_happens() {
        check(MiningState::Stopped, None, "Not mining. Press Start to earn points.");
        check(MiningState::Waiting, None, "Connected to the practice network. Waiting for a job.");
        check(
            MiningState::Working,
            Some(&job(JobStage::Running)),
            "Running a text job for the practice network: 43 tokens, 3.1 s of 180 s.",
        );
        let three = CurrentJob { jobs: 3, ..job(JobStage::Running) };
        check(
            MiningState::Working,
            Some(&three),
            "Running 3 text jobs for the practice network: 43 tokens, 3.1 s of 180 s for the oldest.",
        );
        check(
            MiningState::Finishing,
            Some(&three),
            "Finishing the last 3 jobs, then stopping: 43 tokens, 3.1 s of 180 s for the oldest.",
        );
        check(
            MiningState::Finishing,
            Some(&job(JobStage::Running)),
            "Finishing the last job, then stopping: 43 tokens, 3.1 s of 180 s.",
        );
    }

    #[test]
    fn who_waits_beside_work_for_others_hears_why() {
        let network = network();
        let facts = Facts {
            state: MiningState::Waiting,
            network: &network,
            job: None,
            preparing: Some("no job: 3 need sdxl, 2 need 24 GB"),
            problem: None,
        };
        let expect = "Connected to the practice network. No job: 3 need sdxl, 2 need 24 GB.";
        assert_eq!(sentence(facts), expect);
    }

    #[test]
    fn a_problem_is_named() {
        let network = network();
        let problem = ErrorBody::new(ErrorCode::ModelNotReady, "the model is not on this machine");
        let facts = Facts {
            state: MiningState::NeedsYou,
            network: &network,
            job: None,
            preparing: None,
            problem: Some(&problem),
        };
        assert_eq!(sentence(facts), "Stopped by a problem: the model is not on this machine.");
    }
}
