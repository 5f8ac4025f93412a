//! Paying by voucher: a payer signs what it owes in all, and no key is needed.
//!
//! A deposit lies in a contract; whoever runs the network says of how much it knows (`admin`). Each
//! request carries a voucher that promises more than the one before it. Its increase becomes credits of
//! the payer, from which the job is held and settled like any other prepaid one. What a request does not
//! use is there for the next.

use std::sync::Arc;

use neurino_core::{IdempotencyKey, JobSpec, MicroCredits};
use neurino_ledger::PayerId;
use neurino_ledger::epoch::{Address, epoch_of};
use neurino_protocol::{ErrorBody, ErrorCode};
use neurino_wallet::{Escrow, SignedVoucher};
use serde::Serialize;
use serde_json::json;

use crate::admin::noted;
use crate::coordinator::{Coordinator, now_ms};
use crate::database::Database;
use crate::error::CoordinatorError;
use crate::keys::{Caller, KeyTerms};
use crate::store::{Beside, Booked, Booking, StoredKey};

/// How many epochs ahead a voucher may be good for: a year.
const EPOCHS_AHEAD: u64 = 53;
/// How many epochs a voucher must outlive the present one: a promise that ends sooner cannot be
/// collected in time.
const EPOCHS_LEFT: u64 = 2;

/// Where vouchers are collected, and what they count in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct VoucherTerms {
    /// The chain of the contract.
    pub chain_id: u64,
    /// The contract that holds deposits.
    pub contract: Address,
    /// Whom vouchers are made out to.
    pub gateway: Address,
    /// Smallest units of the token that a micro-credit costs.
    pub units_per_micro: u64,
}

impl VoucherTerms {
    /// What vouchers are signed for.
    pub fn escrow(&self) -> Escrow {
        Escrow { chain_id: self.chain_id, contract: self.contract.0 }
    }

    /// Micro-credits of an amount in the smallest units, if it is a whole number of them.
    fn micro(&self, signed: &SignedVoucher) -> Option<i64> {
        let units: u128 = signed.voucher.cumulative.try_into().ok()?;
        let per = u128::from(self.units_per_micro.max(1));
        units.is_multiple_of(per).then(|| i64::try_from(units / per).ok()).flatten()
    }

    /// The smallest units of micro-credits, as text.
    pub(crate) fn units(&self, micro: i64) -> String {
        (i128::from(micro) * i128::from(self.units_per_micro)).to_string()
    }
}

/// What a payer deposited, promised and spent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Channel {
    /// The payer's account, which is its address.
    pub payer: PayerId,
    /// What lies in the contract, in all.
    #[serde(rename = "deposit_micro")]
    pub deposit: MicroCredits,
    /// What was promised, in all.
    #[serde(rename = "cumulative_micro")]
    pub cumulative: MicroCredits,
    /// Promised and not spent.
    #[serde(rename = "available_micro")]
    pub available: MicroCredits,
    /// Set aside for open jobs.
    #[serde(rename = "held_micro")]
    pub held: MicroCredits,
    /// What jobs cost, in all: what should be collected.
    #[serde(rename = "spent_micro")]
    pub spent: MicroCredits,
    /// The last epoch in which the best voucher is good.
    pub epoch: i64,
    /// Its signature, if there is one.
    pub signature: Option<String>,
    /// Whether further vouchers are taken.
    pub is_open: bool,
}

/// Why a voucher does not pay, as whoever sent it should read it.
#[derive(Debug, Clone)]
pub(crate) struct Unpaid {
    /// A name for programs.
    pub(crate) name: &'static str,
    pub(crate) body: ErrorBody,
    /// The smallest promise that would do, in the smallest units of the token, where that is known.
    pub(crate) required: Option<String>,
}

fn unpaid(name: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Unpaid {
    let body = ErrorBody::new(ErrorCode::InsufficientCredits, message).with_hint(hint);
    Unpaid { name, body, required: None }
}

/// Why a request with a voucher is not answered.
#[derive(Debug, Clone)]
pub(crate) enum VoucherRefusal {
    /// It is malformed, forged, or for somebody else.
    Wrong(ErrorBody),
    /// It does not pay.
    Unpaid(Unpaid),
}

fn wrong(code: ErrorCode, message: impl Into<String>, hint: &str) -> VoucherRefusal {
    VoucherRefusal::Wrong(ErrorBody::new(code, message).with_hint(hint))
}

impl Coordinator {
    /// Whoever sends a voucher. It is proven to be the payer's; what it promises is booked when there
    /// is work ([`Coordinator::pay_ahead`]).
    pub(crate) async fn voucher_caller(&self, header: &str) -> Result<Caller, VoucherRefusal> {
        let Some(terms) = self.voucher_terms() else {
            let message = "this network takes no vouchers";
            let hint = "send the header `Authorization: Bearer nrn-…` instead";
            return Err(wrong(ErrorCode::Unauthorized, message, hint));
        };
        let signed: SignedVoucher = header.parse().map_err(|error| {
            let message = format!("the header `Neurino-Voucher` cannot be read: {error}");
            wrong(ErrorCode::InvalidRequest, message, "docs/API.md shows one")
        })?;
        let voucher = &signed.voucher;
        if voucher.gateway != terms.gateway.0 {
            let message = "the voucher is made out to another gateway";
            let hint = format!("make it out to {}", terms.gateway);
            return Err(wrong(ErrorCode::InvalidRequest, message, &hint));
        }
        let now = u64::try_from(epoch_of(now_ms())).unwrap_or(0);
        if voucher.epoch < now || voucher.epoch > now + EPOCHS_AHEAD {
            let message = format!("the voucher is good in epoch {} at most", voucher.epoch);
            let hint = format!("it is epoch {now} now; sign one for up to {}", now + EPOCHS_AHEAD);
            return Err(VoucherRefusal::Unpaid(unpaid("voucher_expired", message, hint)));
        }
        let address = Address(voucher.payer);
        let payer = PayerId::new(address.to_string()).map_err(|_| no_channel(&terms))?;
        // Before the books are asked: whoever has no key of the payer's costs no more than this.
        terms.escrow().verify(&signed).map_err(|error| {
            let hint = "sign the voucher with the payer's key, for the chain and contract that \
                        /v1/vouchers names";
            wrong(ErrorCode::BadSignature, format!("the voucher: {error}"), hint)
        })?;
        let channel = self.store.voucher_channel(&payer).await;
        let channel = channel.map_err(|error| VoucherRefusal::Wrong(error.body()))?;
        if channel.is_none_or(|channel| !channel.is_open) {
            return Err(no_channel(&terms));
        }
        let key = StoredKey {
            id: payer.to_string(),
            name: "voucher".into(),
            sha256: [0; 32],
            created_at_ms: 0,
            terms: KeyTerms {
                payer: Some(payer.clone()),
                prepaid: true,
                requests_per_min: Some(self.config.limits.voucher_requests_per_min),
                ..KeyTerms::default()
            },
            revoked_at_ms: None,
            old: None,
        };
        Ok(Caller { key: Arc::new(key), payer, voucher: Some(Arc::new(signed)) })
    }

    /// Books what a request's voucher promises, if it came with one: all that its jobs may cost must be
    /// covered, or nothing is booked. `repeat` is the key of its first job.
    pub(crate) async fn pay_ahead(
        self: &Arc<Self>,
        caller: &Caller,
        repeat: Option<&IdempotencyKey>,
        specs: impl IntoIterator<Item = JobSpec>,
    ) -> Result<(), VoucherRefusal> {
        let Some(signed) = &caller.voucher else { return Ok(()) };
        let Some(terms) = self.voucher_terms() else { return Ok(()) };
        let mut needed: i64 = 0;
        for spec in specs {
            let most = self.price_at_most(&spec).map_err(VoucherRefusal::Wrong)?;
            needed = needed.saturating_add(most.0);
        }
        let cumulative_micro = terms.micro(signed).ok_or_else(|| {
            let message = "`cumulative` of the voucher is too large, or no whole number of \
                           micro-credits";
            let hint = format!("a micro-credit is {} units", terms.units_per_micro);
            wrong(ErrorCode::InvalidRequest, message, &hint)
        })?;
        let booking = Booking {
            payer: caller.payer.clone(),
            cumulative_micro,
            // An epoch within a year of now.
            epoch: i64::try_from(signed.voucher.epoch).unwrap_or(i64::MAX),
            epoch_min: epoch_of(now_ms()).saturating_add_unsigned(EPOCHS_LEFT),
            signature: signed.signature.clone(),
            needed: MicroCredits(needed),
            repeat: repeat.map(|key| key.as_str().to_owned()),
            at_ms: now_ms(),
        };
        let this = Arc::clone(self);
        let booked = self.to_the_end(async move {
            this.store.book_voucher(booking).await.map_err(|error| error.body())
        });
        match booked.await.map_err(VoucherRefusal::Wrong)? {
            Booked::Taken | Booked::Repeat => Ok(()),
            Booked::NoChannel => Err(no_channel(&terms)),
            refused => Err(VoucherRefusal::Unpaid(lacking(&terms, refused))),
        }
    }
}

fn no_channel(terms: &VoucherTerms) -> VoucherRefusal {
    let message = "this gateway knows no open deposit of the voucher's payer";
    let hint = format!(
        "deposit into the contract {} on chain {} and have whoever runs this network open the channel",
        terms.contract, terms.chain_id
    );
    VoucherRefusal::Unpaid(unpaid("voucher_channel_unknown", message, hint))
}

fn lacking(terms: &VoucherTerms, refused: Booked) -> Unpaid {
    let sign = |micro| format!("sign a voucher for a cumulative amount of {}", terms.units(micro));
    match refused {
        Booked::Used { last_micro, required_micro } => {
            let message = format!(
                "the voucher was used: {} were promised before, and each request promises more",
                terms.units(last_micro)
            );
            let required = Some(terms.units(required_micro));
            Unpaid { required, ..unpaid("voucher_used", message, sign(required_micro)) }
        }
        Booked::Early { epoch_min } => {
            let message = format!("the voucher must be good until epoch {epoch_min} at least");
            let hint = format!(
                "it is epoch {} now; a promise must last until it can be collected, and no shorter \
                 than the one before it: sign one for epoch {epoch_min} or later",
                epoch_of(now_ms())
            );
            unpaid("voucher_ends_early", message, hint)
        }
        Booked::Short { required_micro } => {
            let message = "the voucher does not cover what this request may cost";
            let hint = format!("{}, or ask for less", sign(required_micro));
            let required = Some(terms.units(required_micro));
            Unpaid { required, ..unpaid("voucher_too_low", message, hint) }
        }
        Booked::OverDeposit { deposit_micro } => {
            let message = format!(
                "the deposit is used up: {} units of it are known here",
                terms.units(deposit_micro)
            );
            let hint = "deposit more and have whoever runs this network take note, or ask for less";
            unpaid("deposit_too_low", message, hint)
        }
        Booked::Taken | Booked::Repeat | Booked::NoChannel => {
            unpaid("voucher_channel_unknown", "the voucher was not taken", "try again")
        }
    }
}

/// Says where vouchers are collected.
///
/// # Errors
/// `Voucher` (numbers that make no sense, or promises to another place are kept), `NoBooks`, `Store`.
pub async fn set_terms(database: &Database, terms: &VoucherTerms) -> Result<(), CoordinatorError> {
    let fits = i64::try_from(terms.chain_id).is_ok_and(|id| id > 0)
        && i64::try_from(terms.units_per_micro).is_ok_and(|units| units > 0);
    if !fits {
        return Err(CoordinatorError::Voucher("chain and units are numbers above zero"));
    }
    let mut books = Beside::begin_act(database).await?;
    let kept = "vouchers for another contract are kept; collect them first, their payers cannot sign \
                them again";
    let outcome = done(books.set_voucher_terms(terms).await?, kept);
    noted(&mut books, "voucher terms set", json!(terms), outcome).await
}

/// Opens a payer's channel, or says how large its deposit is now, in all.
///
/// # Errors
/// `Voucher` (nothing, or less than was promised), `NoBooks`, `Store`.
pub async fn open_channel(
    database: &Database,
    payer: Address,
    deposit: MicroCredits,
) -> Result<(), CoordinatorError> {
    if deposit.0 <= 0 {
        return Err(CoordinatorError::Voucher("a deposit is more than nothing"));
    }
    let payer = account(payer)?;
    let mut books = Beside::begin_act(database).await?;
    let promised = "more than that was promised; `vouchers list` shows how much";
    let outcome = done(books.open_voucher_channel(&payer, deposit).await?, promised);
    let about = json!({ "payer": payer, "deposit_micro": deposit });
    noted(&mut books, "voucher channel opened", about, outcome).await
}

/// Closes a payer's channel; its open jobs go on.
///
/// # Errors
/// `Voucher` (none that is open), `NoBooks`, `Store`.
pub async fn close_channel(database: &Database, payer: Address) -> Result<(), CoordinatorError> {
    let payer = account(payer)?;
    let mut books = Beside::begin_act(database).await?;
    let closed = books.close_voucher_channel(&payer, now_ms()).await?;
    let outcome = done(closed, "that payer has no open channel");
    noted(&mut books, "voucher channel closed", json!({ "payer": payer }), outcome).await
}

fn done(done: bool, else_words: &'static str) -> Result<(), CoordinatorError> {
    if done { Ok(()) } else { Err(CoordinatorError::Voucher(else_words)) }
}

/// Where vouchers are collected, and all channels with their best vouchers.
///
/// # Errors
/// `NoBooks`, `Store`.
pub async fn channels(
    database: &Database,
) -> Result<(Option<VoucherTerms>, Vec<Channel>), CoordinatorError> {
    let mut books = open(database).await?;
    Ok((books.voucher_terms().await?, books.voucher_channels().await?))
}

fn account(payer: Address) -> Result<PayerId, CoordinatorError> {
    PayerId::new(payer.to_string())
        .map_err(|_| CoordinatorError::Voucher("an address is `0x` and 40 hex digits"))
}

async fn open(database: &Database) -> Result<Beside, CoordinatorError> {
    Beside::open(database).await
}
