//! The machine while a program runs: cards are lost, drivers restart, boxes with cards are plugged
//! in. [`LiveHardware`] is what is known now, and looks again when there is a reason.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use crate::power::{CardPower, PowerCard, PowerFault};
use crate::probe::Hardware;

/// This machine, looked at again and again.
pub struct LiveHardware {
    now: RwLock<Arc<Hardware>>,
    scripted: bool,
}

impl LiveHardware {
    /// Looks at this machine once; with a script, its cards are those that the file plays (see the
    /// source of `neurino_hardware::script`). Keep it off async threads.
    pub fn open(script: Option<PathBuf>) -> Self {
        let scripted = script.is_some();
        let hardware = script.map_or_else(Hardware::probe, |path| Hardware::scripted(&path));
        Self { now: RwLock::new(Arc::new(hardware)), scripted }
    }

    /// Whether a file plays the cards.
    pub fn is_scripted(&self) -> bool {
        self.scripted
    }

    /// What is known at the moment.
    pub fn now(&self) -> Arc<Hardware> {
        Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks again: the driver's library is opened anew, for an old handle does not survive a restart
    /// of the driver. Takes up to a second, so keep it off async threads. Says whether cards or driver
    /// are others than before.
    pub fn look_again(&self) -> bool {
        let before = self.now();
        let after = Arc::new(before.again());
        let differs = after.gpus() != before.gpus() || after.nvidia() != before.nvidia();
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = after;
        differs
    }
}

impl CardPower for LiveHardware {
    fn cards(&self) -> Vec<PowerCard> {
        self.now().cards()
    }

    fn limit_mw(&self, uuid: &str) -> Result<u32, PowerFault> {
        self.now().limit_mw(uuid)
    }

    fn set_limit_mw(&self, uuid: &str, limit_mw: u32) -> Result<(), PowerFault> {
        self.now().set_limit_mw(uuid, limit_mw)
    }

    fn energy_mj(&self, uuid: &str) -> Option<u64> {
        self.now().energy_mj(uuid)
    }

    fn draw_mw(&self, uuid: &str) -> Option<u32> {
        self.now().draw_mw(uuid)
    }

    fn boot(&self) -> Option<String> {
        self.now().boot()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use crate::nvidia::NvidiaStatus;

    const TWO: &str = r#"[{"uuid":"GPU-1","name":"A","memory_bytes":8},
                          {"uuid":"GPU-2","name":"B","memory_bytes":9},
                          {"uuid":"GPU-3","name":"has a power limit and does not compute"}]"#;

    #[test]
    fn cards_that_are_lost_unplugged_or_without_a_driver_are_noticed_and_found_again() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("cards.json");
        std::fs::write(&path, TWO).unwrap();
        let live = LiveHardware::open(Some(path.clone()));
        let names = || live.now().gpus().iter().map(|gpu| gpu.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(), ["A", "B"]);
        assert!(live.now().nvidia().status().is_ready() && !live.now().is_outdated());
        assert!(!live.look_again(), "nothing has changed");

        std::fs::write(&path, TWO.replace(r#""A","#, r#""A","lost":true,"#)).unwrap();
        assert!(live.now().is_outdated(), "the card does not answer");
        assert!(live.now().sample().gpus[0].lost.is_some());
        assert!(live.look_again());
        assert_eq!((names(), live.now().gpus()[0].index), (vec!["B".to_owned()], 1));

        std::fs::remove_file(&path).unwrap();
        assert!(live.now().is_outdated() && live.look_again());
        assert!(matches!(live.now().nvidia().status(), NvidiaStatus::NoDriver { .. }));

        std::fs::write(&path, TWO).unwrap();
        assert!(live.now().is_outdated(), "the driver is back");
        assert!(live.look_again());
        assert_eq!(names(), ["A", "B"]);
    }

    #[test]
    fn a_real_machine_can_be_looked_at_again() {
        let live = LiveHardware::open(None);
        let before = live.now().gpus().to_vec();
        live.look_again();
        assert_eq!(live.now().gpus(), before);
        assert!(!live.is_scripted());
    }
}
