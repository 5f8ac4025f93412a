//! The state sentence: what the miner does and, if it does nothing, why and what helps.

use neurino_core::{JobKind, ModelId};
use neurino_protocol::ErrorBody;
use neurino_protocol::app::{CurrentJob, JobStage, MiningState, NetworkStatus};
use neurino_protocol::cards::NoCard;
use neurino_protocol::node::NoJob;
use neurino_protocol::saying::{MiningSaying, Preparing};

/// Begins what a network wants its person to know, see `CoordinatorMessage::Notice`.
const NETWORK_SAYS: &str = "the network says";

/// What the miner does beside or instead of its job.
#[derive(Debug, Clone)]
pub(crate) enum Doing {
    /// Nothing that is worth a word.
    Nothing,
    /// It gets ready.
    Preparing(Preparing),
    /// It waits, and the network said why.
    Idle(NoJob),
    /// It loads a model because the network asks for it; so many jobs wait.
    Advised(ModelId, u32),
    /// It has nothing loaded, because nobody asks.
    Resting,
    /// It hands so many jobs back.
    HandingBack(u32),
    /// It finishes its jobs, and goes on with what was changed.
    GoingOn,
    /// No card may be used.
    NoCard(NoCard),
}

/// What there is to say.
pub(crate) fn saying(
    state: MiningState,
    connected: bool,
    doing: Doing,
    problem: Option<&ErrorBody>,
) -> MiningSaying {
    let problem = || problem.cloned();
    match (state, doing) {
        (MiningState::Paused, Doing::NoCard(no_card)) => MiningSaying::NoCard { no_card },
        // A rule's own sentence stands there.
        (MiningState::Paused, _) => MiningSaying::Decided,
        (MiningState::Stopped, _) => MiningSaying::Stopped,
        (MiningState::Starting, Doing::Advised(model, jobs)) => {
            MiningSaying::Advised { model, jobs }
        }
        (MiningState::Starting, Doing::Preparing(what)) => {
            MiningSaying::Starting { what: Some(what), problem: problem() }
        }
        (MiningState::Starting, _) => MiningSaying::Starting { what: None, problem: problem() },
        (MiningState::Waiting, _) if !connected => MiningSaying::Connecting,
        (MiningState::Waiting, Doing::Resting) => MiningSaying::Resting,
        (MiningState::Waiting, doing) => {
            let notice = problem().filter(|problem| problem.message.starts_with(NETWORK_SAYS));
            let no_job = if let Doing::Idle(why) = doing { Some(why) } else { None };
            MiningSaying::Waiting { notice, no_job }
        }
        (MiningState::Working, _) => MiningSaying::Working,
        (MiningState::Finishing, Doing::HandingBack(jobs)) => MiningSaying::HandingBack { jobs },
        (MiningState::Finishing, doing) => {
            MiningSaying::Finishing { again: matches!(doing, Doing::GoingOn) }
        }
        (MiningState::NeedsYou, _) => MiningSaying::Problem { error: problem() },
    }
}

/// It as one sentence in English.
pub(crate) fn sentence(
    said: &MiningSaying,
    network: &NetworkStatus,
    job: Option<&CurrentJob>,
) -> String {
    let network = network_name(network);
    match said {
        MiningSaying::Decided => "Paused.".into(),
        MiningSaying::Stopped => "Not mining. Press Start to earn points.".into(),
        MiningSaying::Starting { what, problem } => {
            let what = what.as_ref().map_or(String::new(), |what| format!(": {what}"));
            match problem {
                // What went wrong is being mended; the person is told, and has nothing to do.
                Some(problem) => format!("{}. Getting ready again{what}.", told(&problem.message)),
                None => format!("Getting ready{what}."),
            }
        }
        MiningSaying::Connecting => format!("Connecting to {network}."),
        MiningSaying::Waiting { notice: Some(notice), .. } => {
            format!("Connected to {network}. {}.", told(&notice.message))
        }
        MiningSaying::Waiting { no_job: Some(why), .. } => {
            format!("Connected to {network}. {}.", told(&why.to_string()))
        }
        MiningSaying::Waiting { .. } => format!("Connected to {network}. Waiting for a job."),
        MiningSaying::Advised { model, jobs: 0 } => {
            format!("Loading {model}: it is asked for more than what was loaded.")
        }
        MiningSaying::Advised { model, jobs: 1 } => format!("Loading {model}: 1 job waits for it."),
        MiningSaying::Advised { model, jobs } => {
            format!("Loading {model}: {jobs} jobs wait for it.")
        }
        MiningSaying::Resting => format!(
            "Connected to {network}. Nobody asks for this machine's models: memory is free until a job comes."
        ),
        MiningSaying::Working => match job {
            Some(job) => working(job, &network),
            None => format!("Connected to {network}. Waiting for a job."),
        },
        MiningSaying::HandingBack { jobs: 0 | 1 } => {
            "Stopping: handing the running job back.".into()
        }
        MiningSaying::HandingBack { jobs } => {
            format!("Stopping: handing {jobs} running jobs back.")
        }
        MiningSaying::NoCard { no_card } => told_no_card(no_card),
        MiningSaying::Finishing { again } => match job {
            Some(job) => {
                let last = if job.jobs > 1 { format!("{} jobs", job.jobs) } else { "job".into() };
                let then = if *again { "going on with your change" } else { "stopping" };
                format!("Finishing the last {last}, then {then}: {}.", progress(job))
            }
            None if *again => "Going on with your change.".into(),
            None => "Finishing, then stopping.".into(),
        },
        MiningSaying::Problem { error: Some(error) } => {
            format!("Stopped by a problem: {}.", error.message.trim_end_matches('.'))
        }
        MiningSaying::Problem { error: None } => "Stopped by a problem.".into(),
    }
}

fn network_name(network: &NetworkStatus) -> String {
    if network.practice { "the practice network".into() } else { network.name.clone() }
}

fn told_no_card(why: &NoCard) -> String {
    match why {
        NoCard::Off => "All cards are switched off. Switch one on in the settings, under Cards.".into(),
        NoCard::ProcessorOff => {
            "The processor is switched off, and there is no card. Switch it on in the settings, under \
             Cards."
                .into()
        }
        NoCard::Gone { card, several, driver } => {
            let whose = if *several { "Your cards do" } else { "Your card does" };
            let card = if *several { String::new() } else { format!(" ({card})") };
            let driver = driver.as_ref().map_or(String::new(), |driver| format!(" {driver}"));
            let them = if *several { "them" } else { "it" };
            format!(
                "{whose} not answer any more{card}.{driver} Looking for {them}; mining goes on by itself."
            )
        }
    }
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
    use neurino_core::JobId;
    use neurino_protocol::ErrorCode;
    use neurino_protocol::node::{SkipCount, SkipReason};

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
            estimate_ms: None,
            jobs: 1,
        }
    }

    fn told_of(
        state: MiningState,
        doing: Doing,
        problem: Option<&ErrorBody>,
        job: Option<&CurrentJob>,
    ) -> String {
        sentence(&saying(state, true, doing, problem), &network(), job)
    }

    fn check(state: MiningState, job: Option<&CurrentJob>, expect: &str) {
        assert_eq!(told_of(state, Doing::Nothing, None, job), expect);
    }

    #[test]
    fn a_lost_engine_is_told_while_another_starts() {
        let problem = ErrorBody::new(ErrorCode::EngineFailed, "the engine ended unexpectedly");
        let model = ModelId::new("a-model").expect("valid");
        let loading = Preparing::Loading { model, percent: None, warm_percent: None };
        let expect = "The engine ended unexpectedly. Getting ready again: loading a-model.";
        let doing = Doing::Preparing(loading);
        assert_eq!(told_of(MiningState::Starting, doing, Some(&problem), None), expect);
    }

    #[test]
    fn a_load_tells_how_far_it_is() {
        let told = |percent, warm_percent| {
            let model = ModelId::new("a-model").expect("valid");
            let loading = Preparing::Loading { model, percent, warm_percent };
            told_of(MiningState::Starting, Doing::Preparing(loading), None, None)
        };
        assert_eq!(told(Some(40), None), "Getting ready: loading a-model (40 %).");
        let expect = "Getting ready: preparing a-model for this machine (30 %).";
        assert_eq!(told(Some(100), Some(30)), expect);
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
        let need = |jobs, reason| SkipCount { jobs, reason };
        let sdxl = SkipReason::Model { model: ModelId::new("sdxl").expect("valid") };
        let memory = SkipReason::Memory { memory_bytes: 24 << 30 };
        let why = NoJob { waiting: 5, reasons: vec![need(3, sdxl), need(2, memory)] };
        let expect = "Connected to the practice network. No job: 3 need sdxl, 2 need 24 GB.";
        assert_eq!(told_of(MiningState::Waiting, Doing::Idle(why), None, None), expect);
    }

    #[test]
    fn what_the_network_advises_is_told_with_its_reason() {
        let loading = |jobs| {
            let model = ModelId::new("sdxl").expect("valid");
            told_of(MiningState::Starting, Doing::Advised(model, jobs), None, None)
        };
        assert_eq!(loading(12), "Loading sdxl: 12 jobs wait for it.");
        assert_eq!(loading(1), "Loading sdxl: 1 job waits for it.");
        assert_eq!(loading(0), "Loading sdxl: it is asked for more than what was loaded.");
        let rests = "Connected to the practice network. Nobody asks for this machine's models: memory is \
                     free until a job comes.";
        assert_eq!(told_of(MiningState::Waiting, Doing::Resting, None, None), rests);
    }

    #[test]
    fn no_card_has_its_reason_and_its_way_out() {
        let told = |why| told_of(MiningState::Paused, Doing::NoCard(why), None, None);
        let expect = "All cards are switched off. Switch one on in the settings, under Cards.";
        assert_eq!(told(NoCard::Off), expect);
        let gone = |several, driver: Option<&str>| NoCard::Gone {
            card: "Card".into(),
            several,
            driver: driver.map(Into::into),
        };
        let expect = "Your card does not answer any more (Card). Looking for it; mining goes on by \
                      itself.";
        assert_eq!(told(gone(false, None)), expect);
        let updated = "The NVIDIA driver was updated.";
        let expect = "Your cards do not answer any more. The NVIDIA driver was updated. Looking for \
                      them; mining goes on by itself.";
        assert_eq!(told(gone(true, Some(updated))), expect);
    }

    #[test]
    fn a_change_lets_the_job_finish_and_goes_on() {
        let going_on =
            |job: Option<&CurrentJob>| told_of(MiningState::Finishing, Doing::GoingOn, None, job);
        let expect =
            "Finishing the last job, then going on with your change: 43 tokens, 3.1 s of 180 s.";
        assert_eq!(going_on(Some(&job(JobStage::Running))), expect);
        assert_eq!(going_on(None), "Going on with your change.");
    }

    #[test]
    fn a_problem_is_named() {
        let problem = ErrorBody::new(ErrorCode::ModelNotReady, "the model is not on this machine");
        let told = told_of(MiningState::NeedsYou, Doing::Nothing, Some(&problem), None);
        assert_eq!(told, "Stopped by a problem: the model is not on this machine.");
    }
}
