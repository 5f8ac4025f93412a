//! A week of a gamer's life, second by second.

use std::time::Instant;

use neurino_control::{Action, Control, Foreground, Order, Rules, Saved, State, When};

use crate::world::{MONDAY_MS, World};

const WEEK_SECS: i64 = 7 * 24 * 3600;
const GAME: &str = "/home/ada/.steam/steamapps/common/Portal 2/portal2_linux";

/// Whether the person sits at the machine, and whether they play, at this second of the week.
fn life(second: i64) -> (bool, bool) {
    let (day, hour) = (second / 86_400, second % 86_400 / 3600);
    let weekend = day >= 5;
    let there = if weekend { (10..24).contains(&hour) } else { (18..23).contains(&hour) };
    (there, there && (20..22).contains(&hour))
}

/// Lives the week; returns the seconds mined and the decisions made.
fn live(rules: Rules) -> (i64, usize) {
    let mut world = World::at_hour(0);
    let mut control = Control::new(rules, Saved::default(), &world.facts());
    control.order(Order::FollowRules, &world.facts());
    let (mut mined, mut decisions, mut handed_back) = (0, 0, 0);
    let mut last = State::Stopped;
    let mut playing = false;
    let begin = Instant::now();
    for second in 0..WEEK_SECS {
        world.now_ms = MONDAY_MS + second * 1000;
        let (there, plays) = life(second);
        world.idle_secs = Some(if there { 0 } else { world.idle_secs.unwrap_or(0) + 1 });
        if plays != playing {
            playing = plays;
            if plays {
                world.run_program(GAME);
            } else {
                world.end_program("portal2_linux");
            }
        }
        // Every tenth minute the game is left for the browser for a while.
        world.foreground = (plays && second % 600 > 60).then(|| Foreground {
            program: "portal2_linux".into(),
            full_screen: true,
            card_load_percent: Some(90),
        });
        let decision = control.observe(&world.facts());
        assert!(!plays || decision.action == Action::HandBack, "not a frame: {decision:?}");
        decisions += usize::from(decision.state != last);
        handed_back += usize::from(plays && decision.state != last);
        last = decision.state;
        mined += i64::from(decision.action == Action::Run);
        world.mining = decision.action < Action::HandBack;
    }
    let took = begin.elapsed();
    let speed = WEEK_SECS as f64 / took.as_secs_f64();
    eprintln!("a week in {took:?}, {speed:.0} times real time; {mined} s mined");
    assert!(speed >= 1000.0, "{speed}");
    assert!(handed_back <= 7, "once a game at most");
    (mined, decisions)
}

#[test]
fn always_means_all_week_but_for_games_and_their_cool_down() {
    let (mined, decisions) = live(Rules::default());
    // Seven evenings of two hours, and three minutes after each; the last second of each cool-down
    // and the first of the week come out even.
    assert_eq!(mined, WEEK_SECS - 7 * (2 * 3600 + 179));
    assert_eq!(decisions, 1 + 7 * 2);
}

#[test]
fn away_means_nights_and_working_hours() {
    let (mined, _) = live(Rules { when: When::Away, ..Rules::default() });
    let there: i64 = (0..WEEK_SECS).filter(|&s| life(s).0).count().try_into().unwrap();
    // They leave six times, and are away at the beginning of the week; each time the ten minutes
    // end with the second that completes them.
    assert_eq!(mined, WEEK_SECS - there - 7 * 599);
}

#[test]
fn a_schedule_is_kept_to_the_minute() {
    let (mined, _) = live(Rules { when: When::Schedule, cheap_only: true, ..Rules::default() });
    // Nights from 22 to 6; the cool-down takes three minutes of each.
    assert_eq!(mined, 7 * (8 * 3600 - 179));
}
