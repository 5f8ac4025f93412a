//! Vouchers in the books: where deposits lie, what each payer promised, and the credits that came of
//! it.

use neurino_core::{MicroCredits, MicroPoints};
use neurino_ledger::{Account, EntryKind, Event, PayerId, Unit, event_of_deposit};

use super::sql::{Connection, Place, query};
use super::{Beside, Store, writer};
use crate::error::StoreError;
use crate::vouchers::{Channel, VoucherTerms};

/// A voucher whose signature was checked, and what it is to cover.
#[derive(Debug, Clone)]
pub(crate) struct Booking {
    pub(crate) payer: PayerId,
    /// All that was ever promised, in micro-credits.
    pub(crate) cumulative_micro: i64,
    pub(crate) epoch: i64,
    /// The first epoch that it may end with, as of now.
    pub(crate) epoch_min: i64,
    pub(crate) signature: String,
    /// What must be there for the request.
    pub(crate) needed: MicroCredits,
    /// Under which key a job of the payer makes this a repeat.
    pub(crate) repeat: Option<String>,
    pub(crate) at_ms: i64,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Booked {
    /// Its increase is in the payer's account.
    Taken,
    /// The request was taken before; nothing was booked.
    Repeat,
    /// The payer has no open channel.
    NoChannel,
    /// It promises no more than this, which was promised before.
    Used { last_micro: i64, required_micro: i64 },
    /// It would end before this epoch: too soon to be collected, or before the promise that it is to
    /// take the place of.
    Early { epoch_min: i64 },
    /// It does not cover the request; this would.
    Short { required_micro: i64 },
    /// The deposit is no larger than this.
    OverDeposit { deposit_micro: i64 },
}

async fn terms(place: Place<'_>) -> Result<Option<VoucherTerms>, StoreError> {
    let row: Option<(i64, String, String, i64)> =
        query("SELECT chain_id, contract, gateway, units_per_micro FROM voucher_escrow")
            .fetch_optional(place)
            .await?;
    let unreadable = || StoreError::Unreadable { what: "escrow" };
    row.map(|(chain_id, contract, gateway, units)| {
        Ok(VoucherTerms {
            chain_id: u64::try_from(chain_id).map_err(|_| unreadable())?,
            contract: contract.parse().map_err(|_| unreadable())?,
            gateway: gateway.parse().map_err(|_| unreadable())?,
            units_per_micro: u64::try_from(units).map_err(|_| unreadable())?,
        })
    })
    .transpose()
}

type Row = (String, i64, i64, i64, Option<String>, Option<i64>);

async fn channel(c: &mut Connection, payer: &PayerId) -> Result<Option<Row>, StoreError> {
    let statement = "SELECT payer, deposit_micro, cumulative_micro, epoch, signature, closed_at_ms \
                     FROM voucher_channel WHERE payer = $1";
    Ok(query(statement).bind(payer.as_str().to_owned()).fetch_optional(c).await?)
}

async fn balance(place: Place<'_>, account: &Account) -> Result<i64, StoreError> {
    let statement = "SELECT amount_micro FROM credit_balance WHERE account = $1";
    let balance: Option<i64> =
        query(statement).bind(account.to_string()).fetch_optional(place).await?;
    Ok(balance.unwrap_or(0))
}

/// Books a voucher, within the caller's transaction: the order of the writes decides between two that
/// race.
pub(super) async fn book(c: &mut Connection, booking: &Booking) -> Result<Booked, StoreError> {
    let Some((_, deposit_micro, last_micro, last_epoch, _, None)) =
        channel(c, &booking.payer).await?
    else {
        return Ok(Booked::NoChannel);
    };
    if let Some(key) = &booking.repeat {
        let statement = "SELECT id FROM job WHERE payer = $1 AND idempotency_key = $2";
        let known: Option<String> = query(statement)
            .bind(booking.payer.as_str().to_owned())
            .bind(key.clone())
            .fetch_optional(&mut *c)
            .await?;
        if known.is_some() {
            return Ok(Booked::Repeat);
        }
    }
    let account = Account::Payer(booking.payer.clone());
    let has = balance((&mut *c).into(), &account).await?;
    let lacks = booking.needed.0.saturating_sub(has).max(1);
    let required_micro = last_micro.saturating_add(lacks);
    let increase = booking.cumulative_micro.saturating_sub(last_micro);
    if increase <= 0 {
        return Ok(Booked::Used { last_micro, required_micro });
    }
    let epoch_min = last_epoch.max(booking.epoch_min);
    if booking.epoch < epoch_min {
        return Ok(Booked::Early { epoch_min });
    }
    if booking.cumulative_micro > deposit_micro || required_micro > deposit_micro {
        return Ok(Booked::OverDeposit { deposit_micro });
    }
    if increase < lacks {
        return Ok(Booked::Short { required_micro });
    }
    // Whatever was read above: a channel that was closed or made smaller meanwhile takes nothing.
    let kept = query(
        "UPDATE voucher_channel SET cumulative_micro = $1, epoch = $2, signature = $3 \
         WHERE payer = $4 AND closed_at_ms IS NULL AND deposit_micro >= $1 AND epoch <= $2",
    )
    .bind(booking.cumulative_micro)
    .bind(booking.epoch)
    .bind(booking.signature.clone())
    .bind(booking.payer.as_str().to_owned())
    .execute(&mut *c)
    .await?;
    if kept != 1 {
        return Ok(Booked::NoChannel);
    }
    let reference = format!("voucher {}", booking.cumulative_micro);
    let event = Event::transfer(
        event_of_deposit(&booking.payer, &reference),
        EntryKind::CreditDeposit,
        Unit::Credit,
        Account::Issuance,
        account,
        MicroPoints(increase),
    )
    .map_err(|_| StoreError::Unreadable { what: "voucher" })?;
    writer::post(c, &event, booking.at_ms).await?;
    Ok(Booked::Taken)
}

async fn channel_of(c: &mut Connection, row: Row) -> Result<Channel, StoreError> {
    let (payer, deposit, cumulative, epoch, signature, closed_at_ms) = row;
    let payer = PayerId::new(payer).map_err(|_| StoreError::Unreadable { what: "payer" })?;
    let available = balance((&mut *c).into(), &Account::Payer(payer.clone())).await?;
    let held = balance(c.into(), &Account::Held(payer.clone())).await?;
    Ok(Channel {
        payer,
        deposit: MicroCredits(deposit),
        cumulative: MicroCredits(cumulative),
        available: MicroCredits(available),
        held: MicroCredits(held),
        spent: MicroCredits(cumulative.saturating_sub(available).saturating_sub(held)),
        epoch,
        signature,
        is_open: closed_at_ms.is_none(),
    })
}

impl Store {
    /// Where vouchers are collected, if they are.
    pub(crate) async fn voucher_terms(&self) -> Result<Option<VoucherTerms>, StoreError> {
        terms(self.readers().into()).await
    }

    /// A payer's channel.
    pub(crate) async fn voucher_channel(
        &self,
        payer: &PayerId,
    ) -> Result<Option<Channel>, StoreError> {
        let mut c = self.readers().acquire().await?;
        match channel(&mut c, payer).await? {
            Some(row) => channel_of(&mut c, row).await.map(Some),
            None => Ok(None),
        }
    }

    /// Books a voucher.
    pub(crate) async fn book_voucher(&self, booking: Booking) -> Result<Booked, StoreError> {
        self.write(|reply| writer::Write::Voucher(Box::new(booking), reply)).await
    }
}

impl Beside {
    /// Where vouchers are collected, if they are.
    pub(crate) async fn voucher_terms(&mut self) -> Result<Option<VoucherTerms>, StoreError> {
        terms((&mut self.0).into()).await
    }

    /// Says where vouchers are collected; `false` if promises to another place are kept.
    pub(crate) async fn set_voucher_terms(
        &mut self,
        terms: &VoucherTerms,
    ) -> Result<bool, StoreError> {
        query(
            "INSERT INTO voucher_escrow (one, chain_id, contract, gateway, units_per_micro) \
             VALUES (1, $1, $2, $3, $4) ON CONFLICT (one) DO UPDATE SET \
             chain_id = excluded.chain_id, contract = excluded.contract, \
             gateway = excluded.gateway, units_per_micro = excluded.units_per_micro \
             WHERE NOT EXISTS (SELECT 1 FROM voucher_channel v WHERE v.cumulative_micro > 0)",
        )
        .bind(i64::try_from(terms.chain_id).unwrap_or(i64::MAX))
        .bind(terms.contract.to_string())
        .bind(terms.gateway.to_string())
        .bind(i64::try_from(terms.units_per_micro).unwrap_or(i64::MAX))
        .execute(&mut self.0)
        .await?;
        Ok(self.voucher_terms().await?.as_ref() == Some(terms))
    }

    /// Opens a payer's channel, or says how large its deposit is now; `false` if more was promised.
    pub(crate) async fn open_voucher_channel(
        &mut self,
        payer: &PayerId,
        deposit: MicroCredits,
    ) -> Result<bool, StoreError> {
        let done = query(
            "INSERT INTO voucher_channel (payer, deposit_micro) VALUES ($1, $2) \
             ON CONFLICT (payer) DO UPDATE SET deposit_micro = excluded.deposit_micro, \
             closed_at_ms = NULL WHERE voucher_channel.cumulative_micro <= excluded.deposit_micro",
        )
        .bind(payer.as_str().to_owned())
        .bind(deposit.0)
        .execute(&mut self.0)
        .await?;
        Ok(done == 1)
    }

    /// Closes a payer's channel: no further voucher is taken; `false` if there is none that is open.
    pub(crate) async fn close_voucher_channel(
        &mut self,
        payer: &PayerId,
        at_ms: i64,
    ) -> Result<bool, StoreError> {
        let done = query(
            "UPDATE voucher_channel SET closed_at_ms = $1 WHERE payer = $2 AND closed_at_ms IS NULL",
        )
        .bind(at_ms)
        .bind(payer.as_str().to_owned())
        .execute(&mut self.0)
        .await?;
        Ok(done == 1)
    }

    /// All channels, by payer.
    pub(crate) async fn voucher_channels(&mut self) -> Result<Vec<Channel>, StoreError> {
        let statement = "SELECT payer, deposit_micro, cumulative_micro, epoch, signature, \
                         closed_at_ms FROM voucher_channel ORDER BY payer";
        let rows: Vec<Row> = query(statement).fetch_all(&mut self.0).await?;
        let mut all = Vec::with_capacity(rows.len());
        for row in rows {
            all.push(channel_of(&mut self.0, row).await?);
        }
        Ok(all)
    }
}
