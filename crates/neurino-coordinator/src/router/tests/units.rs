//! Nodes of several units, against a brute force over them.

use std::num::NonZeroUsize;

use neurino_core::UnitId;

use super::*;

const GIB: u64 = 1 << 30;

fn on_unit(n: u8, unit: u8) -> Place {
    Place::new(&node(n), Some(UnitId(unit)))
}

fn unit(id: u8, kind: UnitKind, models: &[&str], slots: u32) -> Announced {
    let models = models.iter().map(|m| model(m)).collect();
    Announced { id: Some(UnitId(id)), kind, ..Announced::node(models, slots, 0) }
}

fn whole(id: u8, card: u8, models: &[&str]) -> Announced {
    unit(id, UnitKind::Whole { card }, models, 1)
}

fn slice(id: u8, card: u8, models: &[&str]) -> Announced {
    let kind = UnitKind::Slice { card, share_ppm: 250_000 };
    Announced { memory_bytes: 24 * GIB, ..unit(id, kind, models, 2) }
}

fn units(router: &mut Router, n: u8, units: Vec<Announced>) {
    router.set_node(&node(n), units, Standing::default());
}

/// Models called by what they need.
fn needing() -> BTreeMap<ModelId, u64> {
    [4, 8, 12, 20, 40].into_iter().map(|gib| (model(&format!("g{gib}")), gib * GIB)).collect()
}

fn wants(n: u16, name: &str) -> Waiting {
    Waiting { model: model(name), ..waiting(n) }
}

fn next(router: &mut Router) -> Option<(JobId, Place)> {
    router.next(&mut rng()).map(|(waiting, place)| (waiting.job, place))
}

#[test]
fn two_cards_take_jobs_of_their_own_models_and_no_more_than_their_slots() {
    let mut router = Router::default();
    units(&mut router, 1, vec![whole(0, 0, &["a", "b"]), whole(1, 1, &["b"])]);
    for n in 0..4 {
        router.enqueue(wants(n, "b"));
    }
    assert_eq!(next(&mut router), Some((job(0), on_unit(1, 1))), "it has the model loaded");
    assert_eq!(next(&mut router), Some((job(1), on_unit(1, 0))));
    assert_eq!(next(&mut router), None, "both are full");
    router.enqueue(waiting(9));
    router.lease_ended(&on_unit(1, 1), &model("b"));
    assert_eq!(next(&mut router), Some((job(2), on_unit(1, 1))));
    router.lease_ended(&on_unit(1, 0), &model("b"));
    let (last, place) = next(&mut router).expect("the first card is free");
    assert!(last == job(3) || last == job(9));
    assert_eq!(place, on_unit(1, 0));
    assert_eq!(router.serving(&model("b")), 1, "nodes are counted, not cards");
}

#[test]
fn a_group_and_its_cards_never_work_at_once_and_a_large_job_is_not_starved() {
    let mut router = Router::new(Sample::All, needing());
    let group = UnitKind::Group { cards: vec![0, 1] };
    let group = Announced { memory_bytes: 48 * GIB, ..unit(2, group, &["g40"], 1) };
    let cards = vec![whole(0, 0, &["g4"]), whole(1, 1, &["g4"]), group];
    units(&mut router, 1, cards);
    router.enqueue(wants(0, "g40"));
    router.enqueue(wants(1, "g4"));
    assert_eq!(next(&mut router), Some((job(0), on_unit(1, 2))));
    assert_eq!(next(&mut router), None, "its cards are the group's now");
    router.lease_ended(&on_unit(1, 2), &model("g40"));
    assert_eq!(next(&mut router), Some((job(1), on_unit(1, 0))));
    router.enqueue(wants(2, "g40"));
    assert_eq!(next(&mut router), None, "one of its cards works");
    // The other card goes on and on, until the group is held free.
    router.enqueue(wants(3, "g4"));
    assert_eq!(next(&mut router), Some((job(3), on_unit(1, 1))));
    router.enqueue(wants(4, "g4"));
    assert_eq!(router.reserve(&model("g40"), |_| true), Some(on_unit(1, 2)));
    for card in [0, 1] {
        router.lease_ended(&on_unit(1, card), &model("g4"));
    }
    assert_eq!(next(&mut router), Some((job(2), on_unit(1, 2))));
    assert_eq!(next(&mut router), None);
    router.lease_ended(&on_unit(1, 2), &model("g40"));
    assert_eq!(next(&mut router).map(|(job, _)| job), Some(job(4)));
}

#[test]
fn a_card_is_preferred_to_a_group_that_would_take_two() {
    let mut router = Router::new(Sample::All, BTreeMap::new());
    let group = unit(0, UnitKind::Group { cards: vec![0, 1] }, &["a"], 1);
    units(&mut router, 1, vec![group, whole(1, 0, &["a"]), whole(2, 1, &["a"])]);
    router.enqueue(waiting(0));
    router.enqueue(waiting(1));
    assert_eq!(next(&mut router), Some((job(0), on_unit(1, 1))));
    assert_eq!(next(&mut router), Some((job(1), on_unit(1, 2))));
}

#[test]
fn slices_get_what_may_be_shared_and_no_more_than_their_card_holds() {
    let mut router = Router::new(Sample::All, needing());
    let all = ["g12", "g8", "g20"];
    units(&mut router, 1, vec![slice(0, 0, &all), slice(1, 0, &all), slice(2, 0, &all)]);
    router.enqueue(wants(0, "g12"));
    assert_eq!(next(&mut router), None, "nobody said that it may be");
    assert_eq!(router.serving(&model("g12")), 0);
    let told = router.no_job(&node(1)).map(|no| no.to_string());
    assert_eq!(told.as_deref(), Some("no job: 1 needs g12 on a card of its own"));
    router.set_shareable(all.iter().map(|name| model(name)).collect());
    assert_eq!(next(&mut router), Some((job(0), on_unit(1, 0))));
    router.enqueue(wants(1, "g20"));
    assert_eq!(next(&mut router), None, "12 and 20 are more than 24");
    router.enqueue(wants(2, "g8"));
    let (_, second) = next(&mut router).expect("12 and 8 are not");
    assert_ne!(second, on_unit(1, 0), "on a slice that is free");
    router.enqueue(wants(3, "g12"));
    assert_eq!(
        next(&mut router),
        Some((job(3), on_unit(1, 0))),
        "beside its own kind it takes no more"
    );
    router.lease_ended(&second, &model("g8"));
    router.lease_ended(&on_unit(1, 0), &model("g12"));
    assert_eq!(next(&mut router), None);
    router.lease_ended(&on_unit(1, 0), &model("g12"));
    assert_eq!(next(&mut router).map(|(job, _)| job), Some(job(1)));
    // What may not be shared any more is served no more.
    router.set_shareable(BTreeSet::new());
    router.enqueue(wants(4, "g8"));
    assert_eq!((next(&mut router), router.serving(&model("g8"))), (None, 0));
}

#[test]
fn a_large_job_has_the_slices_of_a_card_held_free() {
    let mut router = Router::new(Sample::All, needing());
    router.set_shareable(needing().into_keys().collect());
    let all = ["g8", "g20"];
    units(&mut router, 1, vec![slice(0, 0, &all), slice(1, 0, &all)]);
    router.enqueue(wants(0, "g8"));
    let (_, busy) = next(&mut router).expect("free");
    router.enqueue(wants(1, "g20"));
    router.enqueue(wants(2, "g8"));
    router.reserve(&model("g20"), |_| true).expect("one of them can");
    assert_eq!(next(&mut router), None, "small ones wait");
    router.lease_ended(&busy, &model("g8"));
    assert_eq!(next(&mut router).map(|(job, _)| job), Some(job(1)));
}

#[test]
fn a_unit_that_serves_a_model_no_more_holds_nothing_free_for_it() {
    let mut router = Router::default();
    let group = |models: &[&str]| unit(2, UnitKind::Group { cards: vec![0, 1] }, models, 1);
    let cards = |models: &[&str]| vec![whole(0, 0, &["a"]), whole(1, 1, &["b"]), group(models)];
    units(&mut router, 1, cards(&["b"]));
    router.enqueue(waiting(0));
    assert_eq!(next(&mut router), Some((job(0), on_unit(1, 0))));
    router.reserve(&model("b"), |_| true).expect("the group is not free");
    router.enqueue(wants(1, "b"));
    assert_eq!(next(&mut router), None, "the group is waited for");
    let busy = Announced { running: vec![model("a")], ..whole(0, 0, &["a"]) };
    let again = vec![busy, whole(1, 1, &["b"]), group(&["a"])];
    units(&mut router, 1, again);
    assert_eq!(next(&mut router), Some((job(1), on_unit(1, 1))));
}

#[test]
fn a_lease_counts_for_its_unit_after_the_node_said_again_what_it_has() {
    let mut router = Router::default();
    let running = vec![model("b")];
    let second = || Announced { running: running.clone(), ..whole(1, 1, &["b"]) };
    units(&mut router, 1, vec![whole(0, 0, &["a", "b"]), second()]);
    router.enqueue(wants(0, "b"));
    router.enqueue(wants(1, "b"));
    assert_eq!(next(&mut router), Some((job(0), on_unit(1, 0))));
    assert_eq!(next(&mut router), None);
    // Another model is withheld: nothing changes about who is busy.
    router.withhold(&node(1), &model("a"), true);
    assert_eq!(next(&mut router), None);
    router.lease_ended(&on_unit(1, 1), &model("b"));
    assert_eq!(next(&mut router), Some((job(1), on_unit(1, 1))));
}

#[test]
fn speeds_are_of_units_and_one_machine_alone_sets_no_measure() {
    let mut router = Router::default();
    units(&mut router, 1, vec![whole(0, 0, &["a"]), whole(1, 1, &["a"])]);
    for _ in 0..9 {
        router.timed(&on_unit(1, 0), &model("a"), 100, 1000, false);
        router.timed(&on_unit(1, 1), &model("a"), 400, 1000, false);
    }
    router.band_all();
    assert_eq!(router.fastest(&model("a")), None);
    router.enqueue(waiting(0));
    assert_eq!(next(&mut router), Some((job(0), on_unit(1, 1))), "the faster card");
    set(&mut router, 2, &["a"], 1);
    router.timed(&at(2), &model("a"), 100, 1000, false);
    router.band_all();
    assert!(router.fastest(&model("a")).is_some_and(|fastest| fastest > 390.0));
}

#[derive(Debug, Clone)]
struct Candidate {
    models: Vec<u8>,
    slots: u32,
    running: Vec<u8>,
    duration_ms: u64,
}

/// What a node is made of.
#[derive(Debug, Clone)]
struct Machine {
    /// As one, two cards, a card and a group that has it, two instances, two slices.
    layout: u8,
    units: [Candidate; 2],
    referred: Option<u8>,
    votes: u64,
    uptime_tenths: u8,
}

fn candidate() -> impl Strategy<Value = Candidate> {
    let models = (prop::collection::btree_set(0u8..3, 1..3), any::<bool>());
    let running = prop::collection::vec(0u8..3, 0..3);
    (models, 1u32..4, running, 1u64..2000).prop_map(
        |((models, reverse), slots, running, duration_ms)| {
            let mut models: Vec<u8> = models.into_iter().collect();
            if reverse {
                models.reverse();
            }
            Candidate { models, slots, running, duration_ms }
        },
    )
}

fn machine() -> impl Strategy<Value = Machine> {
    let units = [candidate(), candidate()];
    (0u8..5, units, prop::option::of(0u8..2), 0u64..40, 0u8..=10).prop_map(
        |(layout, units, referred, votes, uptime_tenths)| Machine {
            layout,
            units,
            referred,
            votes,
            uptime_tenths,
        },
    )
}

/// Memory of a card, and what a model needs.
const CARD: u64 = 10;
const NEED: [u64; 3] = [6, 4, 3];

fn kinds(layout: u8) -> Vec<UnitKind> {
    match layout {
        0 => vec![UnitKind::Whole { card: 0 }],
        1 => vec![UnitKind::Whole { card: 0 }, UnitKind::Whole { card: 1 }],
        2 => vec![UnitKind::Whole { card: 0 }, UnitKind::Group { cards: vec![0, 1] }],
        3 => vec![UnitKind::Instance { card: 0 }; 2],
        _ => vec![UnitKind::Slice { card: 0, share_ppm: 500_000 }; 2],
    }
}

fn name(m: u8) -> ModelId {
    model(&format!("m{m}"))
}

fn place_of(n: u8, layout: u8, at: usize) -> Place {
    let unit = u8::try_from(at).expect("small");
    if layout == 0 { at_one(n) } else { on_unit(n, unit) }
}

fn at_one(n: u8) -> Place {
    Place::new(&node(n), None)
}

/// By what was drawn alone: whether a unit takes a job on the first model, which may be shared.
fn takes(machine: &Machine, at: usize) -> bool {
    let it = &machine.units[at];
    if it.running.len() >= it.slots as usize || !it.models.contains(&0) {
        return false;
    }
    let other = (machine.layout > 0).then(|| &machine.units[1 - at]);
    let need = |running: &[u8]| running.iter().map(|m| NEED[usize::from(*m)]).max().unwrap_or(0);
    // More than half of the memory is not begun beside other work, unless it is there.
    let memory = if machine.layout == 2 && at == 1 { 2 * CARD } else { CARD };
    let loaded = it.models[0] == 0;
    if !loaded && !it.running.is_empty() && 2 * NEED[0] > memory {
        return false;
    }
    match (machine.layout, other) {
        (2, Some(other)) => other.running.is_empty(),
        (4, Some(other)) => need(&other.running) + need(&it.running).max(NEED[0]) <= CARD,
        _ => true,
    }
}

proptest! {
    /// With the sample of all, the chosen unit is the first of all eligible ones by the five keys, as
    /// a brute force over them finds it; with a smaller one, the first of the sample.
    #[test]
    fn the_chosen_unit_is_the_best_of_the_sample(
        machines in prop::collection::vec(machine(), 1..30),
        asked in prop::option::of(0u8..2),
        failed in prop::collection::btree_set(0u8..30, 0..6),
        most in prop::option::of(1usize..6),
        seed: u64,
    ) {
        let sample = most.and_then(NonZeroUsize::new).map_or(Sample::All, Sample::BestOf);
        let needs = (0u8..3).map(|m| (name(m), NEED[usize::from(m)])).collect();
        let mut router = Router::new(sample, needs);
        router.set_shareable([name(0)].into());
        let mut places = Vec::new();
        for (n, it) in (0u8..).zip(&machines) {
            let standing = Standing {
                memory_bytes: CARD,
                referred_by: it.referred.map(frontend),
                votes: it.votes,
                uptime_tenths: it.uptime_tenths,
                ..Standing::default()
            };
            let kinds = kinds(it.layout).into_iter().enumerate();
            let units = kinds.map(|(at, kind)| {
                let drawn = &it.units[at];
                let memory_bytes = CARD * kind.cards().len() as u64;
                places.push((place_of(n, it.layout, at), n, at));
                Announced {
                    id: place_of(n, it.layout, at).unit,
                    kind,
                    memory_bytes,
                    class: None,
                    models: drawn.models.iter().map(|m| name(*m)).collect(),
                    slots: drawn.slots,
                    cold: false,
                    running: drawn.running.iter().map(|m| name(*m)).collect(),
                }
            });
            let units = units.collect();
            router.set_node(&node(n), units, standing);
        }
        for (place, n, at) in &places {
            let it = &machines[usize::from(*n)].units[*at];
            router.timed(place, &name(0), 1000, it.duration_ms, false);
        }
        router.band_all();
        let tried: Vec<NodeId> = failed.iter().map(|n| node(*n)).collect();
        let frontend = asked.map(frontend);
        let job = Waiting { model: name(0), frontend, tried: tried.clone(), ..waiting(1) };
        // Brute force: every free unit that serves the model, by the whole order.
        let drawn = |place: &Place| {
            let known = places.iter().find(|(known, ..)| known == place).expect("known");
            (&machines[usize::from(known.1)], known.2)
        };
        let group = |place: &Place| {
            let (machine, at) = drawn(place);
            let referred = asked.is_some() && machine.referred == asked;
            (machine.units[at].models[0] != 0, !referred)
        };
        let rank = |place: &Place| {
            let (_, at) = drawn(place);
            let unit = &router.nodes[&place.node].units[at];
            let rank = router.nodes[&place.node].rank(place, &name(0)).expect("known");
            // The last keys by hand.
            assert_eq!((rank.4.1, rank.5), (unit.busy, place));
            (rank.0, rank.1, rank.2, rank.3, rank.4, rank.5.clone())
        };
        let eligible = places.iter().filter(|(place, n, at)| {
            !tried.contains(&place.node) && takes(&machines[usize::from(*n)], *at)
        });
        let eligible: Vec<&Place> = eligible.map(|(place, ..)| place).collect();
        let best = eligible.iter().min_by_key(|place| (group(place), rank(place)));
        let mut rng = StdRng::seed_from_u64(seed);
        let mut same = rng.clone();
        let Router { nodes: all, needs, conduct, .. } = &router;
        let placed = router.free.get(&name(0)).and_then(|free| {
            nodes::place(all, free, &job, needs, conduct, sample, &mut rng)
        });
        match (&placed, best) {
            (Some(chosen), Some(best)) if sample == Sample::All => {
                prop_assert_eq!(&chosen, best, "{:?} {:?}", rank(chosen), rank(best));
            }
            (Some(chosen), Some(best)) => {
                prop_assert!(eligible.contains(&chosen), "{:?} is not eligible", chosen);
                prop_assert_eq!(group(chosen), group(best), "the first two keys look at all");
                // The same draw again: nobody in it is better.
                let free = &router.free[&name(0)];
                let allowed = |place: &Place| eligible.contains(&place);
                let drawn = free.groups(job.frontend.as_ref()).find_map(|places| {
                    let drawn = places.sample(sample, allowed, &mut same);
                    (!drawn.is_empty()).then_some(drawn)
                }).expect("somebody was chosen");
                let first = drawn.into_iter().min_by_key(|place| rank(place));
                prop_assert_eq!(Some(chosen), first);
            }
            (Some(chosen), None) => {
                // Only those that failed at it are left, and no other could take it, now or later.
                prop_assert!(tried.contains(&chosen.node));
                let (machine, at) = drawn(chosen);
                prop_assert!(takes(machine, at));
            }
            (None, best) => prop_assert!(best.is_none(), "{best:?} is free"),
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Enqueue(u16, u8),
    Announce(u8, u8, [(Vec<u8>, u32); 2]),
    Leave(u8),
    Withhold(u8, u8, bool),
    Share(u8),
    Reserve(u8),
    Unreserve,
    Next,
    End(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let unit = || (prop::collection::vec(0u8..3, 0..3), 0u32..3);
    prop_oneof![
        3 => (0u16..1000, 0u8..3).prop_map(|(job, model)| Step::Enqueue(job, model)),
        1 => (0u8..3, 0u8..5, [unit(), unit()]).prop_map(|(n, layout, units)| {
            Step::Announce(n, layout, units)
        }),
        1 => (0u8..3).prop_map(Step::Leave),
        1 => (0u8..3, 0u8..3, any::<bool>()).prop_map(|(n, m, on)| Step::Withhold(n, m, on)),
        1 => (0u8..8).prop_map(Step::Share),
        1 => (0u8..3).prop_map(Step::Reserve),
        1 => Just(Step::Unreserve),
        4 => Just(Step::Next),
        2 => (0usize..8).prop_map(Step::End),
    ]
}

proptest! {
    /// However units come, go and change: none has more jobs than its slots by what it was given since it
    /// said so, no card of slices holds more than its memory, units of one card are not given work beside
    /// each other, slices get only what may be shared, and what is counted is what is held.
    #[test]
    fn no_unit_is_overfilled(steps in prop::collection::vec(step(), 0..200), seed: u64) {
        let mut rng = StdRng::seed_from_u64(seed);
        let needs = (0u8..3).map(|m| (name(m), NEED[usize::from(m)])).collect();
        let mut router = Router::new(Sample::default(), needs);
        let mut known = BTreeMap::<u8, (u8, [(Vec<u8>, u32); 2])>::new();
        let mut held = Vec::<(Place, u8)>::new();
        let mut withheld = BTreeSet::<(u8, u8)>::new();
        let mut shareable = BTreeSet::<u8>::new();
        let mut jobs = BTreeMap::<JobId, u8>::new();
        let mut reserved = Vec::<Place>::new();
        for step in steps {
            match step {
                Step::Enqueue(j, m) => if let Entry::Vacant(free) = jobs.entry(job(j)) {
                    free.insert(m);
                    router.enqueue(Waiting { model: name(m), ..waiting(j) });
                },
                Step::Announce(n, layout, drawn) => {
                    // Its leases stay with it, as the state does it: on the same unit, or on the first.
                    let kinds = kinds(layout);
                    let mut running = vec![Vec::new(); kinds.len()];
                    for (place, m) in held.iter_mut().filter(|(place, _)| place.node == node(n)) {
                        let same = (0..kinds.len()).find(|at| place_of(n, layout, *at) == *place);
                        *place = place_of(n, layout, same.unwrap_or(0));
                        running[same.unwrap_or(0)].push(name(*m));
                    }
                    let units = kinds.into_iter().zip(running).enumerate().map(|(at, (kind, running))| {
                        Announced {
                            id: place_of(n, layout, at).unit,
                            memory_bytes: CARD * kind.cards().len() as u64,
                            kind,
                            class: None,
                            models: drawn[at].0.iter().map(|m| name(*m)).collect::<BTreeSet<_>>().into_iter().collect(),
                            slots: drawn[at].1,
                            cold: at % 2 == 1,
                            running,
                        }
                    });
                    let units = units.collect();
                    router.set_node(&node(n), units, Standing { memory_bytes: CARD, ..Standing::default() });
                    known.insert(n, (layout, drawn));
                }
                Step::Leave(n) => {
                    router.remove_node(&node(n));
                    known.remove(&n);
                }
                Step::Withhold(n, m, on) => {
                    router.withhold(&node(n), &name(m), on);
                    if on { withheld.insert((n, m)) } else { withheld.remove(&(n, m)) };
                }
                Step::Share(bits) => {
                    shareable = (0..3).filter(|m| bits & (1 << m) != 0).collect();
                    router.set_shareable(shareable.iter().map(|m| name(*m)).collect());
                }
                Step::Reserve(m) => reserved.extend(router.reserve(&name(m), |_| true)),
                Step::Unreserve => for place in reserved.drain(..) {
                    router.unreserve(&place);
                },
                Step::Next => match router.next(&mut rng) {
                    Some((given, place)) => {
                        let m = jobs.remove(&given.job).expect("it waited");
                        let n = (0..3).find(|n| node(*n) == place.node).expect("known");
                        let (layout, drawn) = &known[&n];
                        let at = (0..2).find(|at| place_of(n, *layout, *at) == place).expect("known");
                        let of = |at: usize| {
                            let place = place_of(n, *layout, at);
                            held.iter().filter(move |(held, _)| *held == place).map(|(_, m)| *m).collect::<Vec<u8>>()
                        };
                        let (own, other) = (of(at), of(1 - at));
                        prop_assert!(own.len() < drawn[at].1 as usize, "a slot too many");
                        prop_assert!(drawn[at].0.contains(&m) && !withheld.contains(&(n, m)));
                        let need = |all: &[u8]| all.iter().map(|m| NEED[usize::from(*m)]).max().unwrap_or(0);
                        match layout {
                            2 => prop_assert!(other.is_empty(), "its card is the other's"),
                            4 => {
                                prop_assert!(shareable.contains(&m));
                                let own = need(&own).max(NEED[usize::from(m)]);
                                prop_assert!(own + need(&other) <= CARD);
                            }
                            _ => {}
                        }
                        held.push((place, m));
                    }
                    None if reserved.is_empty() => for (waits, m) in &jobs {
                        // Nothing waits beside a unit that has nothing to do, in a machine that has not.
                        let idle = known.iter().any(|(n, (layout, drawn))| {
                            let idle = !held.iter().any(|(place, _)| place.node == node(*n));
                            let share = *layout < 4 || shareable.contains(m);
                            let count = kinds(*layout).len();
                            idle && share && !withheld.contains(&(*n, *m))
                                && drawn[..count].iter().any(|(models, slots)| *slots > 0 && models.contains(m))
                        });
                        prop_assert!(!idle, "{waits} waits beside an idle machine");
                    },
                    None => {}
                },
                Step::End(at) if !held.is_empty() => {
                    let (place, m) = held.swap_remove(at % held.len());
                    router.lease_ended(&place, &name(m));
                }
                Step::End(_) => {}
            }
            // What is counted is what is held.
            for (n, (layout, _)) in &known {
                for (at, unit) in router.nodes[&node(*n)].units.iter().enumerate() {
                    let place = place_of(*n, *layout, at);
                    let of = held.iter().filter(|(held, _)| *held == place).count();
                    prop_assert_eq!((unit.busy as usize, unit.running.values().sum::<u32>() as usize), (of, of));
                }
            }
            let slots = router.units_by_kind().values().map(|kind| kind.busy).sum::<usize>();
            let connected = |place: &Place| known.keys().any(|n| node(*n) == place.node);
            prop_assert_eq!(slots, held.iter().filter(|(place, _)| connected(place)).count());
        }
    }
}
