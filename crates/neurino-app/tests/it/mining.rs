//! Start, work, Stop.

use std::time::{Duration, Instant};

use neurino_app::AppOptions;
use neurino_core::MicroPoints;
use neurino_protocol::app::{Event, MiningState, ModelState, StopMode};
use neurino_testkit::{Ending, Script};

use crate::world::{Answer, Viewer, World};

/// A job that says nothing and never ends by itself.
pub(crate) fn hanging() -> Script {
    Script { pieces: vec![], ..Script::answer("").ending(Ending::Hang) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_is_answered_and_paid() {
    let world = World::answering("one two three");
    let mut viewer = world.start().await;
    let before = viewer.snapshot().await;
    assert_eq!(before.mining.state, MiningState::Stopped);
    assert_eq!(before.models[0].state, ModelState::Ready);
    assert!(before.network.practice && before.network.gateway_url.is_some());

    let ready = viewer.mine_until_ready().await;
    assert_eq!(ready.models[0].state, ModelState::Loaded);
    assert_eq!(ready.mining.sentence, "Connected to the practice network. Waiting for a job.");

    viewer.ask("c").await.unwrap();
    let answer = viewer.answer("c").await.unwrap();
    // Ten of the prompt; three words and the end.
    let usage = neurino_core::Usage { prompt_tokens: 10, completion_tokens: 4 };
    assert_eq!(answer, Answer { text: "one two three".into(), usage });
    let receipt = viewer.settled().await;
    assert_eq!(receipt.quote.amount_micro, MicroPoints(14_000));
    assert_eq!(receipt.node, viewer.app.node());

    let paid = viewer.snapshot().await;
    assert_eq!((paid.points.jobs_total, paid.points.jobs_today), (1, 1));
    assert_eq!(
        (paid.points.llama_total, paid.points.llama_today),
        (MicroPoints(14_000), MicroPoints(14_000))
    );
    assert_eq!(paid.receipts, [receipt]);

    viewer.stop(StopMode::Finish).await;
    let stopped = viewer.until_over().await;
    assert_eq!(stopped.models[0].state, ModelState::Ready);
    assert_eq!(stopped.mining.sentence, "Not mining. Press Start to earn points.");
    viewer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_now_hands_the_job_back_and_the_next_start_takes_it_up() {
    let world = World::answering("at last");
    world.engine.queue(hanging());
    let mut viewer = world.start().await;
    viewer.mine_until_ready().await;
    viewer.ask("c").await.unwrap();
    viewer.until_state(MiningState::Working).await;

    let began = Instant::now();
    viewer.stop(StopMode::Now).await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(viewer.snapshot().await.mining.state, MiningState::Stopped);
    viewer.until_over().await;

    viewer.mine().await;
    assert_eq!(viewer.answer("c").await.unwrap().text, "at last");
    assert_eq!(world.engine.jobs().len(), 2, "the same job, twice begun");
    viewer.settled().await;
    assert_eq!(viewer.snapshot().await.points.jobs_total, 1);
    viewer.end().await;
}

/// Twenty words in about a second.
fn slow() -> Script {
    let words: Vec<_> = (0..20).map(|n| n.to_string()).collect();
    Script::answer(&words.join(" ")).paced(Duration::from_millis(50))
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_finish_completes_the_job_first() {
    let world = World::answering("unused");
    world.engine.queue(slow());
    let mut viewer = world.start().await;
    viewer.mine_until_ready().await;
    viewer.ask("c").await.unwrap();
    viewer.until_state(MiningState::Working).await;
    viewer.stop(StopMode::Finish).await;
    let finishing = viewer.snapshot().await;
    assert_eq!(finishing.mining.state, MiningState::Finishing);
    assert!(finishing.mining.sentence.starts_with("Finishing the last job"), "{finishing:?}");
    assert_eq!(viewer.answer("c").await.unwrap().usage.completion_tokens, 21);
    viewer.settled().await;
    let over = viewer.until_over().await;
    assert_eq!(over.points.jobs_total, 1);
    viewer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_now_cuts_a_finishing_job_short() {
    let world = World::answering("unused");
    world.engine.queue(hanging());
    let viewer = world.start().await;
    viewer.mine_until_ready().await;
    viewer.ask("c").await.unwrap();
    viewer.until_state(MiningState::Working).await;
    viewer.stop(StopMode::Finish).await;
    assert_eq!(viewer.snapshot().await.mining.state, MiningState::Finishing);
    viewer.stop(StopMode::Now).await;
    assert_eq!(viewer.snapshot().await.mining.state, MiningState::Stopped);
    viewer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn start_while_finishing_starts_again() {
    let world = World::answering("again");
    world.engine.queue(slow());
    let mut viewer = world.start().await;
    viewer.mine_until_ready().await;
    viewer.ask("first").await.unwrap();
    viewer.until_state(MiningState::Working).await;
    viewer.stop(StopMode::Finish).await;
    viewer.mine().await;
    assert_eq!(viewer.snapshot().await.mining.state, MiningState::Finishing, "one after another");
    viewer.answer("first").await.unwrap();
    viewer.settled().await;
    viewer.until_ready().await;
    viewer.earn("second").await;
    assert_eq!(world.engine.loads(), 2);
    viewer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_takes_the_wish_to_start_again_back() {
    let world = World::answering("unused");
    world.engine.queue(slow());
    let mut viewer = world.start().await;
    viewer.mine_until_ready().await;
    viewer.ask("c").await.unwrap();
    viewer.until_state(MiningState::Working).await;
    viewer.stop(StopMode::Finish).await;
    viewer.mine().await;
    viewer.stop(StopMode::Finish).await;
    viewer.answer("c").await.unwrap();
    viewer.until_over().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(viewer.snapshot().await.mining.state, MiningState::Stopped);
    assert_eq!(world.engine.loads(), 1);
    viewer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_start_changes_nothing() {
    let world = World::answering("fine");
    world.engine.set_load_delay(Duration::from_millis(100));
    let viewer = world.start().await;
    viewer.mine().await;
    viewer.mine().await;
    let ready = viewer.until_ready().await;
    viewer.mine().await;
    let after = viewer.snapshot().await;
    assert_eq!(
        (after.mining.state, after.mining.since_ms),
        (MiningState::Waiting, ready.mining.since_ms)
    );
    assert_eq!(world.engine.loads(), 1);
    viewer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_right_after_a_stop_is_not_lost() {
    let world = World::answering("fine");
    let mut viewer = world.start().await;
    viewer.mine_until_ready().await;
    for n in 0..5 {
        let stopping = viewer.stop(StopMode::Now);
        // In every other round Start comes while the miner still ends.
        if n % 2 == 0 {
            tokio::join!(stopping, viewer.mine());
        } else {
            stopping.await;
            viewer.mine().await;
        }
        viewer.until_ready().await;
        viewer.earn(&format!("c{n}")).await;
    }
    viewer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn presses_in_any_order_leave_one_miner() {
    let world = World::answering("fine");
    world.engine.set_load_delay(Duration::from_millis(15));
    let mut viewer = world.start().await;
    for n in 0..40_u64 {
        viewer.mine().await;
        tokio::time::sleep(Duration::from_millis(n * 7 % 31)).await;
        viewer.stop(if n % 3 == 0 { StopMode::Finish } else { StopMode::Now }).await;
        if n % 5 == 0 {
            tokio::time::sleep(Duration::from_millis(n % 11)).await;
        }
    }
    viewer.until_over().await;
    let overview = || viewer.app.practice().unwrap().jobs_overview();
    assert_eq!(overview().nodes, 0, "no miner was left behind");
    viewer.mine_until_ready().await;
    assert_eq!(overview().nodes, 1);
    viewer.earn("c").await;
    viewer.stop(StopMode::Now).await;
    viewer.until_over().await;
    viewer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_of_the_engine_is_told_and_the_job_is_done_again() {
    let world = World::answering("second try");
    world.engine.queue(Script { pieces: vec![], ..Script::answer("").ending(Ending::Crash) });
    let mut viewer = world.start().await;
    viewer.mine_until_ready().await;
    viewer.ask("c").await.unwrap();
    let told = viewer
        .event(|event| match event {
            Event::Snapshot(s) if s.mining.state == MiningState::Starting => {
                s.mining.sentence.contains("Getting ready again").then_some(s.mining)
            }
            _ => None,
        })
        .await;
    assert!(told.sentence.starts_with("The engine"), "{}", told.sentence);
    assert!(told.problem.is_some());
    let receipt = viewer.settled().await;
    assert_eq!(receipt.quote.units, 10 + 3);
    let paid = viewer.until_ready().await;
    assert_eq!((paid.points.jobs_total, paid.mining.problem), (1, None));
    assert_eq!(world.engine.jobs().len(), 2);
    viewer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_cannot_load_the_model_needs_the_person() {
    use neurino_engine::{EngineError, EngineErrorCode};
    let world = World::answering("fine");
    let words = "the model needs 9 GB and 2 GB are free";
    world.engine.fail_next_load(EngineError::new(EngineErrorCode::OutOfMemory, words));
    let viewer = world.start().await;
    viewer.mine().await;
    let needs = viewer.until_state(MiningState::NeedsYou).await;
    assert!(needs.mining.sentence.contains(words), "{}", needs.mining.sentence);
    assert!(needs.mining.problem.is_some());
    // A Stop takes note of it, a Start tries again.
    viewer.stop(StopMode::Finish).await;
    let noted = viewer.until_state(MiningState::Stopped).await;
    assert_eq!(noted.mining.problem, None);
    viewer.mine_until_ready().await;
    viewer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_practice_network_makes_demand_while_somebody_mines() {
    let world = World::answering("a practice answer");
    let options = AppOptions { practice_demand: true, ..world.options() };
    let mut viewer = Viewer::start(options).await.unwrap();
    viewer.mine().await;
    let first = viewer.settled().await;
    assert_eq!(first.quote.amount_micro, MicroPoints(14_000));
    viewer.stop(StopMode::Now).await;
    // A job that nobody would serve any more is withdrawn.
    world.engine.queue(Script::answer("x"));
    world.engine.queue(hanging());
    viewer.mine().await;
    viewer.settled().await;
    viewer.stop(StopMode::Now).await;
    let overview = viewer.app.practice().unwrap().jobs_overview();
    assert_eq!((overview.queued, overview.leased), (0, 0));
    viewer.end().await;
}
