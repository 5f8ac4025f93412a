//! A second, simpler telling of what the machine has to do: no types of its own for causes, no
//! priorities, only names of reasons and the strictness of each.

use std::collections::BTreeMap;

use neurino_control::{Order, Rules};

use crate::world::World;

/// What the person last said.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Said {
    Nothing,
    Mine,
    Finish,
    Pause(Option<i64>),
}

/// How strict: 0 run, 1 take no jobs, 2 finish then stop, 3 hand back.
pub(crate) type Strictness = u8;

#[derive(Debug, Clone)]
pub(crate) struct Model {
    pub(crate) said: Said,
    pub(crate) crashed: bool,
    /// Reasons set aside; for games when they were last there.
    aside: BTreeMap<String, i64>,
    guarded: Option<(String, i64)>,
    /// 0 no, 1 hot, 3 too hot.
    hot: Strictness,
    away: bool,
}

impl Model {
    pub(crate) fn new() -> Self {
        let aside = BTreeMap::new();
        Self { said: Said::Nothing, crashed: false, aside, guarded: None, hot: 0, away: false }
    }

    pub(crate) fn ordered(&mut self, order: Order, rules: &Rules, world: &World) {
        match order {
            Order::Start => {
                self.look(rules, world);
                let games = games(rules, world);
                for reason in self.reasons(rules, world).into_keys() {
                    if !reason.starts_with("cool ") && reason != "moving" {
                        self.aside.insert(reason, world.now_ms);
                    }
                }
                for game in games {
                    self.aside.insert(format!("game {game}"), world.now_ms);
                }
                self.aside.remove("crash");
                (self.guarded, self.crashed, self.said) = (None, false, Said::Mine);
            }
            Order::FollowRules => {
                self.aside.clear();
                (self.crashed, self.said) = (false, Said::Mine);
            }
            Order::Stop => self.off(),
            Order::Finish => {
                if self.said != Said::Nothing {
                    self.said = Said::Finish;
                }
            }
            Order::Snooze { minutes } => {
                if self.said != Said::Nothing {
                    (self.crashed, self.away) = (false, false);
                    let end = |m: u32| world.now_ms + i64::from(m.clamp(1, 1440)) * 60_000;
                    self.said = Said::Pause(minutes.map(end));
                }
            }
        }
        self.passed(rules, world);
    }

    /// Time passed.
    pub(crate) fn passed(&mut self, rules: &Rules, world: &World) {
        if let Said::Pause(Some(end)) = self.said {
            let end = end.min(world.now_ms + 24 * 3_600_000);
            self.said = if end <= world.now_ms { Said::Mine } else { Said::Pause(Some(end)) };
        }
        if self.said == Said::Finish && !world.mining {
            self.off();
        }
        self.look(rules, world);
        if self.said == Said::Finish && self.counting(rules, world).values().any(|s| *s == 3) {
            self.off();
        }
    }

    pub(crate) fn rules_changed(&mut self, old: &Rules, new: &Rules, world: &World) {
        if old.when != new.when
            || old.idle_minutes != new.idle_minutes
            || old.stop_on_return != new.stop_on_return
        {
            self.aside.remove("away");
        }
        if old.when != new.when || old.week != new.week || old.cheap_only != new.cheap_only {
            self.aside.remove("schedule");
        }
        self.passed(new, world);
    }

    fn off(&mut self) {
        self.aside.clear();
        (self.said, self.crashed, self.away) = (Said::Nothing, false, false);
    }

    fn look(&mut self, rules: &Rules, world: &World) {
        let now = world.now_ms;
        let cool = i64::from(rules.cool_down_secs) * 1000;
        let seen = games(rules, world);
        for (reason, last) in &mut self.aside {
            if let Some(game) = reason.strip_prefix("game ") {
                *last = if seen.iter().any(|s| s == game) || runs(world, game) {
                    now
                } else {
                    now.min(*last)
                };
            }
        }
        let free: Vec<&String> =
            seen.iter().filter(|game| !self.aside.contains_key(&format!("game {game}"))).collect();
        match self.guarded.take() {
            Some((game, _)) if free.contains(&&game) => self.guarded = Some((game, now)),
            _ if !free.is_empty() => self.guarded = Some((free[0].clone(), now)),
            Some((game, last)) => {
                let last = last.min(now);
                let forget = !rules.game_guard || rules.not_games.contains(&game);
                if now - last < cool && !forget {
                    self.guarded = Some((game, last));
                }
            }
            None => {}
        }
        self.hot = match world.card_c {
            Some(c) if rules.pause_when_hot && world.device == neurino_control::JobDevice::Gpu => {
                if self.hot > 0 && c <= rules.hot_resume_c {
                    0
                } else if c >= rules.hot_stop_c + 5 {
                    3
                } else if c >= rules.hot_stop_c {
                    self.hot.max(1)
                } else {
                    self.hot
                }
            }
            _ => 0,
        };
        match world.idle_secs {
            _ if !rules.when.wants_away() => self.away = false,
            Some(idle) if idle >= rules.idle_minutes * 60 => self.away = true,
            Some(_) if rules.stop_on_return => self.away = false,
            _ => {}
        }
        let hot = self.hot;
        self.aside.retain(|reason, last| match reason.split_once(' ') {
            Some(("game", _)) => now - *last < cool.max(60_000),
            Some(("exclusive", program)) => runs(world, program),
            _ => match reason.as_str() {
                "other_user" => for_others(rules) && world.other_user == Some(true),
                "battery" => rules.pause_on_battery && world.on_battery == Some(true),
                "metered" => rules.pause_on_metered && world.metered == Some(true),
                "hot" => hot > 0,
                "update" => world.updating,
                "away" => rules.when.wants_away(),
                "schedule" => rules.when.wants_schedule(),
                other => panic!("{other}"),
            },
        });
    }

    /// Every reason not to mine, and how strict it is.
    fn reasons(&self, rules: &Rules, world: &World) -> BTreeMap<String, Strictness> {
        let mut reasons = BTreeMap::new();
        if self.crashed {
            reasons.insert("crash".into(), 3);
        }
        if let Some((game, last)) = &self.guarded {
            let what = if *last == world.now_ms { "game" } else { "cool" };
            reasons.insert(format!("{what} {game}"), 3);
        }
        let on_cpu = world.device == neurino_control::JobDevice::Cpu;
        for program in if on_cpu { &rules.exclusive_cpu } else { &rules.exclusive_gpu } {
            if runs(world, program) {
                reasons.insert(format!("exclusive {program}"), 3);
            }
        }
        if for_others(rules) && world.other_user == Some(true) {
            reasons.insert("other_user".into(), 3);
        }
        if rules.pause_on_battery && world.on_battery == Some(true) {
            reasons.insert("battery".into(), 3);
        }
        if self.hot > 0 {
            reasons.insert("hot".into(), self.hot);
        }
        if rules.when.wants_away() && (world.idle_secs.is_none() || !self.away) {
            reasons.insert("away".into(), 3);
        }
        let minute = world.week_minute();
        if rules.when.wants_schedule() && !rules.week.allows(minute, rules.cheap_only) {
            reasons.insert("schedule".into(), 2);
        }
        if rules.pause_on_metered && world.metered == Some(true) {
            reasons.insert("metered".into(), 2);
        }
        if world.updating {
            reasons.insert("update".into(), 2);
        }
        if world.moving {
            reasons.insert("moving".into(), 2);
        }
        reasons
    }

    /// The reasons that the person has not set aside.
    pub(crate) fn counting(&self, rules: &Rules, world: &World) -> BTreeMap<String, Strictness> {
        let mut reasons = self.reasons(rules, world);
        reasons.retain(|reason, _| !self.aside.contains_key(reason));
        reasons
    }

    /// The program ended and runs again.
    pub(crate) fn restarted(&mut self) {
        let mut kept = std::mem::take(&mut self.aside);
        kept.retain(|reason, _| reason == "away" || reason == "schedule");
        let said = if self.said == Said::Finish { Said::Nothing } else { self.said };
        if said == Said::Nothing {
            kept.clear();
        }
        *self = Self { said, aside: kept, ..Self::new() };
    }

    /// Whether the person set anything aside.
    pub(crate) fn sets_aside(&self) -> bool {
        !self.aside.is_empty()
    }
}

fn for_others(rules: &Rules) -> bool {
    rules.game_guard || rules.when.wants_away()
}

fn runs(world: &World, program: &str) -> bool {
    world.programs.iter().flatten().any(|p| p.name == program)
}

/// The games that run: listed ones first, then those of the stores, then the one in front.
fn games(rules: &Rules, world: &World) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    if rules.game_guard {
        let programs = world.programs.iter().flatten();
        let listed = programs.clone().filter(|p| rules.games.contains(&p.name));
        let library = programs.filter(|p| p.in_library && rules.guard_libraries);
        found.extend(listed.chain(library).map(|p| p.name.clone()));
        if let Some(front) = &world.foreground {
            let load = front.card_load_percent.is_some_and(|load| load >= 30);
            if rules.games.contains(&front.program)
                || rules.guard_full_screen && front.full_screen
                || rules.guard_card_load && load
            {
                found.push(front.program.clone());
            }
        }
    }
    found.retain(|game| !rules.not_games.contains(game));
    found
}
