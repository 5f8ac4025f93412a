//! How nodes and their owners did lately. A node that fails at jobs is asked behind others for a while, one
//! that hands them back rests, and an owner whom nobody knows holds few jobs at once until its results
//! arrive: keys cost nothing, so none of the three may be outlived by a new session alone.

use std::collections::BTreeMap;
use std::time::Duration;

use neurino_core::NodeId;
use tokio::time::Instant;

/// Failures from which on a node gets jobs only where no other node serves their model.
const SHUNNED: u32 = 3;
/// Most failures that are remembered of a node: after a few halvings it is as good as any.
const FAULTS_MAX: u32 = 16;
/// How long a node rests after it handed jobs back a second time in a row; doubled each time.
const REST: Duration = Duration::from_secs(1);
const REST_MAX: Duration = Duration::from_mins(2);
/// Hand-backs that are longer ago than this were of another day.
const FORGOTTEN: Duration = Duration::from_mins(10);
/// Jobs more that an owner may hold at once for each result that was paid.
const EARNED: u32 = 2;
/// Most that results alone earn. Who holds more was audited.
const EARNED_MAX: u32 = 256;

/// What is remembered of a node.
#[derive(Debug, Clone, Copy, Default)]
struct Past {
    /// Attempts that failed lately, less those that were paid. Halved now and then.
    faults: u32,
    /// How often in a row it handed jobs back that it had just been given.
    hand_backs: u32,
    /// When it did so last.
    last: Option<Instant>,
    /// Until when it rests.
    until: Option<Instant>,
}

/// How nodes did lately, by id, and what owners earned.
#[derive(Debug, Default)]
pub(super) struct Conduct {
    nodes: BTreeMap<NodeId, Past>,
    earned: BTreeMap<NodeId, u32>,
}

impl Conduct {
    /// Attempts of a node that failed lately, as a band: one of them says little.
    pub(super) fn fault_band(&self, node: &NodeId) -> u32 {
        self.nodes.get(node).map_or(0, |past| past.faults / 2)
    }

    /// Whether a node is asked only where nobody else serves a model.
    pub(super) fn is_shunned(&self, node: &NodeId) -> bool {
        self.nodes.get(node).is_some_and(|past| past.faults >= SHUNNED)
    }

    pub(super) fn is_resting(&self, node: &NodeId) -> bool {
        self.nodes.get(node).is_some_and(|past| past.until.is_some())
    }

    /// An attempt of a node failed, and the node is to blame.
    pub(super) fn failed(&mut self, node: &NodeId, times: u32) {
        let past = self.nodes.entry(node.clone()).or_default();
        past.faults = past.faults.saturating_add(times).min(FAULTS_MAX);
    }

    /// A result of a node was paid.
    pub(super) fn paid(&mut self, node: &NodeId, party: NodeId) {
        if let Some(past) = self.nodes.get_mut(node) {
            past.faults = past.faults.saturating_sub(1);
            (past.hand_backs, past.last) = (0, None);
        }
        let earned = self.earned.entry(party).or_default();
        if *earned < EARNED_MAX {
            *earned = (*earned + EARNED).min(EARNED_MAX);
        }
    }

    /// A job that an owner held came to nothing: its deadline passed, or its node vanished.
    pub(super) fn wasted(&mut self, party: &NodeId) {
        if let Some(earned) = self.earned.get_mut(party).filter(|earned| **earned <= EARNED_MAX) {
            *earned /= 2;
        }
        self.earned.retain(|_, earned| *earned > 0);
    }

    /// An owner is known by its audits, or by whoever runs the network: it holds as much as it can.
    pub(super) fn trust(&mut self, party: NodeId) {
        self.earned.insert(party, u32::MAX);
    }

    /// Jobs that an owner may hold at once.
    pub(super) fn most(&self, party: &NodeId, of_new: u32) -> u32 {
        of_new.saturating_add(self.earned.get(party).copied().unwrap_or(0))
    }

    /// A node handed a job back that it was given at a time. All that it held then count as one: a person
    /// who comes back to the computer gives all of them back at once.
    pub(super) fn handed_back(&mut self, node: &NodeId, given: Instant, now: Instant) {
        let past = self.nodes.entry(node.clone()).or_default();
        if past.last.is_some_and(|last| given < last) {
            return;
        }
        if past.last.is_some_and(|last| now.duration_since(last) > FORGOTTEN) {
            past.hand_backs = 0;
        }
        past.hand_backs = past.hand_backs.saturating_add(1);
        past.last = Some(now);
        if let Some(times) = past.hand_backs.checked_sub(2) {
            let rest = REST.saturating_mul(1 << times.min(16)).min(REST_MAX);
            past.until = Some(now + rest);
        }
    }

    /// Ends the rest of those that rested long enough, and says whose.
    pub(super) fn rested(&mut self, now: Instant) -> Vec<NodeId> {
        let mut rested = Vec::new();
        for (node, past) in &mut self.nodes {
            if past.until.is_some_and(|until| now >= until) {
                past.until = None;
                rested.push(node.clone());
            }
        }
        rested
    }

    #[cfg(test)]
    pub(super) fn pass_time(&mut self, by: Duration) {
        for past in self.nodes.values_mut() {
            past.until = past.until.map(|until| until - by);
            past.last = past.last.map(|last| last - by);
        }
    }

    /// Half of what failed is forgotten, and whoever nothing is held against.
    pub(super) fn forgive(&mut self, now: Instant) {
        self.nodes.retain(|_, past| {
            past.faults /= 2;
            let lately = past.last.is_some_and(|last| now.duration_since(last) <= FORGOTTEN);
            past.faults > 0 || past.until.is_some() || lately
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u8) -> NodeId {
        NodeId::new(format!("0x{n:02x}")).expect("valid")
    }

    #[test]
    fn who_hands_back_again_and_again_rests_longer_each_time_and_a_pause_is_one() {
        let mut conduct = Conduct::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        for _ in 0..64 {
            conduct.handed_back(&node(1), at(0), at(5));
        }
        assert!(!conduct.is_resting(&node(1)), "all at once is a pause");
        conduct.handed_back(&node(1), at(10), at(11));
        assert!(conduct.is_resting(&node(1)));
        assert!(conduct.rested(at(1_010)).is_empty());
        assert_eq!(conduct.rested(at(1_011)), [node(1)]);
        conduct.handed_back(&node(1), at(1_012), at(1_013));
        assert!(conduct.rested(at(3_012)).is_empty(), "twice as long");
        assert_eq!(conduct.rested(at(3_013)), [node(1)]);
        conduct.paid(&node(1), node(1));
        conduct.handed_back(&node(1), at(4_000), at(4_001));
        assert!(!conduct.is_resting(&node(1)), "it delivered meanwhile");
    }

    #[test]
    fn failures_count_for_a_while_and_results_make_up_for_them() {
        let mut conduct = Conduct::default();
        let now = Instant::now();
        conduct.failed(&node(1), 1);
        assert_eq!((conduct.fault_band(&node(1)), conduct.is_shunned(&node(1))), (0, false));
        conduct.failed(&node(1), 2);
        assert!(conduct.is_shunned(&node(1)));
        conduct.paid(&node(1), node(1));
        assert!(!conduct.is_shunned(&node(1)));
        for _ in 0..100 {
            conduct.failed(&node(2), 1);
        }
        for _ in 0..3 {
            assert!(conduct.is_shunned(&node(2)));
            conduct.forgive(now);
        }
        assert!(!conduct.is_shunned(&node(2)), "forgiven");
        conduct.forgive(now);
        conduct.forgive(now);
        assert!(conduct.nodes.is_empty(), "and forgotten");
    }

    #[test]
    fn owners_hold_more_as_their_results_arrive_and_less_as_jobs_come_to_nothing() {
        let mut conduct = Conduct::default();
        assert_eq!(conduct.most(&node(1), 8), 8);
        for _ in 0..10 {
            conduct.paid(&node(1), node(1));
        }
        assert_eq!(conduct.most(&node(1), 8), 28);
        conduct.wasted(&node(1));
        assert_eq!(conduct.most(&node(1), 8), 18);
        for _ in 0..1_000 {
            conduct.paid(&node(1), node(1));
        }
        assert_eq!(conduct.most(&node(1), 8), 8 + EARNED_MAX);
        conduct.trust(node(1));
        conduct.wasted(&node(1));
        assert_eq!(conduct.most(&node(1), 8), u32::MAX);
        assert_eq!(conduct.most(&node(2), u32::MAX), u32::MAX);
    }
}
