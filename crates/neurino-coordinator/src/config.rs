//! What a coordinator is opened with.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use neurino_core::audit::AuditRules;
use neurino_core::{ImageDefaults, ImageJob, ModelId};
use neurino_wallet::IdentityKey;

use crate::blobs::Bucket;
use crate::database::Database;
use crate::decoder::DecoderProcess;
use crate::error::CoordinatorError;
use crate::router::Sample;

/// A network and where its books are kept.
#[derive(Clone)]
pub struct CoordinatorConfig {
    /// Where the books are kept.
    pub database: Database,
    /// The file of the key with which prompts and answers in the books are sealed; made by whoever makes
    /// the books, and shared by coordinators that stand in for each other. See
    /// [`Database::payload_key`].
    pub payload_key: PathBuf,
    /// Whether to go on with another payload key where that of the books is lost. What it sealed is lost.
    pub new_payload_key: bool,
    /// Where pictures are kept and handed over instead of a folder beside the books.
    pub bucket: Option<Bucket>,
    /// The network's name; nodes sign it, receipts carry it.
    pub network: String,
    /// Whether it is the built-in practice network.
    pub practice: bool,
    /// The rule set that prices new jobs: an edition, or a family whose editions each hold from their day.
    pub rule_set: String,
    /// The price list that prices new prepaid jobs, in the same way.
    pub price_list: String,
    /// How many free nodes are compared for one job.
    pub sample: Sample,
    /// Memory that a node usually needs for a model, in bytes, where that is known: smaller nodes are
    /// told so. One that serves a model all the same gets its jobs.
    pub model_memory_bytes: BTreeMap<ModelId, u64>,
    /// Signs receipts.
    pub key: Arc<IdentityKey>,
    /// Sizes and waiting times.
    pub limits: Limits,
    /// Models that may be asked for besides those that rules list or nodes serve: on the practice
    /// network those of this machine, whose node may connect a moment later.
    pub own_models: Vec<ModelId>,
    /// Models that are known to make pictures, and what suits them. Of others the nodes that serve
    /// them say so.
    pub image_models: BTreeMap<ModelId, ImageDefaults>,
    /// Whether miners of the network's original protocol are served, too. They sign little of what
    /// they say, so they are for networks among friends.
    pub original: bool,
    /// The header in which the proxy in front says for whom it asks, for example `x-forwarded-for`. Only
    /// one that is near, and that sets this header itself, is believed.
    pub client_address_header: Option<String>,
    /// The addresses under which nodes reach it besides those of this machine, as `https://HOST` or
    /// `https://HOST:PORT`. A hello that was signed for another address is refused: somebody may have
    /// passed it on.
    pub known_as: Vec<String>,
    /// How results are checked by computing them again.
    pub audits: AuditRules,
    /// By which rules a week's points are shared, an edition or a family as with prices: those that hold when
    /// the week begins. No epochs are made if absent.
    pub epoch_rules: Option<String>,
    /// The program that reads strangers' pictures in processes of its own. Without one they are read in
    /// this process, which is for a network whose pictures are all this machine's.
    pub decoder: Option<DecoderProcess>,
    /// Seed of the router's choices; drawn from the system when absent.
    pub seed: Option<u64>,
}

impl CoordinatorConfig {
    /// The built-in practice network: name `practice`, rule set `practice3`.
    pub fn practice(database: impl Into<Database>, key: Arc<IdentityKey>) -> Self {
        let database = database.into();
        Self {
            payload_key: database.payload_key(),
            new_payload_key: false,
            database,
            bucket: None,
            network: "practice".into(),
            practice: true,
            rule_set: "practice3".into(),
            price_list: "credits".into(),
            sample: Sample::default(),
            model_memory_bytes: BTreeMap::new(),
            key,
            limits: Limits::default(),
            own_models: Vec::new(),
            image_models: BTreeMap::new(),
            original: false,
            client_address_header: None,
            known_as: Vec::new(),
            audits: AuditRules::built_in(),
            epoch_rules: None,
            decoder: None,
            seed: None,
        }
    }
}

/// How long a repeat under the same `Idempotency-Key` is the same job, in milliseconds.
pub const IDEMPOTENCY_MS: u64 = 24 * 3600 * 1000;

/// Sizes and waiting times. The defaults are the network's; tests shorten them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Open jobs at once; more are refused as overloaded. No payer has more of them than there is room left.
    pub open_jobs_max: usize,
    /// Time a text job has from its lease until its result earns nothing, in milliseconds.
    pub text_budget_ms: u64,
    /// The part of a picture's time that does not depend on its size, in milliseconds: loading the
    /// model, reading the prompt, sending the result.
    pub image_budget_ms: u64,
    /// The part for each pixel and step, in nanoseconds. Enough for a processor without a card.
    pub image_budget_ns_per_pixel_step: u64,
    /// Silence after which a node's session ends, in milliseconds: three heartbeats.
    pub silence_ms: u64,
    /// Time a node whose link broke has to come back and keep its leases, in milliseconds.
    pub reconnect_grace_ms: u64,
    /// The same after a restart of the coordinator, in milliseconds.
    pub recovery_grace_ms: u64,
    /// Time a job waits while no connected node serves its model, in milliseconds.
    pub no_node_wait_ms: u64,
    /// The same for a chat request, whose person is waiting, in milliseconds.
    pub chat_no_node_wait_ms: u64,
    /// How long a chat or picture request is kept whose client is gone unnoticed and cannot come back, in
    /// milliseconds.
    pub unwatched_ms: u64,
    /// Time a job waits for another node once every node that serves its model could not read the
    /// model, in milliseconds.
    pub unreadable_wait_ms: u64,
    /// Time after which a waiting batch job counts as interactive, in milliseconds.
    pub batch_age_ms: u64,
    /// How often it is looked which nodes should load another model, in milliseconds; 0 is never.
    pub advice_round_ms: u64,
    /// How long a node stays with a model at least, in milliseconds.
    pub advice_dwell_ms: u64,
    /// How long nobody must have asked for a model before nodes are told to unload it, in milliseconds;
    /// 0 is never.
    pub advice_idle_ms: u64,
    /// How long a job that needs a node of its own waits before one is held free for it, in milliseconds.
    pub reserve_after_ms: u64,
    /// How long a node is held free for such a job at most, and then not, in milliseconds.
    pub reserve_for_ms: u64,
    /// How many of a thousand jobs may be given to a second node because their first one is late; 0 is
    /// none.
    pub hedge_permille: u32,
    /// What no job counts as late before, in milliseconds.
    pub hedge_after_ms: u64,
    /// What no stream counts as stalled before that has not begun, in milliseconds; 0 is never.
    pub first_piece_ms: u64,
    /// Answers of fewer tokens take as long as their way here and back: their time says nothing of a
    /// node's speed.
    pub timed_tokens_min: u32,
    /// Failed attempts after which a job is given up. Jobs handed back do not count.
    pub failures_max: u32,
    /// How often a job may be handed back in a row until it is given up.
    pub hand_backs_max: u32,
    /// Jobs that all machines of one owner hold at once while nothing is known of that owner; each result
    /// adds some, and whoever was audited holds as many as it has slots. Not on the practice network.
    pub new_owner_leases_max: u32,
    /// Lost attempts (the node vanished) after which a job is given up. A backstop: engines live in
    /// processes of their own, so a node that vanishes says little about the job; power cuts and
    /// restarts are the usual cause.
    pub losses_max: u32,
    /// Largest request body, in bytes.
    pub body_bytes_max: usize,
    /// Largest prompt of a job, all messages together, in bytes.
    pub prompt_bytes_max: usize,
    /// Largest text of a result, in bytes.
    pub output_bytes_max: usize,
    /// Open node sessions at once.
    pub sessions_max: usize,
    /// Nodes of one owner at the same time.
    pub nodes_per_owner_max: usize,
    /// Sessions that one address may open in a minute; those of this machine are not counted.
    pub new_sessions_per_min: u32,
    /// Channels and vouchers that do not pay that one address may have looked up in a minute; those of
    /// this machine are not counted.
    pub voucher_lookups_per_min: u32,
    /// Requests that a payer of vouchers may send in a minute.
    pub voucher_requests_per_min: u32,
    /// Open HTTP connections at once; more wait in the listener's backlog.
    pub connections_max: usize,
    /// Time to send a request's head, and then its body, in milliseconds.
    pub request_read_ms: u64,
    /// How long the other side of a connection may take nothing of what is sent to it, in milliseconds.
    pub response_write_ms: u64,
    /// How long an audit waits for somebody of another owner who can compute a result again, and
    /// then for the result, in milliseconds.
    pub audit_wait_ms: u64,
    /// How often audits are taken a step further, in milliseconds.
    pub audit_round_ms: u64,
    /// How long after the result for which it was drawn a node is given a job whose answer is known, at
    /// most, in milliseconds: the moment is drawn, too.
    pub honeypot_wait_ms: u64,
    /// How often it is looked who is to show that the files of a model are there, in milliseconds; 0 is never.
    pub files_round_ms: u64,
    /// How long a node that showed them is left in peace, in milliseconds.
    pub files_every_ms: u64,
    /// The same for one that could not.
    pub files_retry_ms: u64,
    /// How long the answer may take, besides the time to read the file once, in milliseconds.
    pub files_within_ms: u64,
    /// How long a link to a picture is good, in milliseconds.
    pub picture_link_ms: u64,
    /// Age at which prompts, outputs and idempotency keys of finished jobs are shredded, in
    /// milliseconds. Postings and receipts are kept.
    pub payload_keep_ms: u64,
    /// The same for prompts and outputs that an audit still needs, or that a third run had to decide on:
    /// since the audit last changed. Nobody but audits reads them meanwhile.
    pub disputed_keep_ms: u64,
}

impl Limits {
    /// How long an attended job goes on while nobody waits for it: a client without a key is gone for good,
    /// at the latest once the coordinator has been restarted; one behind a gateway comes back as soon as
    /// the gateway has found a coordinator.
    pub(crate) fn patience(&self, has_key: bool, restored: bool) -> Duration {
        Duration::from_millis(match (has_key, restored) {
            (true, _) => 2 * self.silence_ms,
            (false, false) => self.unwatched_ms,
            (false, true) => 0,
        })
    }

    /// Time a picture has from its lease until its result earns nothing, in milliseconds.
    pub fn picture_budget_ms(&self, job: &ImageJob) -> u64 {
        let computing =
            self.image_budget_ns_per_pixel_step.saturating_mul(job.pixel_steps().into());
        self.image_budget_ms.saturating_add(computing / 1_000_000)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            open_jobs_max: 10_000,
            text_budget_ms: 180_000,
            image_budget_ms: 180_000,
            image_budget_ns_per_pixel_step: 400_000,
            silence_ms: 3 * neurino_protocol::node::HEARTBEAT_SECS * 1000,
            reconnect_grace_ms: 10_000,
            recovery_grace_ms: 20_000,
            no_node_wait_ms: 600_000,
            chat_no_node_wait_ms: 30_000,
            unwatched_ms: 10_000,
            unreadable_wait_ms: 5_000,
            batch_age_ms: 300_000,
            advice_round_ms: 30_000,
            advice_dwell_ms: 600_000,
            advice_idle_ms: 1_800_000,
            reserve_after_ms: 30_000,
            reserve_for_ms: 120_000,
            hedge_permille: 20,
            hedge_after_ms: 3_000,
            first_piece_ms: 10_000,
            timed_tokens_min: 32,
            failures_max: 3,
            hand_backs_max: 20,
            new_owner_leases_max: 8,
            losses_max: 100,
            body_bytes_max: 1 << 20,
            prompt_bytes_max: 256 << 10,
            output_bytes_max: 256 << 10,
            sessions_max: 10_000,
            nodes_per_owner_max: 64,
            new_sessions_per_min: 10,
            voucher_lookups_per_min: 120,
            voucher_requests_per_min: 1_200,
            connections_max: 16_384,
            request_read_ms: 10_000,
            response_write_ms: 60_000,
            audit_wait_ms: 600_000,
            audit_round_ms: 500,
            honeypot_wait_ms: 600_000,
            files_round_ms: 30_000,
            files_every_ms: 6 * 3600 * 1000,
            files_retry_ms: 600_000,
            files_within_ms: 600_000,
            picture_link_ms: 3600 * 1000,
            payload_keep_ms: IDEMPOTENCY_MS,
            disputed_keep_ms: 30 * 24 * 3600 * 1000,
        }
    }
}

/// Refuses an address that other machines can reach unless the listener or something in front of it
/// encrypts.
///
/// # Errors
/// [`CoordinatorError::NotLoopback`], which names the ways out.
pub fn check_listen_address(address: SocketAddr, encrypted: bool) -> Result<(), CoordinatorError> {
    if encrypted || address.ip().is_loopback() {
        Ok(())
    } else {
        Err(CoordinatorError::NotLoopback(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(address: &str, encrypted: bool, allowed: bool) {
        let address = address.parse().expect("a socket address");
        assert_eq!(check_listen_address(address, encrypted).is_ok(), allowed, "{address}");
    }

    #[test]
    fn a_larger_picture_has_more_time() {
        let model = ModelId::new("m").expect("valid");
        let budget =
            |side| Limits::default().picture_budget_ms(&ImageJob::new(model.clone(), "", side));
        assert_eq!(budget(512), 180_000 + 512 * 512 * 20 * 2 / 5);
        assert_eq!(budget(1024) - 180_000, 4 * (budget(512) - 180_000));
    }

    #[test]
    fn plain_http_stays_on_this_machine() {
        check("127.0.0.1:43110", false, true);
        check("127.8.9.10:43110", false, true);
        check("[::1]:43110", false, true);
        check("0.0.0.0:43110", false, false);
        check("192.168.1.4:43110", false, false);
        check("[::]:43110", false, false);
        check("0.0.0.0:43110", true, true);
    }
}
