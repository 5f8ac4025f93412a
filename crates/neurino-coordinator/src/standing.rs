//! What the router and the split know of nodes and models besides their work: votes, uptime, who
//! brought a model. Read from the books, and again when somebody changed them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use neurino_core::{ModelId, NodeId};
use neurino_protocol::node::Capabilities;
use tokio::time::Instant;

use crate::coordinator::{Coordinator, now_ms};
use crate::error::StoreError;
use crate::router::Standing;
use crate::store::{Pod, Store};
use crate::vouchers::VoucherTerms;

const DAY_S: u64 = 24 * 3600;
/// Days over which uptime counts.
const UPTIME_DAYS: u64 = 30;

/// What whoever runs the network sets, and what was counted of its nodes.
pub(crate) struct Settings {
    version: AtomicI64,
    pods: RwLock<BTreeMap<ModelId, Pod>>,
    votes: RwLock<BTreeMap<NodeId, u64>>,
    vouchers: RwLock<Option<VoucherTerms>>,
    /// Seconds that nodes were connected in the last thirty days.
    uptimes: RwLock<BTreeMap<NodeId, u64>>,
}

impl Settings {
    pub(crate) async fn read(store: &Store) -> Result<Self, StoreError> {
        Ok(Self {
            version: AtomicI64::new(store.settings_version().await?),
            pods: RwLock::new(store.pods().await?),
            votes: RwLock::new(store.node_votes().await?),
            vouchers: RwLock::new(store.voucher_terms().await?),
            uptimes: RwLock::new(store.uptimes(today() - (UPTIME_DAYS - 1).cast_signed()).await?),
        })
    }

    /// Models that may be computed on a part of a card.
    pub(crate) fn shareable(&self) -> BTreeSet<ModelId> {
        let pods = self.pods.read().unwrap_or_else(PoisonError::into_inner);
        let shareable = pods.iter().filter(|(_, pod)| pod.shareable);
        shareable.map(|(model, _)| model.clone()).collect()
    }
}

/// Days since the Unix epoch.
fn today() -> i64 {
    now_ms() / 1000 / DAY_S.cast_signed()
}

fn set<T>(place: &RwLock<T>, value: T) {
    *place.write().unwrap_or_else(PoisonError::into_inner) = value;
}

impl Coordinator {
    /// Who brought a model, and the votes for it.
    pub(crate) fn pod(&self, model: &ModelId) -> Pod {
        let pods = self.settings.pods.read().unwrap_or_else(PoisonError::into_inner);
        pods.get(model).cloned().unwrap_or_default()
    }

    /// Where vouchers are collected, if they are taken.
    pub(crate) fn voucher_terms(&self) -> Option<VoucherTerms> {
        *self.settings.vouchers.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the order of nodes looks at, of a node that connects.
    pub(crate) fn standing(
        &self,
        node: &NodeId,
        capabilities: &Capabilities,
        class: String,
    ) -> Standing {
        let of = |place: &RwLock<BTreeMap<NodeId, u64>>| {
            let all = place.read().unwrap_or_else(PoisonError::into_inner);
            all.get(node).copied().unwrap_or(0)
        };
        let tenths = of(&self.settings.uptimes) * 10 / (UPTIME_DAYS * DAY_S);
        Standing {
            // A node without a card computes in the machine's memory, of which nothing is required.
            memory_bytes: if capabilities.gpu { capabilities.memory_bytes } else { 0 },
            referred_by: capabilities.referred_by.clone(),
            votes: of(&self.settings.votes),
            uptime_tenths: u8::try_from(tenths.min(10)).unwrap_or(10),
            class,
            // It says so with what it takes.
            scores: false,
        }
    }

    /// Reads keys, models and votes again if somebody changed them.
    pub(crate) async fn look_up_settings(self: &Arc<Self>) {
        let known = self.settings.version.load(Ordering::Relaxed);
        let changed = async {
            let version = self.store.settings_version().await?;
            if version != known {
                self.read_keys().await?;
                set(&self.settings.pods, self.store.pods().await?);
                if self.state().router.set_shareable(self.settings.shareable()) {
                    self.dispatch();
                }
                set(&self.settings.votes, self.store.node_votes().await?);
                set(&self.settings.vouchers, self.store.voucher_terms().await?);
                self.audits.reload(&self.store).await?;
                self.files.set_roots(self.store.file_roots().await?);
                if self.config.original {
                    let _order = self.miners.binding.lock().await;
                    self.miners.rebind(self.store.bindings().await?);
                }
                self.settings.version.store(version, Ordering::Relaxed);
            }
            Ok::<(), StoreError>(())
        };
        if let Err(error) = changed.await {
            tracing::warn!(?error, "keys and votes could not be read again: {error}");
        }
    }

    /// Writes down how long nodes were connected since the last time.
    pub(crate) async fn count_uptime(&self) {
        let (now, day) = (Instant::now(), today());
        let nodes: Vec<(NodeId, u64)> = {
            let mut guard = self.state();
            let state = &mut *guard;
            for (node, session) in &mut state.sessions {
                let seconds = now.duration_since(session.counted).as_secs();
                session.counted += std::time::Duration::from_secs(seconds);
                *state.uptime.entry(node.clone()).or_default() += seconds;
            }
            let all = std::mem::take(&mut state.uptime).into_iter();
            all.filter(|(_, seconds)| *seconds > 0).collect()
        };
        if nodes.is_empty() {
            return;
        }
        let counted = async {
            let added = self.store.add_uptime(day, nodes.clone()).await;
            if matches!(added, Err(StoreError::Unavailable)) {
                // Certainly not written: it counts with the next ones.
                let mut state = self.state();
                for (node, seconds) in nodes {
                    *state.uptime.entry(node).or_default() += seconds;
                }
            }
            added?;
            let since = day - (UPTIME_DAYS - 1).cast_signed();
            set(&self.settings.uptimes, self.store.uptimes(since).await?);
            Ok::<(), StoreError>(())
        };
        if let Err(error) = counted.await {
            tracing::warn!(?error, "uptimes could not be written: {error}");
        }
    }
}
