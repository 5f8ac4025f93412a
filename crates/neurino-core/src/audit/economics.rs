//! When cheating does not pay: the white paper's appendix A, with an operator's own numbers.
//!
//! Names as there: C_h and C_m are what a job costs an honest and a cheating node, P how likely a
//! cheated job is found out, F the share of the stake that is lost then, S the stake. All amounts are
//! in one unit of the operator's choice; these are estimates for people, no money of the ledger.

use serde::{Deserialize, Serialize};

/// The operator's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Economy {
    /// What an honest job costs its node.
    pub honest_cost: f64,
    /// What a cheated one costs.
    pub cheat_cost: f64,
    /// What a job pays.
    pub reward: f64,
    /// Share of jobs that are computed again, 0 to 1.
    pub audited: f64,
    /// Share of audits of a cheated job that find it, 0 to 1.
    pub found: f64,
    /// Share of the stake that is lost, 0 to 1.
    pub slashed: f64,
    /// Nodes of the network.
    pub nodes: u32,
    /// Share of cheated results that the network can bear, 0 to 1.
    pub tolerated: f64,
    /// Jobs of a node within the time in which its earnings can be called back.
    pub jobs_in_escrow: u32,
    /// How much a node values its next job against this one, 0 to below 1.
    pub patience: f64,
}

/// A number is out of its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` {rule}")]
pub struct InvalidEconomy {
    /// The number's name on the command line.
    pub field: &'static str,
    /// What it has to be.
    pub rule: &'static str,
}

/// What follows from them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Thresholds {
    /// P: how likely one cheated job is found out.
    pub detection: f64,
    /// A stake above this makes cheating at one job a loss: (C_h - C_m) / (P F).
    pub stake_min: f64,
    /// How many jobs' pay that is.
    pub stake_in_jobs: f64,
    /// How likely at least one cheated job of an escrow time is found out, if all are cheated.
    pub campaign_detection: f64,
    /// Cheating nodes that one job's detection alone tolerates: eps N / (1 - P).
    pub cheaters_by_job: f64,
    /// The same by the detection of a campaign within the escrow time; at most all nodes.
    pub cheaters_by_campaign: f64,
    /// What an honest node earns with all its jobs to come, discounted: (R - C_h) / (1 - d).
    pub honest_future: f64,
    /// What one cheated job is worth, the lost stake counted in: R - C_m - P F S, with the unpaid
    /// earnings of the escrow time as the stake.
    pub cheat_gain: f64,
    /// Whether honest play is an equilibrium with the escrow as the only stake.
    pub honest_pays: bool,
}

impl Economy {
    /// Checks the numbers.
    ///
    /// # Errors
    /// [`InvalidEconomy`] naming the number.
    pub fn validate(&self) -> Result<(), InvalidEconomy> {
        let amount = |value: f64| value.is_finite() && value >= 0.0;
        let share = |value: f64| (0.0..=1.0).contains(&value);
        let positive = |value: f64| value > 0.0 && value <= 1.0;
        let rules = [
            ("honest-cost", amount(self.honest_cost), "is an amount of at least 0"),
            ("cheat-cost", amount(self.cheat_cost), "is an amount of at least 0"),
            ("reward", amount(self.reward) && self.reward > 0.0, "is an amount above 0"),
            ("audited", positive(self.audited), "is a share above 0, at most 1"),
            ("found", positive(self.found), "is a share above 0, at most 1"),
            ("slashed", positive(self.slashed), "is a share above 0, at most 1"),
            ("nodes", self.nodes > 0, "is at least 1"),
            ("tolerated", share(self.tolerated), "is a share from 0 to 1"),
            ("patience", share(self.patience) && self.patience < 1.0, "is from 0 to below 1"),
        ];
        match rules.into_iter().find(|(_, fits, _)| !fits) {
            Some((field, _, rule)) => Err(InvalidEconomy { field, rule }),
            None => Ok(()),
        }
    }

    /// What follows.
    ///
    /// # Errors
    /// [`InvalidEconomy`].
    pub fn thresholds(&self) -> Result<Thresholds, InvalidEconomy> {
        self.validate()?;
        let detection = self.audited * self.found;
        let saved = (self.honest_cost - self.cheat_cost).max(0.0);
        let stake_min = saved / (detection * self.slashed);
        let undetected = (1.0 - detection).powf(f64::from(self.jobs_in_escrow));
        let nodes = f64::from(self.nodes);
        let bearable = |missed: f64| {
            if missed <= 0.0 { nodes } else { (self.tolerated * nodes / missed).min(nodes) }
        };
        let escrow = self.reward * f64::from(self.jobs_in_escrow);
        let honest_future = (self.reward - self.honest_cost) / (1.0 - self.patience);
        let cheat_gain = self.reward - self.cheat_cost - detection * self.slashed * escrow;
        Ok(Thresholds {
            detection,
            stake_min,
            stake_in_jobs: stake_min / self.reward,
            campaign_detection: 1.0 - undetected,
            cheaters_by_job: bearable(1.0 - detection),
            cheaters_by_campaign: bearable(undetected),
            honest_future,
            cheat_gain,
            honest_pays: honest_future > cheat_gain,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paper() -> Economy {
        Economy {
            honest_cost: 2e-4,
            cheat_cost: 1e-4,
            reward: 5e-4,
            audited: 0.02,
            found: 0.95,
            slashed: 1.0,
            nodes: 6_000,
            tolerated: 1e-3,
            jobs_in_escrow: 200,
            patience: 0.99,
        }
    }

    #[test]
    fn the_worked_example_comes_out() {
        let found = paper().thresholds().expect("valid");
        assert!((found.stake_min - 0.005_263).abs() < 1e-5, "{found:?}");
        assert!((found.detection - 0.019).abs() < 1e-12);
        let more = Economy { audited: 0.05, ..paper() }.thresholds().expect("valid");
        assert!((more.campaign_detection - 0.9999).abs() < 1e-4, "{more:?}");
        for (audited, cheaters) in [(0.05, 6.3), (0.95, 120.0), (0.99, 600.0)] {
            let economy = Economy { audited, found: 1.0, ..paper() };
            let found = economy.thresholds().expect("valid");
            assert!((found.cheaters_by_job - cheaters).abs() < 0.1, "{found:?}");
        }
    }

    #[test]
    fn numbers_out_of_range_are_named() {
        let check = |change: fn(&mut Economy), field: &str| {
            let mut economy = paper();
            change(&mut economy);
            assert_eq!(economy.thresholds().expect_err("out of range").field, field);
        };
        check(|e| e.audited = 0.0, "audited");
        check(|e| e.reward = f64::NAN, "reward");
        check(|e| e.patience = 1.0, "patience");
        check(|e| e.nodes = 0, "nodes");
        check(|e| e.honest_cost = -1.0, "honest-cost");
    }
}
