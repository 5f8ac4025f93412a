//! A coordinator that speaks only the network's original protocol: `session` (polls and the signal),
//! `results` (handing them in), `ask` (requests), `wire` (jobs and results as that protocol has them),
//! `upload` (pictures to S3).
//!
//! That protocol knows no session, no heartbeat and no receipt. A session here lasts as long as the
//! coordinator answers; what it takes is told to the miner as `Accepted`, what it has to say to the
//! person as `Notice`. docs/ORIGINAL_PROTOCOL.md describes it.

mod ask;
mod results;
mod session;
pub(crate) mod upload;
mod wire;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use neurino_core::{LeaseId, NodeId};
use neurino_protocol::node::Capabilities;
use neurino_wallet::IdentityKey;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use crate::http::{CONNECT_LIMIT, check, is_loopback};
use crate::{ClientError, Coordinator, Session};
use session::{Run, Working};

/// Messages that may wait in either direction.
const CHANNEL: usize = 64;
/// Longest tag that is told the coordinator.
const TAG_MAX: usize = 32;

/// Where a coordinator of the original protocol is, and whom it pays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginalOptions {
    /// Base URL of jobs and results, for example `https://pool.example`.
    pub url: String,
    /// Base URL of the signal, if it is another one.
    pub signal_url: Option<String>,
    /// An S3 endpoint for pictures; without it the bucket's own at Amazon, or for a coordinator on
    /// this machine the coordinator itself.
    pub upload_url: Option<String>,
    /// The address that is paid, `0x` and 40 hex digits; without it that of the identity key.
    pub reward: Option<String>,
}

impl OriginalOptions {
    /// Everything at one URL, paid to the identity key's address.
    pub fn at(url: impl Into<String>) -> Self {
        Self { url: url.into(), signal_url: None, upload_url: None, reward: None }
    }
}

/// A coordinator reached by the original protocol. Clones are cheap; jobs outlive a session.
#[derive(Clone)]
pub struct OriginalCoordinator {
    shared: Arc<Shared>,
}

/// What all sessions share.
pub(crate) struct Shared {
    pub(crate) address: String,
    pub(crate) signal_url: String,
    pub(crate) uploads: upload::Target,
    pub(crate) reward: Option<String>,
    pub(crate) client: reqwest::Client,
    /// Jobs that were taken and not answered for.
    pub(crate) working: Mutex<HashMap<LeaseId, Working>>,
}

impl std::fmt::Debug for OriginalCoordinator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("OriginalCoordinator").field(&self.shared.address).finish()
    }
}

impl OriginalCoordinator {
    /// Prepares to talk to a coordinator. Connects nowhere yet.
    ///
    /// # Errors
    /// [`ClientError::BadAddress`] for URLs as [`crate::HttpCoordinator::new`] refuses them (but for
    /// `/v1`), [`ClientError::BadReward`] for a reward address that is none.
    pub fn new(options: &OriginalOptions) -> Result<Self, ClientError> {
        let base = check(&options.url)?;
        let local = is_loopback(&base);
        let address = base.as_str().trim_end_matches('/').to_owned();
        let signal_url = match &options.signal_url {
            Some(url) => check(url)?.as_str().trim_end_matches('/').to_owned(),
            None => address.clone(),
        };
        let reward = match &options.reward {
            Some(reward) => Some(reward_address(reward)?),
            None => None,
        };
        let uploads = match &options.upload_url {
            Some(url) => upload::Target::endpoint(&check(url)?, local),
            None if local => upload::Target::endpoint(&base, local),
            None => upload::Target::amazon(),
        };
        let mut client = reqwest::Client::builder()
            .connect_timeout(CONNECT_LIMIT)
            // A signed result goes to the address the person gave and nowhere else.
            .redirect(reqwest::redirect::Policy::none());
        if local {
            client = client.no_proxy();
        }
        let client = client.build().map_err(|e| ClientError::unreachable(&options.url, e))?;
        let working = Mutex::default();
        let shared = Shared { address, signal_url, uploads, reward, client, working };
        Ok(Self { shared: Arc::new(shared) })
    }
}

fn reward_address(text: &str) -> Result<String, ClientError> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.strip_prefix("0x").unwrap_or_default();
    if digits.len() == 40 && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(lower);
    }
    Err(ClientError::BadReward)
}

/// The miner's id: who is paid, and a tag that tells machines apart.
fn miner_id(reward: &str, node: &NodeId, device: &str) -> String {
    let own = node.as_str().split_once('-').map(|(_, tag)| tag.replace('-', "_"));
    let tag = own.filter(|tag| !tag.is_empty() && tag.len() <= TAG_MAX).unwrap_or_else(|| {
        // As many digits as the original takes of a card's number, which is not known here.
        hex::encode(&Sha256::digest(format!("{node}\n{device}"))[..3])
    });
    format!("{reward}-{tag}")
}

#[async_trait]
impl Coordinator for OriginalCoordinator {
    async fn connect(
        &self,
        key: &IdentityKey,
        node: &NodeId,
        capabilities: &Capabilities,
    ) -> Result<Session, ClientError> {
        let shared = Arc::clone(&self.shared);
        // Any answer shows that somebody is there; the protocol has no question to begin with.
        let knock = shared.client.head(&shared.address).timeout(CONNECT_LIMIT).send().await;
        knock.map_err(|e| ClientError::unreachable(&shared.address, e.without_url()))?;
        let (outbox, from_miner) = mpsc::channel(CHANNEL);
        let (to_miner, messages) = mpsc::channel(CHANNEL);
        let reward = shared.reward.clone().unwrap_or_else(|| key.address());
        let miner_id = miner_id(&reward, node, &capabilities.device);
        let device = capabilities.device.clone();
        let run = Run::new(shared, key.copy(), reward, miner_id, device, to_miner);
        tokio::spawn(run.until_over(from_miner));
        let network = format!("original {}", self.shared.address);
        Ok(Session { network, coordinator: String::new(), outbox, messages })
    }

    fn address(&self) -> String {
        self.shared.address.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_miners_id_is_the_reward_address_and_a_tag() {
        let node = |text: &str| NodeId::new(text).expect("valid");
        assert_eq!(miner_id("0xaa", &node("0xbb-rig-1"), "card"), "0xaa-rig_1");
        let made = miner_id("0xaa", &node("0xbb"), "card");
        assert_eq!(made, miner_id("0xaa", &node("0xbb"), "card"));
        assert_ne!(made, miner_id("0xaa", &node("0xbb"), "another card"));
        assert_eq!(made.len(), "0xaa-123456".len());
    }

    #[test]
    fn addresses_are_checked_before_anything_is_sent() {
        let reward = format!("0x{}", "aB".repeat(20));
        let options = OriginalOptions {
            reward: Some(reward),
            ..OriginalOptions::at("https://pool.example/base/")
        };
        let good = OriginalCoordinator::new(&options).expect("good");
        assert_eq!(good.address(), "https://pool.example/base");
        let bad = |change: &dyn Fn(&mut OriginalOptions)| {
            let mut options = options.clone();
            change(&mut options);
            assert!(OriginalCoordinator::new(&options).is_err(), "{options:?}");
        };
        bad(&|o| o.url = "http://pool.example".into());
        bad(&|o| o.signal_url = Some("http://pool.example".into()));
        bad(&|o| o.upload_url = Some("ftp://pool.example".into()));
        bad(&|o| o.reward = Some("0x12".into()));
        let options = OriginalOptions { reward: Some("garbage".into()), ..options.clone() };
        let error = OriginalCoordinator::new(&options).expect_err("refused");
        assert!(matches!(error, ClientError::BadReward), "{error}");
    }
}
