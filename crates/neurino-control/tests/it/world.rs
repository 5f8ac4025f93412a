//! A world that facts are taken from.

use neurino_control::{Facts, Foreground, JobDevice, Program};

/// A Monday, 00:00; the local time of these tests is UTC.
pub(crate) const MONDAY_MS: i64 = 1_763_337_600_000;

/// What is the case now.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) now_ms: i64,
    pub(crate) device: JobDevice,
    pub(crate) mining: bool,
    pub(crate) idle_secs: Option<u32>,
    pub(crate) other_user: Option<bool>,
    pub(crate) on_battery: Option<bool>,
    pub(crate) metered: Option<bool>,
    pub(crate) card_c: Option<i16>,
    pub(crate) updating: bool,
    pub(crate) moving: bool,
    pub(crate) programs: Option<Vec<Program>>,
    pub(crate) foreground: Option<Foreground>,
}

impl World {
    /// A quiet desktop on Monday at this hour; the person is there.
    pub(crate) fn at_hour(hour: i64) -> Self {
        Self {
            now_ms: MONDAY_MS + hour * 3_600_000,
            device: JobDevice::Gpu,
            mining: false,
            idle_secs: Some(0),
            other_user: Some(false),
            on_battery: Some(false),
            metered: Some(false),
            card_c: Some(60),
            updating: false,
            moving: false,
            programs: Some(vec![Program::at("/usr/bin/firefox")]),
            foreground: None,
        }
    }

    pub(crate) fn week_minute(&self) -> u16 {
        u16::try_from((self.now_ms - MONDAY_MS).div_euclid(60_000).rem_euclid(7 * 24 * 60)).unwrap()
    }

    pub(crate) fn facts(&self) -> Facts<'_> {
        Facts {
            now_ms: self.now_ms,
            week_minute: self.week_minute(),
            clock_change: None,
            device: self.device,
            mining: self.mining,
            idle_secs: self.idle_secs,
            other_user: self.other_user,
            on_battery: self.on_battery,
            metered: self.metered,
            card_c: self.card_c,
            updating: self.updating,
            moving: self.moving,
            programs: self.programs.as_deref(),
            foreground: self.foreground.as_ref(),
        }
    }

    pub(crate) fn pass_secs(&mut self, secs: i64) {
        self.now_ms += secs * 1000;
    }

    pub(crate) fn run_program(&mut self, path: &str) {
        self.programs.get_or_insert_default().push(Program::at(path));
    }

    pub(crate) fn end_program(&mut self, name: &str) {
        self.programs.get_or_insert_default().retain(|p| p.name != name);
    }
}
