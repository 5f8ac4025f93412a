//! The router against naive models of it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use neurino_core::FrontendId;
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use uuid::Uuid;

use super::*;

mod index;
mod units;

fn model(name: &str) -> ModelId {
    ModelId::new(name).expect("valid")
}

fn node(n: u8) -> NodeId {
    NodeId::new(format!("0x{n:02x}")).expect("valid")
}

/// A node that announced no units, as a place.
fn at(n: u8) -> Place {
    Place::new(&node(n), None)
}

/// For nodes that announced no units.
impl Router {
    fn set_one(
        &mut self,
        id: &NodeId,
        models: Vec<ModelId>,
        slots: u32,
        busy: u32,
        standing: Standing,
    ) {
        let running = vec![model("other"); busy as usize];
        let unit = Announced::node(models, slots, standing.memory_bytes);
        self.set_node(id, vec![Announced { running, ..unit }], standing);
    }

    fn given(&mut self, rng: &mut StdRng) -> Option<(JobId, NodeId)> {
        self.next(rng).map(|(waiting, place)| (waiting.job, place.node))
    }

    /// Any of a node's jobs has ended.
    fn ended(&mut self, id: &NodeId) {
        let place = Place::new(id, None);
        let any = self.unit(&place).and_then(|unit| unit.running.keys().next().cloned());
        if let Some(any) = any {
            self.lease_ended(&place, &any);
        }
    }
}

fn job(n: u16) -> JobId {
    JobId(Uuid::from_u128(u128::from(n)))
}

fn payer(n: u8) -> PayerId {
    PayerId::new(format!("p{n}")).expect("valid")
}

fn frontend(n: u8) -> FrontendId {
    FrontendId::new(format!("f{n}")).expect("valid")
}

fn rng() -> StdRng {
    StdRng::seed_from_u64(7)
}

/// An interactive job of the first payer for model `a` that costs one unit.
fn waiting(n: u16) -> Waiting {
    Waiting {
        placement: None,
        job: job(n),
        model: model("a"),
        payer: payer(1),
        class: JobClass::Interactive,
        cost: 1,
        frontend: None,
        tried: vec![],
        unable: vec![],
        again: false,
    }
}

fn set(router: &mut Router, n: u8, models: &[&str], slots: u32) {
    let models = models.iter().map(|m| model(m)).collect();
    router.set_one(&node(n), models, slots, 0, Standing::default());
}

fn order(router: &mut Router) -> Vec<u16> {
    let mut rng = rng();
    std::iter::from_fn(|| router.given(&mut rng))
        .map(|(job, _)| u16::try_from(job.0.as_u128()).expect("small"))
        .collect()
}

#[test]
fn a_loaded_model_is_preferred() {
    let mut router = Router::default();
    set(&mut router, 1, &["b", "a"], 5);
    set(&mut router, 2, &["a", "b"], 5);
    for n in 0..5 {
        router.enqueue(waiting(n));
        assert_eq!(router.given(&mut rng()), Some((job(n), node(2))));
    }
    router.enqueue(waiting(9));
    assert_eq!(router.given(&mut rng()), Some((job(9), node(1))), "the loaded node is full");
}

#[test]
fn an_owner_at_its_limit_is_looked_at_by_no_job() {
    let mut router = Router::default().with_new_owners_holding(2);
    let of_one = |n: u8| NodeId::new(format!("0x{:040x}-gpu{n}", 1)).expect("valid");
    let free = |router: &Router| router.free.get(&model("a")).is_some_and(Free::any);
    for n in 0..3 {
        router.set_one(&of_one(n), vec![model("a")], 9, 0, Standing::default());
    }
    for n in 0..4 {
        router.enqueue(waiting(n));
    }
    assert_eq!(order(&mut router), [0, 1]);
    assert!(!free(&router), "its other nodes are not even candidates");
    // A node that comes anew is of the same owner, one of another owner is not.
    router.set_one(&of_one(3), vec![model("a")], 9, 0, Standing::default());
    assert!(!free(&router));
    set(&mut router, 2, &["a"], 1);
    assert_eq!(order(&mut router), [2]);
    let busy = router.nodes.iter().find(|(id, n)| **id != node(2) && n.busy() > 0);
    let busy = busy.map(|(id, _)| id.clone()).expect("one works");
    router.ended(&busy);
    assert_eq!(order(&mut router), [3], "room again");
    assert!(!free(&router));
    router.paid(&busy);
    assert!(free(&router), "a result earns room");
    router.remove_node(&busy);
    assert!(free(&router), "and a node that goes leaves its own");
}

#[test]
fn a_node_that_will_ask_again_takes_none_of_its_owners_room() {
    let mut router = Router::default().with_new_owners_holding(2);
    let of_one = |n: u8| NodeId::new(format!("0x{:040x}-gpu{n}", 1)).expect("valid");
    for n in 0..4 {
        router.set_one(&of_one(n), vec![model("a")], 1, 0, Standing::default());
        router.park(&of_one(n));
    }
    router.enqueue(waiting(0));
    assert_eq!(router.given(&mut rng()), None, "nobody would hear of it");
    assert_eq!(router.serving(&model("a")), 4);
    assert_eq!(router.no_job(&of_one(0)), None);
    router.set_one(&of_one(2), vec![model("a")], 1, 0, Standing::default());
    assert_eq!(router.given(&mut rng()), Some((job(0), of_one(2))));
}

#[test]
fn payers_take_turns_and_pay_for_large_jobs_with_waiting() {
    let mut router = Router::default();
    for n in 0..4 {
        router.enqueue(waiting(n));
    }
    router.enqueue(Waiting { payer: payer(2), ..waiting(10) });
    set(&mut router, 1, &["a"], 99);
    assert_eq!(order(&mut router), [0, 10, 1, 2, 3]);
    let mut router = Router::default();
    set(&mut router, 1, &["a"], 99);
    for n in 0..2 {
        router.enqueue(Waiting { cost: 3, ..waiting(n) });
    }
    for n in 10..16 {
        router.enqueue(Waiting { payer: payer(2), ..waiting(n) });
    }
    assert_eq!(order(&mut router), [0, 10, 11, 12, 1, 13, 14, 15]);
}

#[test]
fn classes_share_sixteen_to_four_to_one_and_none_starves() {
    let mut router = Router::default();
    for n in 0..200 {
        router.enqueue(waiting(n));
        router.enqueue(Waiting { class: JobClass::Batch, ..waiting(1000 + n) });
        router.enqueue(Waiting { class: JobClass::Audit, ..waiting(2000 + n) });
    }
    set(&mut router, 1, &["a"], 210);
    let order = order(&mut router);
    let of = |class: u16| order.iter().filter(|n| *n / 1000 == class).count();
    assert_eq!((of(0), of(1), of(2)), (160, 40, 10));
}

#[test]
fn a_batch_job_that_waited_long_goes_before_newer_ones() {
    let mut router = Router::default();
    router.enqueue(Waiting { class: JobClass::Batch, ..waiting(100) });
    for n in 0..30 {
        router.enqueue(waiting(n));
    }
    router.promote(&model("a"), &payer(1), job(100));
    assert_eq!((router.depth(JobClass::Batch), router.depth(JobClass::Interactive)), (0, 31));
    router.enqueue(waiting(31));
    set(&mut router, 1, &["a"], 99);
    let order = order(&mut router);
    let at = |job| order.iter().position(|n| *n == job);
    assert!(at(100) < at(31), "{order:?}");
}

#[test]
fn who_was_away_does_not_save_up_and_cannot_skip_its_debt() {
    let mut router = Router::default();
    set(&mut router, 1, &["a"], 1);
    let mut rng = rng();
    let mut next = |router: &mut Router| {
        let (job, id) = router.given(&mut rng).expect("a job waits");
        router.ended(&id);
        u16::try_from(job.0.as_u128()).expect("small")
    };
    for n in 0..20 {
        router.enqueue(waiting(n));
    }
    for _ in 0..10 {
        next(&mut router);
    }
    // A newcomer does not get the ten turns it was not there for.
    for n in 100..110 {
        router.enqueue(Waiting { payer: payer(2), ..waiting(n) });
    }
    let served: Vec<u16> = (0..4).map(|_| next(&mut router)).collect();
    assert_eq!(served.iter().filter(|n| **n >= 100).count(), 2, "{served:?}");
    // One dear job at a time is charged as it would be in a row.
    router.enqueue(Waiting { payer: payer(3), cost: 6, ..waiting(200) });
    while next(&mut router) != 200 {}
    router.enqueue(Waiting { payer: payer(3), cost: 6, ..waiting(201) });
    let between = std::iter::from_fn(|| Some(next(&mut router))).take_while(|n| *n != 201).count();
    assert!(between >= 8, "{between} jobs of others between two dear ones");
}

#[test]
fn a_node_that_failed_is_tried_again_only_alone() {
    let mut router = Router::default();
    set(&mut router, 1, &["a"], 1);
    router.set_one(&node(2), vec![model("a")], 1, 1, Standing::default());
    router.enqueue(Waiting { tried: vec![node(1)], ..waiting(1) });
    assert_eq!(router.given(&mut rng()), None, "waits for the other, busy one");
    router.enqueue(waiting(2));
    assert_eq!(router.given(&mut rng()), Some((job(2), node(1))), "others pass by");
    router.ended(&node(1));
    router.remove_node(&node(2));
    assert_eq!(router.given(&mut rng()), Some((job(1), node(1))), "nobody else is left");
    router.ended(&node(1));
    router.enqueue(Waiting { unable: vec![node(1)], ..waiting(3) });
    assert_eq!(router.given(&mut rng()), None, "it cannot read the model");
    assert!(!router.serves_besides(&model("a"), &[node(1)]));
    set(&mut router, 2, &["a"], 1);
    assert!(router.serves_besides(&model("a"), &[node(1)]));
}

#[test]
fn each_key_decides_when_the_earlier_ones_are_equal() {
    let standing = |votes, uptime_tenths, referred: bool| Standing {
        votes,
        uptime_tenths,
        referred_by: referred.then(|| frontend(1)),
        memory_bytes: 0,
        class: String::new(),
        scores: false,
    };
    let check = |better: Standing, worse: Standing, why: &str| {
        for swap in [false, true] {
            let mut router = Router::new(Sample::All, BTreeMap::new());
            let (a, b) = if swap { (2, 1) } else { (1, 2) };
            router.set_one(&node(a), vec![model("a")], 1, 0, better.clone());
            router.set_one(&node(b), vec![model("a")], 1, 0, worse.clone());
            router.enqueue(Waiting { frontend: Some(frontend(1)), ..waiting(1) });
            assert_eq!(router.given(&mut rng()), Some((job(1), node(a))), "{why}");
        }
    };
    check(standing(0, 0, true), standing(99, 9, false), "referred before votes");
    check(standing(3, 0, true), standing(2, 9, true), "votes before uptime");
    check(standing(3, 5, false), standing(5, 4, false), "votes of one band are equal");
    let mut router = Router::new(Sample::All, BTreeMap::new());
    for n in 1..=3 {
        router.set_one(&node(n), vec![model("a")], 1, 0, standing(u64::from(n), 9, false));
    }
    for _ in 0..20 {
        router.timed(&at(1), &model("a"), 1000, 500, false);
        router.timed(&at(2), &model("a"), 1000, 1000, false);
        router.timed(&at(3), &model("a"), 1000, 1100, false);
    }
    router.band_all();
    router.enqueue(waiting(1));
    assert_eq!(router.given(&mut rng()), Some((job(1), node(1))), "speed before votes");
    router.enqueue(waiting(2));
    assert_eq!(router.given(&mut rng()), Some((job(2), node(3))), "speeds of one band are equal");
}

#[test]
fn work_spreads_over_free_nodes() {
    let mut router = Router::default();
    for n in 0..30 {
        set(&mut router, n, &["a"], 1);
    }
    let (mut rng, mut served) = (rng(), BTreeSet::new());
    for n in 0..300 {
        router.enqueue(waiting(n));
        let (_, id) = router.given(&mut rng).expect("thirty nodes are free");
        router.ended(&id);
        served.insert(id);
    }
    assert_eq!(served.len(), 30);
}

#[test]
fn a_node_without_a_job_hears_why() {
    const GIB: u64 = 1 << 30;
    let needs = BTreeMap::from([(model("large"), 24 * GIB)]);
    let mut router = Router::new(Sample::default(), needs);
    let standing = Standing { memory_bytes: 8 * GIB, ..Standing::default() };
    router.set_one(&node(1), vec![model("a")], 1, 0, standing);
    let told = |router: &Router| router.no_job(&node(1)).map(|no| no.to_string());
    assert_eq!(told(&router).as_deref(), Some("no job: nobody is asking for anything right now"));
    for n in 0..3 {
        router.enqueue(Waiting { model: model("sdxl"), ..waiting(n) });
    }
    for n in 3..5 {
        router.enqueue(Waiting { model: model("large"), ..waiting(n) });
    }
    router.enqueue(Waiting { unable: vec![node(1)], ..waiting(6) });
    assert_eq!(router.given(&mut rng()), None);
    assert_eq!(
        told(&router).as_deref(),
        Some("no job: 3 need sdxl, 2 need 24 GB, 1 failed here before")
    );
    router.enqueue(waiting(7));
    assert!(router.given(&mut rng()).is_some());
    assert_eq!(told(&router), None, "it has a job");
}

#[derive(Debug, Clone)]
enum Step {
    Enqueue { job: u16, payer: u8, model: u8, class: u8, cost: u64, tried: Option<u8> },
    Remove(u16),
    Promote(u16),
    Node(u8, Vec<u8>, u32),
    Leave(u8),
    Next,
    End,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u16..1000, 0u8..3, 0u8..3, 0u8..3, 1u64..50, prop::option::of(0u8..4)).prop_map(
            |(job, payer, model, class, cost, tried)| Step::Enqueue {
                job,
                payer,
                model,
                class,
                cost,
                tried
            }
        ),
        (0u16..1000).prop_map(Step::Remove),
        (0u16..1000).prop_map(Step::Promote),
        (0u8..4, prop::collection::vec(0u8..3, 0..3), 0u32..3)
            .prop_map(|(n, m, s)| Step::Node(n, m, s)),
        (0u8..4).prop_map(Step::Leave),
        Just(Step::Next),
        Just(Step::Next),
        Just(Step::End),
    ]
}

proptest! {
    /// Against a naive model: no job is lost or given twice, no slot is overfilled, a job goes
    /// only to a node that serves its model, and nothing waits while an untried node is free.
    #[test]
    fn never_loses_doubles_or_overfills(steps in prop::collection::vec(step(), 0..200), seed: u64) {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut router = Router::default();
        let mut all = BTreeMap::<JobId, (u8, u8, Option<u8>)>::new();
        let mut nodes = BTreeMap::<u8, (BTreeSet<u8>, u32)>::new();
        let mut held = Vec::<NodeId>::new();
        let busy = |held: &[NodeId], n: u8| {
            u32::try_from(held.iter().filter(|h| **h == node(n)).count()).expect("small")
        };
        for step in steps {
            match step {
                Step::Enqueue { job: j, payer: p, model: m, class, cost, tried } => {
                    if let Entry::Vacant(free) = all.entry(job(j)) {
                        free.insert((p, m, tried));
                        router.enqueue(Waiting {
                            model: model(&format!("m{m}")),
                            payer: payer(p),
                            class: JobClass::ALL[usize::from(class)],
                            cost,
                            tried: tried.map(node).into_iter().collect(),
                            again: j % 2 == 0,
                            ..waiting(j)
                        });
                    }
                }
                Step::Remove(j) => {
                    if let Some((p, m, _)) = all.remove(&job(j)) {
                        router.remove_job(&model(&format!("m{m}")), &payer(p), job(j));
                    }
                }
                Step::Promote(j) => {
                    if let Some((p, m, _)) = all.get(&job(j)) {
                        router.promote(&model(&format!("m{m}")), &payer(*p), job(j));
                    }
                }
                Step::Node(n, m, s) => {
                    let set: BTreeSet<u8> = m.into_iter().collect();
                    let models = set.iter().map(|m| model(&format!("m{m}"))).collect();
                    router.set_one(&node(n), models, s, busy(&held, n), Standing::default());
                    nodes.insert(n, (set, s));
                }
                Step::Leave(n) => {
                    router.remove_node(&node(n));
                    nodes.remove(&n);
                }
                Step::Next => match router.given(&mut rng) {
                    Some((j, id)) => {
                        let (_, m, _) = all.remove(&j).expect("it waited");
                        let n = (0..4).find(|n| node(*n) == id).expect("known");
                        let (models, slots) = nodes.get(&n).expect("connected");
                        prop_assert!(models.contains(&m));
                        prop_assert!(busy(&held, n) < *slots);
                        held.push(id);
                    }
                    None => for (j, (_, m, t)) in &all {
                        let free = nodes.iter().any(|(n, (models, slots))| {
                            models.contains(m) && busy(&held, *n) < *slots && *t != Some(*n)
                        });
                        prop_assert!(!free, "{j} waits beside a free node");
                    },
                },
                Step::End => {
                    if let Some(id) = held.pop() {
                        router.ended(&id);
                    }
                }
            }
            let depth: usize = JobClass::ALL.iter().map(|class| router.depth(*class)).sum();
            prop_assert_eq!(depth, all.len());
        }
    }
}

#[test]
fn the_fastest_is_who_was_ever_fastest_and_not_who_is_suspected() {
    let mut router = Router::default();
    for n in [1, 2] {
        router.set_one(&node(n), vec![model("a")], 1, 0, Standing::default());
        for _ in 0..20 {
            router.timed(&at(n), &model("a"), 100, 1000, false);
        }
    }
    // Once it had the card for itself.
    router.timed(&at(1), &model("a"), 300, 1000, false);
    router.timed(&at(1), &model("a"), 100, 1000, false);
    router.band_all();
    let fastest = router.fastest(&model("a")).expect("several serve it");
    assert!((290.0..=300.0).contains(&fastest), "{fastest}");
    router.timed(&at(2), &model("a"), 5000, 1000, true);
    router.band_all();
    let fastest = router.fastest(&model("a")).expect("several serve it");
    assert!(fastest < 1200.0, "{fastest}");
}

/// A node of 24 GB that has a small model loaded and a large one on disk, and takes four jobs at once.
fn with_large() -> Router {
    let needs = [(model("small"), 4 << 30), (model("large"), 20 << 30)];
    let mut router = Router::new(Sample::All, needs.into_iter().collect());
    let standing = Standing { memory_bytes: 24 << 30, ..Standing::default() };
    router.set_one(&node(1), vec![model("small"), model("large")], 4, 0, standing);
    router
}

fn on(name: &str, n: u16) -> Waiting {
    Waiting { model: model(name), payer: payer(u8::try_from(n % 3).expect("small")), ..waiting(n) }
}

/// Small jobs keep coming, so that the node always has some; returns after how many of them the large job
/// is begun, of a thousand.
fn begun_after(router: &mut Router) -> Option<u16> {
    let mut rng = rng();
    for n in 1..1_000 {
        router.enqueue(on("small", n));
        while let Some((given, _)) = router.given(&mut rng) {
            if given == job(0) {
                return Some(n);
            }
        }
        // Every few of them one ends.
        if n % 3 == 0 {
            router.ended(&node(1));
        }
    }
    None
}

#[test]
fn a_large_job_gets_a_node_that_is_held_free_for_it() {
    let mut router = with_large();
    router.enqueue(on("large", 0));
    // Nothing is in its way yet.
    assert_eq!(router.given(&mut rng()), Some((job(0), node(1))));
    let mut router = with_large();
    router.enqueue(on("small", 1));
    assert!(router.given(&mut rng()).is_some());
    router.enqueue(on("large", 0));
    assert_eq!(begun_after(&mut router), None, "small ones are always faster");
    assert_eq!(router.reserve(&model("small"), |_| true), None, "it fits beside others");
    assert_eq!(router.reserve(&model("large"), |_| false), None);
    assert_eq!(router.reserve(&model("large"), |_| true), Some(at(1)));
    assert_eq!(router.reserve(&model("large"), |_| true), None, "one at a time");
    let begun = begun_after(&mut router).expect("it is begun");
    assert!(begun <= 20, "the four that run end first: {begun}");
    assert_eq!(router.reserved(&at(1)), None, "that is what it was held for");
}

#[test]
fn a_node_that_is_held_free_in_vain_is_let_go() {
    let mut router = with_large();
    router.enqueue(on("small", 1));
    assert!(router.given(&mut rng()).is_some());
    router.enqueue(on("large", 0));
    router.reserve(&model("large"), |_| true).expect("it can");
    router.enqueue(on("small", 2));
    assert_eq!(router.given(&mut rng()), None, "it has a slot, and is held");
    router.unreserve(&at(1));
    assert_eq!(router.given(&mut rng()), Some((job(2), node(1))));
}
