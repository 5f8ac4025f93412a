//! Made-up weeks whose payers are known: people (bursts of requests, by day, in all time zones), services
//! with many people behind one name, and programs (a clock, chance around the clock, a form, one bot under
//! fifty names). Seeded: the same seed is the same week.

use std::f64::consts::TAU;

use neurino_core::{JobId, LeaseId, ModelId, NodeId, PointsKind};
use uuid::Uuid;

use crate::epoch::{EPOCH_MS, Entry, Movement, Source};

pub(super) const WEEK: i64 = 2_968;
const HOUR_MS: f64 = 3_600_000.0;
const WEEK_HOURS: f64 = 168.0;
const TEXT_MODELS: [&str; 5] = ["llama-8b", "llama-70b", "mistral-7b", "mixtral", "tiny"];

/// Who is behind a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Who {
    Person,
    /// A service with many people behind it.
    Crowd,
    /// Asks by a clock, whatever the lengths.
    Clock,
    /// Asks by chance around the clock.
    Flat,
    /// Asks the same all the time, in bursts and by day like a person.
    Form,
    /// One bot by a clock with equal jobs, each by chance under one of fifty names.
    ManyForm,
    /// One bot by chance around the clock with jobs of all lengths, under fifty names.
    ManyFlat,
    /// One bot that has pictures of the usual size made around the clock, under fifty names.
    ManyUsual,
}

impl Who {
    pub(super) fn is_program(self) -> bool {
        !matches!(self, Self::Person | Self::Crowd)
    }
}

/// SplitMix64: small, and the same everywhere.
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From zero to below one.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).expect("it is below a usize")
    }

    /// Waiting time of a rate of one.
    fn wait(&mut self) -> f64 {
        -(1.0 - self.unit()).ln()
    }

    fn normal(&mut self) -> f64 {
        (2.0 * self.wait()).sqrt() * (TAU * self.unit()).cos()
    }

    fn poisson(&mut self, mean: f64) -> u32 {
        let (mut n, mut left) = (0, mean - self.wait());
        while left > 0.0 {
            n += 1;
            left -= self.wait();
        }
        n
    }
}

/// What one name asks for.
#[derive(Clone)]
enum Asks {
    /// Texts of all lengths around a middle one, mostly to one model.
    Texts { model: usize, middle: f64 },
    /// The same text to the same model.
    SameText { model: usize, points_micro: i64 },
    /// Pictures, mostly of the usual size.
    Pictures { unusual: f64 },
}

impl Asks {
    fn person(chance: &mut Chance) -> Self {
        if chance.unit() < 0.25 {
            let unusual = if chance.unit() < 0.5 { 0.0 } else { chance.between(0.1, 0.6) };
            return Self::Pictures { unusual };
        }
        let middle = (5.5 + 0.8 * chance.normal()).exp();
        Self::Texts { model: chance.below(TEXT_MODELS.len()), middle }
    }

    fn one(&self, chance: &mut Chance) -> (&'static str, PointsKind, i64) {
        match self {
            Self::Texts { model, middle } => {
                let other = chance.unit() < 0.15;
                let model = if other { chance.below(TEXT_MODELS.len()) } else { *model };
                let tokens = (middle * (0.8 * chance.normal()).exp()).clamp(2.0, 8_000.0);
                (TEXT_MODELS[model], PointsKind::Llama, tokens.round() as i64 * 1_000)
            }
            Self::SameText { model, points_micro } => {
                (TEXT_MODELS[*model], PointsKind::Llama, *points_micro)
            }
            Self::Pictures { unusual } => {
                let size = if chance.unit() < *unusual { 1 + chance.below(4) } else { 0 };
                ("painter", PointsKind::Waifu, 1_000_000 + 250_000 * size as i64)
            }
        }
    }
}

/// A week under construction.
pub(super) struct Made {
    chance: Chance,
    entries: Vec<Entry>,
    /// Who is behind which name.
    pub(super) labels: Vec<(String, Who)>,
}

impl Made {
    fn name(&mut self, who: Who) -> String {
        // Like those of an epoch: by chance, in no order.
        let name = format!("{:024x}", u128::from(self.chance.next()) << 32);
        self.labels.push((name.clone(), who));
        name
    }

    /// A result at an hour of the week, after the time its work took; none outside of the week.
    fn job(&mut self, payer: &str, hour: f64, asks: &Asks, free: bool) {
        let (model, points, points_micro) = asks.one(&mut self.chance);
        let took_ms = 500.0 + points_micro as f64 / 1_000.0 * self.chance.between(4.0, 8.0);
        let in_week = (hour * HOUR_MS + took_ms) as i64;
        if !(0..EPOCH_MS).contains(&in_week) {
            return;
        }
        let id = Uuid::from_u128(u128::from(self.chance.next()));
        let source = if free { Source::Free } else { Source::Paid };
        self.entries.push(Entry {
            at_ms: WEEK * EPOCH_MS + in_week,
            lease: LeaseId(id),
            movement: Movement::Reward,
            job: JobId(id),
            node: NodeId::new("rig").expect("a name"),
            model: ModelId::new(model).expect("a name"),
            points,
            points_micro,
            organic_micro: if free { 0 } else { points_micro },
            payer: payer.to_owned(),
            source,
            fee_micro: if free { 0 } else { points_micro / 2_500 },
        });
    }

    /// Hours of the week at which a person asks: sessions by day in a time zone (Poisson, thinned), and
    /// after each request on average 0.65 more within minutes (Hawkes).
    fn person(&mut self, zone: f64, sessions: f64) -> Vec<f64> {
        let chance = &mut self.chance;
        let owl = chance.between(-2.0, 3.0);
        let mut hours = Vec::new();
        let mut hour = 0.0;
        // Of the rate by day about two fifths are left by thinning.
        let rate = sessions / WEEK_HOURS / 0.4;
        loop {
            hour += chance.wait() / rate;
            if hour > WEEK_HOURS {
                break;
            }
            // Awake from 8 to 24, most in the middle of it; one in fifty sessions is at night.
            let local = (hour + zone - owl).rem_euclid(24.0);
            let awake = if local > 8.0 { ((local - 8.0) / 16.0 * TAU / 2.0).sin() } else { 0.02 };
            if chance.unit() < awake {
                hours.push(hour);
            }
        }
        let mut next = 0;
        while let Some(hour) = hours.get(next).copied() {
            next += 1;
            for _ in 0..chance.poisson(0.65) {
                hours.push(hour + chance.wait() * 4.0 / 60.0);
            }
        }
        hours
    }

    fn people(&mut self, n: usize) {
        for _ in 0..n {
            let name = self.name(Who::Person);
            let (asks, free) = (Asks::person(&mut self.chance), self.chance.unit() < 0.3);
            let zone = self.chance.between(-12.0, 12.0);
            let sessions = (2.5 + 1.0 * self.chance.normal()).exp().clamp(1.0, 150.0);
            for hour in self.person(zone, sessions) {
                self.job(&name, hour, &asks, free);
            }
        }
    }

    fn crowds(&mut self, n: usize) {
        for _ in 0..n {
            let name = self.name(Who::Crowd);
            let (home, width) = (self.chance.between(-12.0, 12.0), self.chance.between(1.0, 6.0));
            for _ in 0..30 + self.chance.below(150) {
                let asks = Asks::person(&mut self.chance);
                let zone = home + width * self.chance.normal();
                for hour in self.person(zone, 6.0) {
                    self.job(&name, hour, &asks, false);
                }
            }
        }
    }

    /// Hours by a clock, each up to a tenth of its period off, with an outage in half of them.
    fn clock(&mut self, jobs: f64) -> Vec<f64> {
        let chance = &mut self.chance;
        let period = WEEK_HOURS / jobs;
        let jitter = chance.between(0.0, 0.1);
        let outage = chance.between(0.0, 160.0);
        let outage = outage..outage + if chance.unit() < 0.5 { 3.0 } else { 0.0 };
        let mut hours = Vec::new();
        let mut hour = chance.unit() * period;
        while hour < WEEK_HOURS {
            if !outage.contains(&hour) {
                hours.push(hour + jitter * period * chance.normal().clamp(-1.0, 1.0));
            }
            hour += period;
        }
        hours
    }

    fn flat(&mut self, jobs: f64) -> Vec<f64> {
        let chance = &mut self.chance;
        (0..chance.poisson(jobs)).map(|_| chance.between(0.0, WEEK_HOURS)).collect()
    }

    fn texts(&mut self) -> Asks {
        let middle = self.chance.between(80.0, 1_500.0);
        Asks::Texts { model: self.chance.below(TEXT_MODELS.len()), middle }
    }

    fn same_text(&mut self) -> Asks {
        let points_micro = 1_000 * i64::try_from(20 + self.chance.below(900)).expect("small");
        Asks::SameText { model: self.chance.below(TEXT_MODELS.len()), points_micro }
    }

    fn programs(&mut self, of_each: usize) {
        for _ in 0..of_each {
            let (name, asks) = (self.name(Who::Clock), self.texts());
            let jobs = self.chance.between(5.0, 8.0).exp();
            for hour in self.clock(jobs) {
                self.job(&name, hour, &asks, false);
            }
            let (name, asks) = (self.name(Who::Flat), self.texts());
            let jobs = self.chance.between(5.0, 8.0).exp();
            for hour in self.flat(jobs) {
                self.job(&name, hour, &asks, false);
            }
            let (name, asks) = (self.name(Who::Form), self.same_text());
            let (zone, sessions) = (self.chance.between(-12.0, 12.0), 40.0);
            for hour in self.person(zone, sessions) {
                self.job(&name, hour, &asks, false);
            }
        }
    }

    fn many_names(&mut self, who: Who) {
        let names: Vec<String> = (0..50).map(|_| self.name(who)).collect();
        let jobs = self.chance.between(1_000.0, 4_000.0);
        let (asks, hours) = match who {
            Who::ManyForm => (self.same_text(), self.clock(jobs)),
            Who::ManyUsual => (Asks::Pictures { unusual: 0.0 }, self.flat(jobs)),
            _ => (self.texts(), self.flat(jobs)),
        };
        for hour in hours {
            let name = names[self.chance.below(names.len())].clone();
            self.job(&name, hour, &asks, false);
        }
    }

    /// In the order of entries.
    pub(super) fn entries(mut self) -> (Vec<Entry>, Vec<(String, Who)>) {
        self.entries.sort_by_key(Entry::place);
        (self.entries, self.labels)
    }
}

/// A week of a network with people, services and programs of all kinds.
pub(super) fn week(seed: u64) -> Made {
    let mut made = people_only(seed);
    made.programs(8);
    for who in [Who::ManyForm, Who::ManyFlat, Who::ManyUsual] {
        made.many_names(who);
    }
    made
}

/// A week without any program.
pub(super) fn people_only(seed: u64) -> Made {
    let mut made = Made { chance: Chance(seed), entries: Vec::new(), labels: Vec::new() };
    made.people(300);
    made.crowds(5);
    made
}
