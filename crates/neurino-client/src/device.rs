//! The key that a device keeps for its sessions, and the token that goes with it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use neurino_core::NodeId;
use neurino_protocol::node::SessionToken;
use neurino_wallet::IdentityKey;
use tokio::time::Instant;

/// Longest life of a token that is believed, whatever the coordinator says.
const LIFE_MAX: Duration = Duration::from_hours(24);

/// What a device shows besides the identity key: its own key, and after the first session the token
/// that lets it come back without the identity key. It has no `Debug`: it holds a key.
pub struct Device {
    key: IdentityKey,
    token: Mutex<Option<Kept>>,
}

#[derive(Clone)]
struct Kept {
    text: String,
    node: NodeId,
    coordinator: String,
    until: Instant,
}

impl Device {
    /// One with a key of its own, which need not be the identity's.
    pub fn new(key: IdentityKey) -> Self {
        Self { key, token: Mutex::new(None) }
    }

    /// One that is forgotten with this process.
    pub fn fresh() -> Self {
        Self::new(IdentityKey::generate(&mut rand::rng()))
    }

    /// The key that signs for the device.
    pub(crate) fn key(&self) -> &IdentityKey {
        &self.key
    }

    /// The token for a node at a coordinator. One that does not say who it is gets it, too: without the
    /// device's key a token is worth nothing.
    pub(crate) fn token(&self, node: &NodeId, coordinator: &str) -> Option<String> {
        let kept = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        let here = |kept: &&Kept| coordinator.is_empty() || kept.coordinator == coordinator;
        let good = kept.as_ref().filter(|kept| kept.node == *node && kept.until > Instant::now());
        good.filter(here).map(|kept| kept.text.clone())
    }

    /// Keeps what a coordinator gave.
    pub(crate) fn keep(&self, node: &NodeId, coordinator: &str, given: SessionToken) {
        let life = Duration::from_secs(given.secs).min(LIFE_MAX);
        let kept = Kept {
            text: given.token,
            node: node.clone(),
            coordinator: coordinator.to_owned(),
            until: Instant::now() + life,
        };
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
    }

    /// Forgets the token; `false` if there was none.
    pub(crate) fn forget(&self) -> bool {
        self.token.lock().unwrap_or_else(PoisonError::into_inner).take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_for_one_node_one_coordinator_and_a_while() {
        let device = Device::fresh();
        let node = |name: &str| NodeId::new(name).expect("valid");
        assert_eq!(device.token(&node("a"), "0xaa"), None);
        device.keep(&node("a"), "0xaa", SessionToken { token: "t".into(), secs: 60 });
        assert_eq!(device.token(&node("a"), "0xaa").as_deref(), Some("t"));
        assert_eq!(device.token(&node("a"), "").as_deref(), Some("t"), "a gateway has no key");
        assert_eq!(device.token(&node("b"), "0xaa"), None);
        assert_eq!(device.token(&node("a"), "0xbb"), None);
        assert!(device.forget());
        device.keep(&node("a"), "0xaa", SessionToken { token: "t".into(), secs: 0 });
        assert_eq!(device.token(&node("a"), "0xaa"), None, "its time is over");
        assert!(device.forget());
        assert!(!device.forget());
    }
}
