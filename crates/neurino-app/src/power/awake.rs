//! Keeps the computer awake while it works, and no longer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use neurino_miner::MinerState;
use neurino_protocol::power::{AwakeState, KeepAwake};
use tracing::info;

use crate::mining::Phase;
use crate::{App, lock, told_with_causes};

/// After a job the next one may come; the computer stays awake for so long.
const BETWEEN_JOBS: Duration = Duration::from_mins(2);
/// A refusal is not repeated more often.
const AGAIN_AFTER: Duration = Duration::from_mins(1);

/// What the system's list of who keeps it awake shows.
const WHY: &str = "AI jobs are running";

/// When a job was last seen, and when the system last refused.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {
    job: Option<Instant>,
    refused: Option<Instant>,
}

impl Seen {
    /// Whether the computer is to be kept awake at `now`.
    fn wants(&mut self, when: KeepAwake, mines: bool, works: bool, now: Instant) -> bool {
        if !mines {
            self.job = None;
        } else if works {
            self.job = Some(now);
        }
        match when {
            KeepAwake::Never => false,
            KeepAwake::Mining => mines,
            KeepAwake::Jobs => self.job.is_some_and(|job| now.duration_since(job) < BETWEEN_JOBS),
        }
    }
}

impl App {
    pub(super) async fn look_after_sleep(self: &Arc<Self>) {
        let Some(awake) = self.power.awake.clone() else { return };
        let (mines, works) = self.works();
        let when = lock(&self.power.settings).keep_awake;
        let now = Instant::now();
        let (wants, lately_refused) = {
            let mut seen = lock(&self.power.awake_seen);
            let wants = seen.wants(when, mines, works, now) && !self.end.is_cancelled();
            (wants, seen.refused.is_some_and(|at| now.duration_since(at) < AGAIN_AFTER))
        };
        let state = lock(&self.power.awake_state).clone();
        let refused_before = matches!(state, AwakeState::Failed { .. });
        let next = match (wants, state) {
            (true, AwakeState::Held) | (false, AwakeState::Released) => return,
            (true, AwakeState::Failed { .. }) if lately_refused => return,
            (false, _) => {
                lock(&awake).release();
                info!("the computer may sleep");
                AwakeState::Released
            }
            (true, _) => {
                let holding = tokio::task::spawn_blocking(move || lock(&awake).hold(WHY));
                match holding.await {
                    Ok(Ok(())) => {
                        info!("the computer is kept awake");
                        AwakeState::Held
                    }
                    Ok(Err(error)) => {
                        lock(&self.power.awake_seen).refused = Some(now);
                        let message = told_with_causes(&error);
                        if !refused_before {
                            info!(message, "the computer cannot be kept awake");
                        }
                        AwakeState::Failed { message }
                    }
                    Err(_) => return,
                }
            }
        };
        *lock(&self.power.awake_state) = next;
    }

    /// Lets the computer sleep at once: mining has stopped.
    pub(super) fn sleep_again(&self) {
        let Some(awake) = &self.power.awake else { return };
        lock(&self.power.awake_seen).job = None;
        // Held up only while the system is being asked; then the next look releases.
        if let Ok(mut awake) = awake.try_lock() {
            awake.release();
            *lock(&self.power.awake_state) = AwakeState::Released;
        }
        self.power.chosen.notify_one();
    }

    /// Whether the machine mines, and whether a job runs.
    pub(super) fn works(&self) -> (bool, bool) {
        let phase = lock(&self.mining).phase.clone();
        let (Phase::Running(miner) | Phase::Finishing(miner)) = phase else {
            return (false, false);
        };
        let status = miner.status();
        let status = status.borrow();
        let works = status.jobs > 0 || matches!(status.state, MinerState::Working);
        (true, works)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn awake_while_a_job_runs_and_until_the_next_could_have_come() {
        let (mut seen, begin) = (Seen::default(), Instant::now());
        let at = |secs| begin + Duration::from_secs(secs);
        assert!(!seen.wants(KeepAwake::Jobs, true, false, at(0)), "no job yet");
        assert!(seen.wants(KeepAwake::Jobs, true, true, at(10)));
        assert!(seen.wants(KeepAwake::Jobs, true, false, at(100)));
        assert!(!seen.wants(KeepAwake::Jobs, true, false, at(131)));
        assert!(seen.wants(KeepAwake::Mining, true, false, at(500)));
        assert!(!seen.wants(KeepAwake::Never, true, true, at(501)));
        assert!(!seen.wants(KeepAwake::Jobs, false, false, at(502)), "stopped is stopped");
        assert!(!seen.wants(KeepAwake::Mining, false, false, at(503)));
    }
}
