//! Advice of the network: followed between jobs, among the models that are here, if the owner lets it.

use std::time::Duration;

use neurino_miner::{MinerConfig, MinerState};
use neurino_protocol::node::{Advice, CoordinatorMessage, NodeMessage, Ready};
use neurino_testkit::Script;

use super::{Bench, LONG_MS, lease, model, until};
use crate::pool::{MODEL, Peer};

const OTHER: &str = "other-model";

fn two(bench: &Bench) -> MinerConfig {
    MinerConfig { models: vec![model(MODEL), model(OTHER)], ..bench.config() }
}

async fn advise(peer: &Peer, name: Option<&str>, waiting: u32) {
    let advice = Advice { model: name.map(|name| model(name).id), waiting, unit: None };
    peer.say(CoordinatorMessage::Advice(advice)).await;
}

/// The next announcement that is so.
async fn announced(peer: &mut Peer, so: impl Fn(&Ready) -> bool) -> Ready {
    peer.wait(|message| match message {
        NodeMessage::Ready(ready) if so(&ready) => Some(ready),
        _ => None,
    })
    .await
}

#[tokio::test]
async fn an_advised_model_is_loaded_and_its_reason_shown() {
    let mut bench = Bench::new(Script::answer("hi"));
    let miner = bench.start_with(two(&bench));
    let mut peer = bench.peers.next().await;
    let ready = peer.ready().await;
    assert_eq!((ready.models[0].id.as_str(), ready.advised, ready.cold), (MODEL, true, false));
    bench.engine.set_load_delay(Duration::from_millis(200));
    advise(&peer, Some(OTHER), 12).await;
    let loading = until(&miner, |s| matches!(s.state, MinerState::LoadingModel { .. })).await;
    assert_eq!(
        loading.advice,
        Some(Advice { model: Some(model(OTHER).id), waiting: 12, unit: None })
    );
    let ready = announced(&mut peer, |ready| ready.slots > 0).await;
    assert_eq!((ready.models[0].id.as_str(), ready.models.len()), (OTHER, 2));
    let loads = bench.engine.loads();
    let waiting = until(&miner, |s| s.state == MinerState::Waiting).await;
    assert_eq!(waiting.advice, None, "it is done");
    // What it holds already, or has not got, changes nothing.
    advise(&peer, Some(OTHER), 1).await;
    advise(&peer, Some("no-such-model"), 1).await;
    let lease = lease(LONG_MS);
    peer.assign(&lease).await;
    let submission = peer.submission().await;
    peer.settle(&submission).await;
    until(&miner, |s| s.counters.settled == 1).await;
    assert_eq!(bench.engine.loads(), loads + 1, "the job's own model was loaded, nothing else");
}

#[tokio::test]
async fn a_running_job_is_finished_first_and_no_other_one_is_taken() {
    let script = Script::answer("one two three four five six").paced(Duration::from_millis(60));
    let mut bench = Bench::new(script);
    let miner = bench.start_with(two(&bench));
    let mut peer = bench.peers.ready().await;
    let lease = lease(LONG_MS);
    peer.assign(&lease).await;
    until(&miner, |s| s.job.as_ref().is_some_and(|job| job.done > 0)).await;
    advise(&peer, Some(OTHER), 3).await;
    peer.paused().await;
    assert_eq!((bench.engine.loads(), miner.status().borrow().jobs), (1, 1), "the job goes on");
    let submission = peer.submission().await;
    let ready = announced(&mut peer, |ready| ready.slots > 0).await;
    assert_eq!(ready.models[0].id.as_str(), OTHER);
    peer.settle(&submission).await;
    let after = until(&miner, |s| s.counters.settled == 1).await;
    assert_eq!((after.counters.handed_back, after.counters.failed), (0, 0));
}

#[tokio::test]
async fn where_nobody_asks_the_memory_is_freed_until_a_job_comes() {
    let mut bench = Bench::new(Script::answer("hi"));
    let miner = bench.start_with(two(&bench));
    let mut peer = bench.peers.ready().await;
    advise(&peer, None, 0).await;
    let ready = announced(&mut peer, |ready| ready.cold).await;
    assert_eq!((ready.slots, ready.models.len()), (1, 2), "it takes jobs all the same");
    let resting = until(&miner, |s| s.advice.is_some()).await;
    assert_eq!(resting.state, MinerState::Waiting);
    let mut engine = neurino_engine::Engine::status(&bench.engine);
    let idle = |status: &neurino_engine::EngineStatus| {
        matches!(status, neurino_engine::EngineStatus::Idle)
    };
    engine.wait_for(idle).await.unwrap();
    let lease = lease(LONG_MS);
    peer.assign(&lease).await;
    let ready = announced(&mut peer, |ready| !ready.cold).await;
    assert_eq!(ready.models[0].id.as_str(), MODEL);
    let submission = peer.submission().await;
    peer.settle(&submission).await;
    let after = until(&miner, |s| s.counters.settled == 1).await;
    assert_eq!((after.advice, after.counters.failed, bench.engine.loads()), (None, 0, 2));
}

#[tokio::test]
async fn an_owner_who_takes_no_advice_gets_none() {
    let mut bench = Bench::new(Script::answer("hi"));
    let miner = bench.start_with(MinerConfig { follow_advice: false, ..two(&bench) });
    let mut peer = bench.peers.next().await;
    assert!(!peer.ready().await.advised);
    advise(&peer, Some(OTHER), 12).await;
    advise(&peer, None, 0).await;
    let lease = lease(LONG_MS);
    peer.assign(&lease).await;
    let submission = peer.submission().await;
    peer.settle(&submission).await;
    until(&miner, |s| s.counters.settled == 1).await;
    assert_eq!(bench.engine.loads(), 1);
}
