//! What a person meets, told case by case.

use neurino_control::{
    Action, Control, Foreground, JobDevice, Order, Rules, Saved, Section, State, When, Wish,
};

use crate::world::World;

fn machine(rules: Rules, world: &World) -> Control {
    Control::new(rules, Saved::default(), &world.facts())
}

fn check(control: &mut Control, world: &World, state: State, action: Action, sentence: &str) {
    let decision = control.observe(&world.facts());
    assert_eq!((decision.state, decision.action), (state, action), "{decision:?}");
    assert_eq!(decision.sentence, sentence);
}

const GAME: &str = "/games/steamapps/common/DOOM/doom";

#[test]
fn a_game_hands_back_and_the_cool_down_resumes() {
    let mut world = World::at_hour(20);
    let mut control = machine(Rules::default(), &world);
    assert_eq!(control.order(Order::Start, &world.facts()).action, Action::Run);
    world.run_program(GAME);
    let text = "Paused: doom is running. Resumes 3 min after it is gone.";
    check(&mut control, &world, State::Paused, Action::HandBack, text);
    assert_eq!(control.decision().change, Some(Section::Games));
    world.pass_secs(3600);
    control.observe(&world.facts());
    world.end_program("doom");
    world.pass_secs(2);
    let text = "Paused: doom was running a moment ago. Resumes at 21:03.";
    check(&mut control, &world, State::Paused, Action::HandBack, text);
    assert_eq!(control.decision().until_ms, Some(world.now_ms + 178_000));
    world.pass_secs(177);
    assert_eq!(control.observe(&world.facts()).state, State::Paused);
    world.pass_secs(1);
    check(&mut control, &world, State::Running, Action::Run, "Mining.");
}

#[test]
fn resume_anyway_sets_aside_this_game_alone() {
    let mut world = World::at_hour(20);
    let mut control = machine(Rules::default(), &world);
    control.order(Order::Start, &world.facts());
    world.run_program(GAME);
    let offer = control.observe(&world.facts()).resume.clone().unwrap();
    assert_eq!(
        offer,
        "Starts again at once and sets aside the game guard for doom, until it is gone."
    );
    let decision = control.order(Order::Start, &world.facts());
    assert_eq!(decision.action, Action::Run);
    let aside = "Your choice sets aside the game guard for doom, until it is gone.";
    assert_eq!(decision.aside.as_deref(), Some(aside));
    world.run_program("/games/steamapps/common/Quake/quake");
    assert_eq!(control.observe(&world.facts()).state, State::Paused, "another game counts");
    control.order(Order::FollowRules, &world.facts());
    world.end_program("quake");
    world.pass_secs(600);
    assert_eq!(control.observe(&world.facts()).state, State::Paused, "the choice is undone");
}

#[test]
fn a_manual_start_stays_though_the_person_leaves_and_returns() {
    let rules = Rules { when: When::Away, ..Rules::default() };
    let mut world = World::at_hour(9);
    let mut control = machine(rules, &world);
    let stopped = "Not mining. Your rules start nothing until you press Start.";
    check(&mut control, &world, State::Stopped, Action::HandBack, stopped);
    control.order(Order::FollowRules, &world.facts());
    let text =
        "Paused: you are using this machine. Resumes after 10 min without mouse and keyboard.";
    check(&mut control, &world, State::Paused, Action::HandBack, text);
    assert_eq!(control.order(Order::Start, &world.facts()).action, Action::Run);
    for idle in [900, 0, 900, 0] {
        world.idle_secs = Some(idle);
        world.pass_secs(900);
        assert_eq!(control.observe(&world.facts()).action, Action::Run);
    }
    assert_eq!(control.order(Order::FollowRules, &world.facts()).state, State::Paused);
}

#[test]
fn stopping_on_return_is_a_switch_of_its_own() {
    for (stop_on_return, expect) in [(true, State::Paused), (false, State::Running)] {
        let rules = Rules { when: When::Away, stop_on_return, ..Rules::default() };
        let mut world = World::at_hour(9);
        let mut control = machine(rules, &world);
        control.order(Order::FollowRules, &world.facts());
        world.idle_secs = Some(599);
        assert_eq!(control.observe(&world.facts()).state, State::Paused);
        world.idle_secs = Some(600);
        assert_eq!(control.observe(&world.facts()).state, State::Running);
        world.idle_secs = Some(0);
        assert_eq!(control.observe(&world.facts()).state, expect);
    }
}

#[test]
fn a_snooze_ends_by_itself_and_until_i_resume_does_not() {
    let mut world = World::at_hour(9);
    let mut control = machine(Rules::default(), &world);
    control.order(Order::Snooze { minutes: Some(15) }, &world.facts());
    assert_eq!(control.wish(), Wish::Off, "there is nothing to pause");
    control.order(Order::Start, &world.facts());
    control.order(Order::Snooze { minutes: Some(15) }, &world.facts());
    let text = "Paused by you until 09:15.";
    check(&mut control, &world, State::Snoozed, Action::HandBack, text);
    world.pass_secs(15 * 60);
    assert_eq!(control.observe(&world.facts()).state, State::Running);
    control.order(Order::Snooze { minutes: None }, &world.facts());
    world.pass_secs(7 * 86_400);
    let text = "Paused by you until you resume.";
    check(&mut control, &world, State::Snoozed, Action::HandBack, text);
    assert_eq!(control.order(Order::Start, &world.facts()).action, Action::Run);
}

#[test]
fn heat_is_a_pair_with_a_second_step() {
    let mut world = World::at_hour(9);
    let mut control = machine(Rules::default(), &world);
    control.order(Order::Start, &world.facts());
    world.mining = true;
    world.card_c = Some(88);
    let text = "Cooling down, no new jobs: the graphics card reached 88 °C. Resumes at 75 °C.";
    check(&mut control, &world, State::Cooling, Action::TakeNoJobs, text);
    world.card_c = Some(76);
    check(&mut control, &world, State::Cooling, Action::TakeNoJobs, text);
    world.card_c = Some(93);
    assert_eq!(control.observe(&world.facts()).action, Action::HandBack);
    world.card_c = Some(75);
    assert_eq!(control.observe(&world.facts()).action, Action::Run);
    (world.card_c, world.device) = (Some(99), JobDevice::Cpu);
    assert_eq!(control.observe(&world.facts()).action, Action::Run, "jobs are not on the card");
}

#[test]
fn a_schedule_lets_the_job_finish_and_says_when_it_goes_on() {
    let mut world = World::at_hour(5);
    let rules = Rules { when: When::Schedule, cheap_only: true, ..Rules::default() };
    let mut control = machine(rules, &world);
    control.order(Order::FollowRules, &world.facts());
    assert_eq!(control.observe(&world.facts()).action, Action::Run);
    world.mining = true;
    world.pass_secs(3600);
    let text = "Finishing the running job, then pausing: electricity is not cheap at this hour. \
                Resumes at 22:00.";
    check(&mut control, &world, State::Finishing, Action::FinishThenStop, text);
    world.mining = false;
    let text = "Paused: electricity is not cheap at this hour. Resumes at 22:00.";
    check(&mut control, &world, State::Paused, Action::FinishThenStop, text);
    world.on_battery = Some(true);
    let text = "Paused: this machine runs on its battery. Also, electricity is not cheap at this \
                hour.";
    check(&mut control, &world, State::Paused, Action::HandBack, text);
    assert_eq!(control.decision().until_ms, None, "nobody knows when mains power is back");
}

#[test]
fn exclusive_programs_count_for_the_device_that_computes() {
    let rules = Rules { exclusive_gpu: vec!["blender".into()], ..Rules::default() };
    let mut world = World::at_hour(9);
    world.run_program("/usr/bin/blender");
    let mut control = machine(rules, &world);
    control.order(Order::FollowRules, &world.facts());
    let text = "Paused: blender is running and has the graphics card for itself. Resumes when it \
                ends.";
    check(&mut control, &world, State::Paused, Action::HandBack, text);
    world.device = JobDevice::Cpu;
    assert_eq!(control.observe(&world.facts()).state, State::Running);
}

#[test]
fn what_is_no_game_is_left_alone() {
    let rules = Rules { not_games: vec!["vlc".into()], ..Rules::default() };
    let mut world = World::at_hour(9);
    let mut control = machine(rules, &world);
    control.order(Order::Start, &world.facts());
    let in_front = |program: &str| {
        Some(Foreground { program: program.into(), full_screen: true, card_load_percent: None })
    };
    world.foreground = in_front("vlc");
    assert_eq!(control.observe(&world.facts()).state, State::Running);
    world.foreground = in_front("mpv");
    let text = "Paused: mpv fills the screen. Resumes 3 min after it is gone.";
    check(&mut control, &world, State::Paused, Action::HandBack, text);
    let rules = Rules { not_games: vec!["mpv".into()], ..Rules::default() };
    world.pass_secs(1);
    assert_eq!(control.set_rules(rules, &world.facts()).state, State::Running, "at once");
}

#[test]
fn a_run_that_ended_without_a_word_waits_for_the_person() {
    let mut world = World::at_hour(9);
    let mut control = machine(Rules::default(), &world);
    control.order(Order::Start, &world.facts());
    let text = serde_json::to_string(&control.saved()).unwrap();
    let saved: Saved = serde_json::from_str(&text).unwrap();
    world.pass_secs(60);
    let mut again = Control::new(Rules::default(), saved, &world.facts());
    let text = "Paused: Neurino ended without a word while it was mining. Check that the machine \
                is well, then resume.";
    check(&mut again, &world, State::Paused, Action::HandBack, text);
    assert_eq!(again.order(Order::Start, &world.facts()).action, Action::Run);
    let clean = Saved { running: false, ..again.saved() };
    let again = Control::new(Rules::default(), clean, &world.facts());
    assert_eq!(again.decision().action, Action::Run, "what was on is on again");
}

#[test]
fn a_system_that_tells_nothing_pauses_for_nothing_but_says_what_it_cannot_do() {
    let mut world = World::at_hour(9);
    (world.idle_secs, world.on_battery, world.metered) = (None, None, None);
    (world.card_c, world.programs, world.foreground) = (None, None, None);
    let mut control = machine(Rules::default(), &world);
    assert_eq!(control.order(Order::Start, &world.facts()).action, Action::Run);
    let rules = Rules { when: When::Away, ..Rules::default() };
    let decision = control.set_rules(rules, &world.facts());
    assert_eq!(
        decision.sentence,
        "Paused: this system does not tell whether you are away. Choose another rule in the \
         settings."
    );
}

#[test]
fn another_person_at_the_machine_holds_as_a_game_would() {
    let mut world = World::at_hour(12);
    let mut control = Control::new(Rules::default(), Saved::default(), &world.facts());
    assert_eq!(control.order(Order::FollowRules, &world.facts()).state, State::Running);
    world.other_user = Some(true);
    let decision = control.observe(&world.facts()).clone();
    assert_eq!((decision.state, decision.action), (State::Paused, Action::HandBack));
    let says = "Paused: another person is using this machine. Resumes when your session is in \
                front again.";
    assert_eq!(decision.sentence, says);
    assert_eq!(control.order(Order::Start, &world.facts()).state, State::Running);
    world.other_user = Some(false);
    control.observe(&world.facts());
    world.other_user = Some(true);
    assert_eq!(control.observe(&world.facts()).state, State::Paused, "they are there again");
    let free = Rules { game_guard: false, ..Rules::default() };
    assert_eq!(control.set_rules(free, &world.facts()).state, State::Running);
}

#[test]
fn a_pause_and_a_restart_keep_what_was_set_aside_for_good() {
    let mut world = World::at_hour(9);
    let rules = Rules { when: When::Schedule, cheap_only: true, ..Rules::default() };
    let mut control = machine(rules.clone(), &world);
    let aside = control.order(Order::Start, &world.facts()).aside.clone();
    assert_eq!(control.decision().action, Action::Run);
    control.order(Order::Snooze { minutes: Some(15) }, &world.facts());
    world.pass_secs(15 * 60);
    assert_eq!(control.observe(&world.facts()).action, Action::Run, "the pause was a pause");
    assert_eq!(control.decision().aside, aside);

    world.run_program(GAME);
    control.observe(&world.facts());
    control.order(Order::Start, &world.facts());
    let text = serde_json::to_string(&control.saved()).unwrap();
    let saved: Saved = serde_json::from_str(&text).unwrap();
    let saved = Saved { running: false, ..saved };
    let again = Control::new(rules.clone(), saved, &world.facts());
    let decision = again.decision();
    assert_eq!(decision.state, State::Paused, "a game is looked at anew: {decision:?}");
    world.end_program("doom");
    let mut again = Control::new(rules, again.saved(), &world.facts());
    assert_eq!(again.decision().action, Action::Run, "the schedule stays aside");
    again.order(Order::Stop, &world.facts());
    assert!(again.saved().aside.is_empty(), "a stop undoes the choice");
}

#[test]
fn a_library_that_moves_is_waited_for_also_by_who_presses_start() {
    let mut world = World::at_hour(9);
    let mut control = machine(Rules::default(), &world);
    world.moving = true;
    let text = "Paused: the library of models is moving to another folder. Resumes when it has \
                moved.";
    control.order(Order::Start, &world.facts());
    check(&mut control, &world, State::Paused, Action::FinishThenStop, text);
    assert_eq!(control.decision().resume, None, "there is no way around it");
    world.moving = false;
    check(&mut control, &world, State::Running, Action::Run, "Mining.");
}

#[test]
fn what_downloads_wait_for_is_known_though_mining_is_off() {
    let mut world = World::at_hour(9);
    let mut control = machine(Rules::default(), &world);
    assert_eq!(control.in_the_way(), None);
    world.run_program(GAME);
    assert_eq!(control.observe(&world.facts()).state, State::Stopped);
    let cause = control.in_the_way().unwrap().clone();
    assert_eq!(cause.seen().to_string(), "doom is running");
    world.end_program("doom");
    world.pass_secs(1);
    control.observe(&world.facts());
    assert!(control.in_the_way().is_some(), "the cool-down counts, too");
    world.pass_secs(180);
    world.metered = Some(true);
    control.observe(&world.facts());
    let cause = control.in_the_way().unwrap().clone();
    assert_eq!(cause.seen().to_string(), "the network is metered");
    control.order(Order::Start, &world.facts());
    assert_eq!(control.in_the_way(), None, "the person set it aside");
}
