//! A million random steps: the machine and the model agree, and nothing it says contradicts
//! anything else it says.

use std::time::Instant;

use neurino_control::{
    Action, Cause, Control, Decision, Foreground, HISTORY_MAX, Hour, JobDevice, Order, Program,
    Rules, Saved, State, Week, When, Why, Wish,
};
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::model::{Model, Said};
use crate::world::World;

const STEPS: u32 = 1_000_000;
const NAMES: [&str; 5] = ["doom", "quake", "blender", "firefox", "vlc"];

#[test]
fn a_million_steps_without_a_contradiction() {
    let begin = Instant::now();
    let mut random = ChaCha8Rng::seed_from_u64(20_261_122);
    let mut world = World::at_hour(9);
    let mut rules = Rules::default();
    let (mut control, mut model) = machines(&rules, &world);
    let mut seen = std::collections::BTreeMap::new();
    for step in 0..STEPS {
        match random.random_range(0..100) {
            0..8 => {
                let order = order(&mut random);
                control.order(order, &world.facts());
                model.ordered(order, &rules, &world);
            }
            8 => {
                let new = random_rules(&mut random, &rules);
                model.rules_changed(&rules, &new, &world);
                rules = new;
                control.set_rules(rules.clone(), &world.facts());
            }
            9 if random.random_bool(0.05) => restart(&mut control, &mut model, &rules, &world),
            _ => {
                change(&mut random, &mut world);
                control.observe(&world.facts());
                model.passed(&rules, &world);
            }
        }
        let decision = control.decision();
        agree(decision, &model, &rules, &world, step);
        consistent(decision, &world, step);
        let in_use = world.idle_secs.is_some_and(|secs| secs / 60 < rules.gentle_minutes);
        let gentle = rules.gentle && in_use && decision.action != Action::HandBack;
        assert_eq!(decision.gentle, gentle, "step {step}: {decision:?}");
        if step % 16 == 0 {
            promises(&control, &world, step);
        }
        *seen.entry(format!("{:?} {}", decision.state, kind(&decision.why))).or_insert(0) += 1;
        // The miner does what it is told, a step later.
        world.mining = match decision.action {
            Action::Run | Action::TakeNoJobs => true,
            Action::FinishThenStop => world.mining && random.random_bool(0.8),
            Action::HandBack => false,
        };
    }
    eprintln!("{STEPS} steps in {:?}: {seen:#?}", begin.elapsed());
    assert!(seen.len() >= 14, "the walk has seen the states: {seen:?}");
}

fn machines(rules: &Rules, world: &World) -> (Control, Model) {
    let mut model = Model::new();
    model.passed(rules, world);
    (Control::new(rules.clone(), Saved::default(), &world.facts()), model)
}

/// The program ends without a word and starts again.
fn restart(control: &mut Control, model: &mut Model, rules: &Rules, world: &World) {
    let saved = control.saved();
    let (was, running) = (model.said, saved.running);
    *control = Control::new(rules.clone(), saved, &world.facts());
    model.restarted();
    model.crashed = running && was == Said::Mine;
    model.passed(rules, world);
}

fn order(random: &mut ChaCha8Rng) -> Order {
    match random.random_range(0..12) {
        0..5 => Order::Start,
        5 => Order::Stop,
        6 => Order::Finish,
        7 => Order::Snooze { minutes: Some(15) },
        8 => Order::Snooze { minutes: Some(60) },
        9 => Order::Snooze { minutes: None },
        _ => Order::FollowRules,
    }
}

fn change(random: &mut ChaCha8Rng, world: &mut World) {
    world.now_ms += match random.random_range(0..200) {
        0 => -random.random_range(0..3_600_000),
        1 => random.random_range(0..48 * 3_600_000),
        2..20 => random.random_range(0..600_000),
        _ => random.random_range(500..2_500),
    };
    let maybe =
        |random: &mut ChaCha8Rng| [None, Some(false), Some(true)][random.random_range(0..3)];
    match random.random_range(0..24) {
        0 => (world.on_battery, world.other_user) = (maybe(random), maybe(random)),
        1 => {
            (world.metered, world.updating) = (maybe(random), random.random_bool(0.2));
            world.moving = random.random_bool(0.1);
        }
        2..4 => world.card_c = random.random_bool(0.9).then(|| random.random_range(55..100)),
        4..7 => {
            world.idle_secs = match random.random_range(0..8) {
                0 => None,
                1..4 => Some(random.random_range(0..900)),
                _ => Some(random.random_range(0..40)),
            }
        }
        7 => {
            world.device = *[JobDevice::Cpu, JobDevice::Gpu].choose(random).unwrap();
        }
        8..11 => {
            world.programs = random.random_bool(0.95).then(|| {
                let mut names = NAMES.to_vec();
                names.retain(|_| random.random_bool(0.25));
                let library = random.random_bool(0.5);
                let program = |name: &&str| Program {
                    name: (*name).into(),
                    in_library: library && *name == "doom",
                };
                names.iter().map(program).collect()
            });
        }
        11..14 => {
            world.foreground = random.random_bool(0.5).then(|| Foreground {
                program: (*NAMES.choose(random).unwrap()).into(),
                full_screen: random.random_bool(0.3),
                card_load_percent: random.random_bool(0.5).then(|| random.random_range(0..60)),
            });
        }
        _ => world.idle_secs = world.idle_secs.map(|secs| secs + 2),
    }
}

fn random_rules(random: &mut ChaCha8Rng, old: &Rules) -> Rules {
    let list = |random: &mut ChaCha8Rng| {
        let mut names: Vec<String> = NAMES.iter().map(|&name| name.into()).collect();
        names.retain(|_| random.random_bool(0.15));
        names
    };
    let mut rules = old.clone();
    match random.random_range(0..8) {
        0 => {
            let whens = [When::Always, When::Away, When::Schedule, When::AwayOnSchedule];
            rules.when = *whens.choose(random).unwrap();
        }
        1 => rules.idle_minutes = random.random_range(1..=10),
        2 => rules.stop_on_return = random.random(),
        3 => {
            let hours = [Hour::Never, Hour::Mine, Hour::Cheap];
            rules.week = Week::new(std::array::from_fn(|_| {
                std::array::from_fn(|_| *hours.choose(random).unwrap())
            }));
            rules.cheap_only = random.random();
        }
        4 => (rules.pause_on_battery, rules.pause_on_metered) = (random.random(), random.random()),
        5 => {
            rules.pause_when_hot = random.random();
            (rules.gentle, rules.gentle_minutes) = (random.random(), random.random_range(1..10));
        }
        6 => {
            (rules.games, rules.not_games) = (list(random), list(random));
            (rules.exclusive_cpu, rules.exclusive_gpu) = (list(random), list(random));
        }
        _ => {
            rules.game_guard = random.random_bool(0.8);
            rules.guard_full_screen = random.random();
            rules.guard_card_load = random.random();
            rules.guard_libraries = random.random();
            rules.cool_down_secs = *[0, 30, 180].choose(random).unwrap();
        }
    }
    rules.checked().unwrap()
}

/// State, action and reason are those of the model.
fn agree(decision: &Decision, model: &Model, rules: &Rules, world: &World, step: u32) {
    let counting = model.counting(rules, world);
    let strictest = counting.values().copied().max().unwrap_or(0);
    let (state, action) = match model.said {
        Said::Nothing => (State::Stopped, 3),
        Said::Pause(_) => (State::Snoozed, 3),
        Said::Finish => (State::Finishing, 2),
        Said::Mine => match strictest {
            0 => (State::Running, 0),
            1 => (State::Cooling, 1),
            2 if world.mining => (State::Finishing, 2),
            strictness => (State::Paused, strictness),
        },
    };
    let context = || format!("step {step}: {decision:?}\n{model:?}\n{world:?}\n{rules:?}");
    assert_eq!(decision.state, state, "{}", context());
    assert_eq!(decision.action as u8, action, "{}", context());
    match &decision.why {
        Why::Rule { cause } => {
            assert_eq!(counting.get(&reason(cause)), Some(&action), "{}", context());
        }
        Why::Free => assert!(counting.is_empty() && model.said == Said::Mine, "{}", context()),
        Why::Person => assert_eq!(model.said, Said::Nothing, "{}", context()),
        Why::PersonFinishes => assert_eq!(model.said, Said::Finish, "{}", context()),
        Why::Snooze => assert_eq!(Said::Pause(decision.until_ms), model.said, "{}", context()),
    }
    let anyway = state == State::Running && model.sets_aside();
    assert_eq!(decision.aside.is_some(), anyway, "{}", context());
}

/// The name the model has for a cause.
fn reason(cause: &Cause) -> String {
    match cause {
        Cause::Crash => "crash".into(),
        Cause::Game { program, .. } => format!("game {program}"),
        Cause::CoolDown { program } => format!("cool {program}"),
        Cause::Exclusive { program, .. } => format!("exclusive {program}"),
        Cause::OtherUser => "other_user".into(),
        Cause::Battery => "battery".into(),
        Cause::Hot { .. } => "hot".into(),
        Cause::InUse { .. } | Cause::AwayUnknown => "away".into(),
        Cause::Schedule { .. } => "schedule".into(),
        Cause::Metered => "metered".into(),
        Cause::Update => "update".into(),
        Cause::Moving => "moving".into(),
    }
}

fn kind(why: &Why) -> String {
    match why {
        Why::Rule { cause } => reason(cause).split(' ').next().unwrap().to_owned(),
        other => format!("{other:?}"),
    }
}

/// The sentence says what the state and the action are, and what holds.
fn consistent(decision: &Decision, world: &World, step: u32) {
    let Decision { state, action, sentence, .. } = decision;
    let context = || format!("step {step}: {decision:?}");
    let begins = match state {
        State::Stopped => "Not mining.",
        State::Running => "Mining.",
        State::Cooling => "Cooling down, no new jobs:",
        State::Finishing => "Finishing the running job, then ",
        State::Paused => "Paused: ",
        State::Snoozed => "Paused by you until ",
    };
    assert!(sentence.starts_with(begins) && sentence.ends_with('.'), "{}", context());
    let allowed: &[Action] = match state {
        State::Running => &[Action::Run],
        State::Cooling => &[Action::TakeNoJobs],
        State::Finishing => &[Action::FinishThenStop],
        // A mild rule found nothing running.
        State::Paused => &[Action::FinishThenStop, Action::HandBack],
        State::Stopped | State::Snoozed => &[Action::HandBack],
    };
    assert!(allowed.contains(action), "{}", context());
    assert!(
        *state != State::Paused || *action == Action::HandBack || !world.mining,
        "{}",
        context()
    );
    if let Why::Rule { cause } = &decision.why {
        let word = match cause {
            Cause::Crash => "without a word",
            Cause::Game { program, .. }
            | Cause::CoolDown { program }
            | Cause::Exclusive { program, .. } => program,
            Cause::OtherUser => "another person",
            Cause::Battery => "battery",
            Cause::Hot { .. } => "°C",
            Cause::InUse { .. } => "you are using this machine",
            Cause::AwayUnknown => "does not tell",
            Cause::Schedule { cheap_only: false } => "schedule",
            Cause::Schedule { cheap_only: true } => "cheap",
            Cause::Metered => "metered",
            Cause::Update => "another version",
            Cause::Moving => "library",
        };
        assert!(sentence.contains(word), "{}", context());
        assert_eq!(decision.change, cause.section(), "{}", context());
    }
    let held = !matches!(decision.why, Why::Free | Why::Person | Why::PersonFinishes);
    assert_eq!(decision.resume.is_some(), held && !world.moving, "{}", context());
    assert!(decision.until_ms.is_none_or(|until| held && until > world.now_ms), "{}", context());
}

/// What it offers and announces comes true.
fn promises(control: &Control, world: &World, step: u32) {
    let decision = control.decision();
    let context = || format!("step {step}: {decision:?}");
    let mut started = control.clone();
    let after = started.order(Order::Start, &world.facts()).clone();
    let starts = if world.moving { Action::FinishThenStop } else { Action::Run };
    assert_eq!(after.action, starts, "{}\n{after:?}", context());
    let offered = decision.resume.as_deref().and_then(|text| text.split_once("sets aside "));
    if let Some((_, what)) = offered {
        let aside = after.aside.as_deref().unwrap_or_default();
        assert!(aside.ends_with(what), "{}\n{after:?}", context());
    }
    let mut stopped = control.clone();
    assert_eq!(stopped.order(Order::Stop, &world.facts()).state, State::Stopped);
    // A manual stop wins over every rule until it is undone.
    let mut later = world.clone();
    (later.idle_secs, later.mining) = (Some(10_000), false);
    later.pass_secs(3600);
    assert_eq!(stopped.observe(&later.facts()).state, State::Stopped);
    if let Some(until_ms) = decision.until_ms {
        let mut then = world.clone();
        let mut waiting = control.clone();
        then.now_ms = until_ms - 1;
        let before = waiting.observe(&then.facts()).clone();
        // On the way a game may have cooled down, a schedule opened: the last cause ends then.
        assert_ne!(before.action, Action::Run, "{}\n{before:?}", context());
        then.now_ms = until_ms;
        let after = waiting.observe(&then.facts());
        assert_ne!(after.why, decision.why, "{}", context());
    }
    if let Some(cause) = control.in_the_way() {
        let word = reason(cause);
        let kinds = ["game", "cool", "exclusive", "other_user", "metered"];
        assert!(kinds.contains(&word.split(' ').next().unwrap()), "{}", context());
        assert_ne!(decision.action, Action::Run, "{}", context());
        // Who sets everything aside wants downloads as well.
        assert_eq!(started.in_the_way(), None, "{}", context());
    }
    let saved = control.saved();
    let stays_away = matches!(decision.state, State::Stopped | State::Paused | State::Snoozed);
    assert_eq!(saved.running, !stays_away, "{}", context());
    assert!(saved.history.len() <= HISTORY_MAX);
    assert_eq!(saved.history.back().unwrap().state, decision.state, "{}", context());
    if control.wish() == Wish::Off {
        assert_eq!(decision.action, Action::HandBack);
    }
}
