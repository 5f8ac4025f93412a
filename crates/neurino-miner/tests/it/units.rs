//! A machine of several cards, each announced by itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use neurino_core::{Lease, UnitId};
use neurino_engine::{Engine, MultiEngine, PlaceCard, PlaceCards};
use neurino_miner::{Miner, MinerConfig, MinerHandle};
use neurino_protocol::node::unit::{Unit, UnitKind};
use neurino_protocol::node::{Advice, CoordinatorMessage, NodeMessage, Ready};
use neurino_testkit::{Script, ScriptedEngine};

use crate::pool::{MODEL, Peer, lease};
use crate::{Bench, LONG_MS, model};

const OTHER: &str = "another";
const LARGE: &str = "too-large-for-one";
const CARD_BYTES: u64 = 24 << 30;

fn card(number: u8, instance: bool) -> PlaceCard {
    PlaceCard { number, name: "Card".into(), memory_bytes: CARD_BYTES, instance }
}

/// Two engines: one of both cards, one of the second alone, as the app makes them.
fn two_cards() -> Vec<PlaceCards> {
    vec![PlaceCards(vec![card(0, false), card(1, false)]), PlaceCards(vec![card(1, false)])]
}

struct Machine {
    bench: Bench,
    engines: [ScriptedEngine; 2],
    miner: MinerHandle,
}

impl Machine {
    fn new(cards: Vec<PlaceCards>) -> Self {
        let slow = || {
            let script = Script::answer("four words of text").paced(Duration::from_millis(80));
            ScriptedEngine::new(script).with_slots(2)
        };
        let (bench, engines) = (Bench::new(Script::answer("unused")), [slow(), slow()]);
        let config = MinerConfig {
            models: vec![model(MODEL), model(OTHER), model(LARGE)],
            needs: BTreeMap::from([(model(MODEL).id, 4 << 30), (model(LARGE).id, CARD_BYTES + 1)]),
            ..bench.config()
        };
        let all = engines.iter().map(|e| Arc::new(e.clone()) as Arc<dyn Engine>).collect();
        let engine = Arc::new(MultiEngine::new(all).on_cards(cards));
        let miner = Miner::start(config, bench.pool.clone(), engine, bench.key.clone()).unwrap();
        Self { bench, engines, miner }
    }

    fn loads(&self) -> [usize; 2] {
        self.engines.each_ref().map(ScriptedEngine::loads)
    }
}

/// The next announcement that is as wanted.
async fn announced(peer: &mut Peer, wanted: impl Fn(&Ready) -> bool) -> Ready {
    peer.wait(|message| match message {
        NodeMessage::Ready(ready) if wanted(&ready) => Some(ready),
        _ => None,
    })
    .await
}

fn unit(ready: &Ready, id: u8) -> &Unit {
    ready.units.iter().find(|unit| unit.id == UnitId(id)).expect("it is announced")
}

fn names(unit: &Unit) -> Vec<&str> {
    unit.models.iter().map(neurino_core::ModelId::as_str).collect()
}

fn on(unit: u8, name: &str) -> Lease {
    let mut lease = lease(LONG_MS);
    if let neurino_core::JobSpec::Text(text) = &mut lease.spec {
        text.model = model(name).id;
    }
    Lease { unit: Some(UnitId(unit)), ..lease }
}

#[tokio::test]
async fn each_card_is_a_unit_and_both_are_one_for_what_is_too_large() {
    let mut machine = Machine::new(two_cards());
    let mut peer = machine.bench.peers.next().await;
    let ready = announced(&mut peer, |ready| ready.slots > 0).await;
    // To coordinators that know no units it is what it was.
    assert_eq!((ready.models.len(), ready.slots), (3, 2));
    let told: Vec<_> = ready.units.iter().map(|unit| (unit.id.0, &unit.kind)).collect();
    let whole = |card| UnitKind::Whole { card };
    let group = UnitKind::Group { cards: vec![0, 1] };
    assert_eq!(told, [(0, &whole(0)), (128, &group), (1, &whole(1))]);
    let (first, both, second) = (unit(&ready, 0), unit(&ready, 128), unit(&ready, 1));
    assert_eq!((names(first), first.cold, first.slots), (vec![MODEL, OTHER], false, 2));
    assert_eq!((names(second), second.cold, second.slots), (vec![MODEL, OTHER], true, 1));
    assert_eq!((names(both), both.memory_bytes), (vec![LARGE], 2 * CARD_BYTES));

    // The same model on both cards, each for its own jobs.
    let jobs = [on(0, MODEL), on(1, MODEL)];
    for job in &jobs {
        peer.assign(job).await;
    }
    let ready = announced(&mut peer, |ready| !unit(ready, 1).cold).await;
    assert_eq!((names(unit(&ready, 1)), unit(&ready, 1).slots), (vec![MODEL, OTHER], 2));
    for _ in 0..2 {
        let submission = peer.submission().await;
        peer.settle(&submission).await;
    }
    assert_eq!(machine.loads(), [1, 1]);
    assert_eq!(machine.engines.each_ref().map(|engine| engine.jobs().len()), [1, 1]);
    machine.miner.stop_now().await;
}

#[tokio::test]
async fn a_card_takes_no_more_than_its_own_slots() {
    let mut machine = Machine::new(two_cards());
    let mut peer = machine.bench.peers.ready().await;
    let jobs = [on(0, MODEL), on(0, MODEL), on(0, MODEL), on(1, OTHER), on(7, MODEL)];
    for job in &jobs {
        peer.assign(job).await;
    }
    for refused in [&jobs[2], &jobs[4]] {
        let given_back = peer
            .wait(|message| match message {
                NodeMessage::HandBack { lease, .. } => Some(lease),
                _ => None,
            })
            .await;
        assert_eq!(given_back, refused.id, "a job too many, and one of no unit");
    }
    let mut done = Vec::new();
    for _ in 0..3 {
        let submission = peer.submission().await;
        done.push(submission.statement.lease);
        peer.settle(&submission).await;
    }
    assert!([&jobs[0], &jobs[1], &jobs[3]].iter().all(|job| done.contains(&job.id)));
    let held = machine.engines.each_ref().map(|engine| engine.loaded().map(|model| model.id));
    assert_eq!(held, [Some(model(MODEL).id), Some(model(OTHER).id)]);
    machine.miner.stop_now().await;
}

#[tokio::test]
async fn advice_for_a_card_leaves_the_other_one_at_work() {
    let mut machine = Machine::new(two_cards());
    let mut peer = machine.bench.peers.ready().await;
    let job = on(0, MODEL);
    peer.assign(&job).await;
    let advice = |name: Option<&str>| {
        let model = name.map(|name| model(name).id);
        CoordinatorMessage::Advice(Advice { model, waiting: 3, unit: Some(UnitId(1)) })
    };
    peer.say(advice(Some(OTHER))).await;
    let paused = announced(&mut peer, |ready| unit(ready, 1).slots == 0).await;
    assert_eq!(unit(&paused, 0).slots, 2, "the other card takes jobs");
    let ready = announced(&mut peer, |ready| unit(ready, 1).slots > 0).await;
    assert_eq!((names(unit(&ready, 1)), unit(&ready, 1).cold), (vec![OTHER, MODEL], false));
    let submission = peer.submission().await;
    assert_eq!(submission.statement.lease, job.id);
    peer.settle(&submission).await;
    peer.say(advice(None)).await;
    let ready = announced(&mut peer, |ready| unit(ready, 1).cold && unit(ready, 1).slots > 0).await;
    assert!(!unit(&ready, 0).cold);
    assert_eq!(machine.engines[1].loaded(), None);
    machine.miner.stop_now().await;
}

#[tokio::test]
async fn instances_of_a_card_are_units_without_a_group() {
    let cards = vec![PlaceCards(vec![card(0, true)]), PlaceCards(vec![card(0, true)])];
    let mut machine = Machine::new(cards);
    let mut peer = machine.bench.peers.next().await;
    let ready = announced(&mut peer, |ready| ready.slots > 0).await;
    let kinds: Vec<_> = ready.units.iter().map(|unit| unit.kind.clone()).collect();
    assert_eq!(kinds, [UnitKind::Instance { card: 0 }, UnitKind::Instance { card: 0 }]);
    // What needs more than an instance has goes to none.
    assert!(ready.units.iter().all(|unit| names(unit) == [MODEL, OTHER]));
    assert_eq!(ready.check_units(), Ok(()));
    machine.miner.stop_now().await;
}
