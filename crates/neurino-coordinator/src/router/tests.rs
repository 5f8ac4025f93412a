//! The router against naive models of it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;

use neurino_core::FrontendId;
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use uuid::Uuid;

use super::*;

fn model(name: &str) -> ModelId {
    ModelId::new(name).expect("valid")
}

fn node(n: u8) -> NodeId {
    NodeId::new(format!("0x{n:02x}")).expect("valid")
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
    router.set_node(&node(n), models, slots, 0, Standing::default());
}

fn order(router: &mut Router) -> Vec<u16> {
    let mut rng = rng();
    std::iter::from_fn(|| router.next(&mut rng))
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
        assert_eq!(router.next(&mut rng()), Some((job(n), node(2))));
    }
    router.enqueue(waiting(9));
    assert_eq!(router.next(&mut rng()), Some((job(9), node(1))), "the loaded node is full");
}

#[test]
fn an_owner_at_its_limit_is_looked_at_by_no_job() {
    let mut router = Router::default().with_new_owners_holding(2);
    let of_one = |n: u8| NodeId::new(format!("0x{:040x}-gpu{n}", 1)).expect("valid");
    let free = |router: &Router| router.free.get(&model("a")).is_some_and(Free::any);
    for n in 0..3 {
        router.set_node(&of_one(n), vec![model("a")], 9, 0, Standing::default());
    }
    for n in 0..4 {
        router.enqueue(waiting(n));
    }
    assert_eq!(order(&mut router), [0, 1]);
    assert!(!free(&router), "its other nodes are not even candidates");
    // A node that comes anew is of the same owner, one of another owner is not.
    router.set_node(&of_one(3), vec![model("a")], 9, 0, Standing::default());
    assert!(!free(&router));
    set(&mut router, 2, &["a"], 1);
    assert_eq!(order(&mut router), [2]);
    let busy = router.nodes.iter().find(|(id, n)| **id != node(2) && n.busy > 0);
    let busy = busy.map(|(id, _)| id.clone()).expect("one works");
    router.lease_ended(&busy);
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
        router.set_node(&of_one(n), vec![model("a")], 1, 0, Standing::default());
        router.park(&of_one(n));
    }
    router.enqueue(waiting(0));
    assert_eq!(router.next(&mut rng()), None, "nobody would hear of it");
    assert_eq!(router.serving(&model("a")), 4);
    assert_eq!(router.no_job(&of_one(0)), None);
    router.set_node(&of_one(2), vec![model("a")], 1, 0, Standing::default());
    assert_eq!(router.next(&mut rng()), Some((job(0), of_one(2))));
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
        let (job, id) = router.next(&mut rng).expect("a job waits");
        router.lease_ended(&id);
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
    router.set_node(&node(2), vec![model("a")], 1, 1, Standing::default());
    router.enqueue(Waiting { tried: vec![node(1)], ..waiting(1) });
    assert_eq!(router.next(&mut rng()), None, "waits for the other, busy one");
    router.enqueue(waiting(2));
    assert_eq!(router.next(&mut rng()), Some((job(2), node(1))), "others pass by");
    router.lease_ended(&node(1));
    router.remove_node(&node(2));
    assert_eq!(router.next(&mut rng()), Some((job(1), node(1))), "nobody else is left");
    router.lease_ended(&node(1));
    router.enqueue(Waiting { unable: vec![node(1)], ..waiting(3) });
    assert_eq!(router.next(&mut rng()), None, "it cannot read the model");
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
            router.set_node(&node(a), vec![model("a")], 1, 0, better.clone());
            router.set_node(&node(b), vec![model("a")], 1, 0, worse.clone());
            router.enqueue(Waiting { frontend: Some(frontend(1)), ..waiting(1) });
            assert_eq!(router.next(&mut rng()), Some((job(1), node(a))), "{why}");
        }
    };
    check(standing(0, 0, true), standing(99, 9, false), "referred before votes");
    check(standing(3, 0, true), standing(2, 9, true), "votes before uptime");
    check(standing(3, 5, false), standing(5, 4, false), "votes of one band are equal");
    let mut router = Router::new(Sample::All, BTreeMap::new());
    for n in 1..=3 {
        router.set_node(&node(n), vec![model("a")], 1, 0, standing(u64::from(n), 9, false));
    }
    for _ in 0..20 {
        router.timed(&node(1), &model("a"), 1000, 500, false);
        router.timed(&node(2), &model("a"), 1000, 1000, false);
        router.timed(&node(3), &model("a"), 1000, 1100, false);
    }
    router.band_all();
    router.enqueue(waiting(1));
    assert_eq!(router.next(&mut rng()), Some((job(1), node(1))), "speed before votes");
    router.enqueue(waiting(2));
    assert_eq!(router.next(&mut rng()), Some((job(2), node(3))), "speeds of one band are equal");
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
        let (_, id) = router.next(&mut rng).expect("thirty nodes are free");
        router.lease_ended(&id);
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
    router.set_node(&node(1), vec![model("a")], 1, 0, standing);
    let told = |router: &Router| router.no_job(&node(1)).map(|no| no.to_string());
    assert_eq!(told(&router).as_deref(), Some("no job: nobody is asking for anything right now"));
    for n in 0..3 {
        router.enqueue(Waiting { model: model("sdxl"), ..waiting(n) });
    }
    for n in 3..5 {
        router.enqueue(Waiting { model: model("large"), ..waiting(n) });
    }
    router.enqueue(Waiting { unable: vec![node(1)], ..waiting(6) });
    assert_eq!(router.next(&mut rng()), None);
    assert_eq!(
        told(&router).as_deref(),
        Some("no job: 3 need sdxl, 2 need 24 GB, 1 failed here before")
    );
    router.enqueue(waiting(7));
    assert!(router.next(&mut rng()).is_some());
    assert_eq!(told(&router), None, "it has a job");
}

#[derive(Debug, Clone)]
struct Candidate {
    models: Vec<u8>,
    slots: u32,
    busy: u32,
    referred: Option<u8>,
    votes: u64,
    uptime_tenths: u8,
    duration_ms: u64,
}

fn candidate() -> impl Strategy<Value = Candidate> {
    (
        prop::collection::btree_set(0u8..3, 1..3),
        any::<bool>(),
        (1u32..4, 0u32..3),
        prop::option::of(0u8..2),
        (0u64..40, 0u8..=10),
        1u64..2000,
    )
        .prop_map(|(models, reverse, (slots, busy), referred, (votes, uptime_tenths), ms)| {
            let mut models: Vec<u8> = models.into_iter().collect();
            if reverse {
                models.reverse();
            }
            Candidate { models, slots, busy, referred, votes, uptime_tenths, duration_ms: ms }
        })
}

proptest! {
    /// With the sample of all, the chosen node is the first of all eligible ones by the five keys, as
    /// a brute force over them finds it; with a smaller one, the first of the sample.
    #[test]
    fn the_chosen_node_is_the_best_of_the_sample(
        nodes in prop::collection::vec(candidate(), 1..40),
        asked in prop::option::of(0u8..2),
        failed in prop::collection::btree_set(0u8..40, 0..6),
        most in prop::option::of(1usize..6),
        seed: u64,
    ) {
        let sample = most.and_then(NonZeroUsize::new).map_or(Sample::All, Sample::BestOf);
        let mut router = Router::new(sample, BTreeMap::new());
        for (n, it) in (0u8..).zip(&nodes) {
            let models = it.models.iter().map(|m| model(&format!("m{m}"))).collect();
            let standing = Standing {
                memory_bytes: 0,
                referred_by: it.referred.map(frontend),
                votes: it.votes,
                uptime_tenths: it.uptime_tenths,
                class: String::new(),
                scores: false,
            };
            router.set_node(&node(n), models, it.slots, it.busy, standing);
            router.timed(&node(n), &model("m0"), 1000, it.duration_ms, false);
        }
        router.band_all();
        let tried: Vec<NodeId> = failed.iter().map(|n| node(*n)).collect();
        let frontend = asked.map(frontend);
        let job = Waiting { model: model("m0"), frontend, tried: tried.clone(), ..waiting(1) };
        // Brute force: every free node that serves the model, by the whole order.
        let free = |n: &NodeId| {
            let node = &router.nodes[n];
            node.busy < node.slots && node.models.contains(&model("m0"))
        };
        let eligible: Vec<NodeId> =
            router.nodes.keys().filter(|n| free(n) && !tried.contains(n)).cloned().collect();
        let group = |n: &NodeId| {
            let node = &router.nodes[n];
            let warm = node.models[0] == model("m0");
            let referred = asked.is_some() && node.standing.referred_by == job.frontend;
            (!warm, !referred)
        };
        let key = |n: &NodeId| (group(n), router.nodes[n].rank(n, &model("m0")).6.clone());
        let best = eligible.iter().min_by(|a, b| {
            let (of_a, of_b) = (&router.nodes[*a], &router.nodes[*b]);
            group(a).cmp(&group(b)).then_with(|| {
                of_a.rank(a, &model("m0")).cmp(&of_b.rank(b, &model("m0")))
            })
        }).cloned();
        let mut rng = StdRng::seed_from_u64(seed);
        let mut same = rng.clone();
        let placed = router.free.get(&model("m0")).and_then(|free| {
            nodes::place(&router.nodes, free, &job, 0, &router.conduct, sample, &mut rng)
        });
        match (&placed, &best) {
            (Some(chosen), Some(best)) if sample == Sample::All => {
                prop_assert_eq!(chosen, best, "{:?} {:?}", key(chosen), key(best));
            }
            (Some(chosen), Some(best)) => {
                prop_assert_eq!(group(chosen), group(best), "the first two keys look at all");
                // The same draw again: nobody in it is better.
                let free = &router.free[&model("m0")];
                let allowed = |n: &NodeId| !tried.contains(n);
                let drawn = free.groups(job.frontend.as_ref()).find_map(|ids| {
                    let drawn = ids.sample(sample, allowed, &mut same);
                    (!drawn.is_empty()).then_some(drawn)
                }).expect("somebody was chosen");
                let first = drawn.into_iter().min_by(|a, b| {
                    let (of_a, of_b) = (&router.nodes[*a], &router.nodes[*b]);
                    of_a.rank(a, &model("m0")).cmp(&of_b.rank(b, &model("m0")))
                });
                prop_assert_eq!(Some(chosen), first);
            }
            (Some(chosen), None) => {
                // Only those that failed at it are left, and no other serves the model at all.
                prop_assert!(tried.contains(chosen));
                prop_assert!(!router.serves_besides(&model("m0"), &tried));
            }
            (None, best) => prop_assert_eq!(best, &None),
        }
    }
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
                    router.set_node(&node(n), models, s, busy(&held, n), Standing::default());
                    nodes.insert(n, (set, s));
                }
                Step::Leave(n) => {
                    router.remove_node(&node(n));
                    nodes.remove(&n);
                }
                Step::Next => match router.next(&mut rng) {
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
                        router.lease_ended(&id);
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
        router.set_node(&node(n), vec![model("a")], 1, 0, Standing::default());
        for _ in 0..20 {
            router.timed(&node(n), &model("a"), 100, 1000, false);
        }
    }
    // Once it had the card for itself.
    router.timed(&node(1), &model("a"), 300, 1000, false);
    router.timed(&node(1), &model("a"), 100, 1000, false);
    router.band_all();
    let fastest = router.fastest(&model("a")).expect("several serve it");
    assert!((290.0..=300.0).contains(&fastest), "{fastest}");
    router.timed(&node(2), &model("a"), 5000, 1000, true);
    router.band_all();
    let fastest = router.fastest(&model("a")).expect("several serve it");
    assert!(fastest < 1200.0, "{fastest}");
}

/// A node of 24 GB that has a small model loaded and a large one on disk, and takes four jobs at once.
fn with_large() -> Router {
    let needs = [(model("small"), 4 << 30), (model("large"), 20 << 30)];
    let mut router = Router::new(Sample::All, needs.into_iter().collect());
    let standing = Standing { memory_bytes: 24 << 30, ..Standing::default() };
    router.set_node(&node(1), vec![model("small"), model("large")], 4, 0, standing);
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
        while let Some((given, _)) = router.next(&mut rng) {
            if given == job(0) {
                return Some(n);
            }
        }
        // Every few of them one ends.
        if n % 3 == 0 {
            router.lease_ended(&node(1));
        }
    }
    None
}

#[test]
fn a_large_job_gets_a_node_that_is_held_free_for_it() {
    let mut router = with_large();
    router.enqueue(on("large", 0));
    // Nothing is in its way yet.
    assert_eq!(router.next(&mut rng()), Some((job(0), node(1))));
    let mut router = with_large();
    router.enqueue(on("small", 1));
    assert!(router.next(&mut rng()).is_some());
    router.enqueue(on("large", 0));
    assert_eq!(begun_after(&mut router), None, "small ones are always faster");
    assert_eq!(router.reserve(&model("small"), |_| true), None, "it fits beside others");
    assert_eq!(router.reserve(&model("large"), |_| false), None);
    assert_eq!(router.reserve(&model("large"), |_| true), Some(node(1)));
    assert_eq!(router.reserve(&model("large"), |_| true), None, "one at a time");
    let begun = begun_after(&mut router).expect("it is begun");
    assert!(begun <= 20, "the four that run end first: {begun}");
    assert_eq!(router.reserved(&node(1)), None, "that is what it was held for");
}

#[test]
fn a_node_that_is_held_free_in_vain_is_let_go() {
    let mut router = with_large();
    router.enqueue(on("small", 1));
    assert!(router.next(&mut rng()).is_some());
    router.enqueue(on("large", 0));
    router.reserve(&model("large"), |_| true).expect("it can");
    router.enqueue(on("small", 2));
    assert_eq!(router.next(&mut rng()), None, "it has a slot, and is held");
    router.unreserve(&node(1));
    assert_eq!(router.next(&mut rng()), Some((job(2), node(1))));
}
