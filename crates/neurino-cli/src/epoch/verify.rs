//! `neurino epoch verify`: nothing is taken from the coordinator but the file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use neurino_core::Receipt;
use neurino_earnings::export::read_receipts;
use neurino_ledger::epoch::{
    Address, Entry, EpochFile, Movement, check_against, check_entries, read_entries,
};
use serde_json::json;

use super::{read, read_json};
use crate::output::{self, Format};

/// What the file is held against besides itself.
pub(super) struct Beside {
    pub(super) entries: Option<PathBuf>,
    pub(super) receipts: Option<PathBuf>,
    pub(super) previous: Option<PathBuf>,
    pub(super) coordinator: Option<Address>,
}

pub(super) fn run(format: Format, path: &Path, beside: &Beside) -> anyhow::Result<()> {
    let file: EpochFile = read_json(path)?;
    let mut held = vec!["totals, shares, leaves and root follow from its inputs".to_owned()];
    file.verify().context("THE FILE DOES NOT HOLD")?;
    signed(&file, beside.coordinator)?;
    held.push(format!("{} signed it", output::plain(&file.coordinator)));
    if let Some(path) = &beside.entries {
        let entries = read_entries(&read(path)?).with_context(|| path.display().to_string())?;
        check_entries(&file, &entries).context("THE FILE DOES NOT HOLD")?;
        held.push(format!("its sums are those of {} entries", entries.len()));
        if let Some(path) = &beside.receipts {
            let receipts =
                read_receipts(&read(path)?).with_context(|| path.display().to_string())?;
            let own = found(&file, &entries, &receipts)?;
            let others = receipts.len() - own;
            let besides =
                if others > 0 { format!("; {others} are of other weeks") } else { String::new() };
            held.push(format!(
                "all {own} receipts of its week are in it, as they were signed{besides}"
            ));
        }
    }
    if let Some(path) = &beside.previous {
        let previous: EpochFile = read_json(path)?;
        previous.verify().context("the file of the epoch before does not hold")?;
        check_against(&file, &previous).context("THE FILE DOES NOT FOLLOW the one before")?;
        held.push(format!("it goes on where epoch {} ended", previous.inputs.epoch));
    }
    match format {
        Format::Json => output::json(&json!({
            "holds": true,
            "epoch": file.inputs.epoch,
            "root": file.result.root,
            "total": file.result.total,
            "sha256": file.sha256()?,
            "checked": held,
        })),
        Format::Text => {
            let network = output::plain(&file.inputs.network);
            output::line(format!("Epoch {} of {network}", file.inputs.epoch));
            output::line(format!("Root   {}", file.result.root));
            output::line(format!(
                "Paid   {} to {} addresses, {} in all epochs",
                file.result.paid.shown(),
                file.result.accounts.len(),
                file.result.total.shown()
            ));
            for what in held {
                output::line(format!("Holds: {what}."));
            }
            Ok(())
        }
    }
}

fn signed(file: &EpochFile, coordinator: Option<Address>) -> anyhow::Result<()> {
    if let Some(expected) = coordinator {
        anyhow::ensure!(
            file.coordinator == expected.to_string(),
            "the file names {} as its coordinator, not {expected}",
            output::plain(&file.coordinator)
        );
    }
    neurino_wallet::verify(&file.message()?, &file.signature, &file.coordinator)
        .context("the coordinator that the file names did not sign it")
}

/// Every receipt of the week must be genuine and stand among the entries with what it was paid. Returns
/// how many there are.
fn found(file: &EpochFile, entries: &[Entry], receipts: &[Receipt]) -> anyhow::Result<usize> {
    let rewards = entries.iter().filter(|entry| entry.movement == Movement::Reward);
    let by_lease: BTreeMap<_, _> = rewards.map(|entry| (entry.lease, entry)).collect();
    let week = file.inputs.start_ms..file.inputs.end_ms;
    let mut own = 0;
    for receipt in receipts.iter().filter(|receipt| week.contains(&receipt.settled_at_ms)) {
        own += 1;
        let lease = receipt.lease;
        anyhow::ensure!(
            receipt.network == file.inputs.network,
            "the receipt of lease {lease} is of another network"
        );
        neurino_wallet::verify(&receipt.message(), &receipt.signature, &file.coordinator)
            .with_context(|| format!("the receipt of lease {lease} is not the coordinator's"))?;
        let entry = by_lease.get(&lease).with_context(|| {
            format!(
                "the receipt of lease {lease} is MISSING from this epoch's entries; if it was written \
                 down late, the next epoch has it"
            )
        })?;
        let same = entry.node == receipt.node
            && entry.job == receipt.job
            && entry.points == receipt.quote.points
            && entry.points_micro == receipt.quote.amount_micro.0;
        anyhow::ensure!(
            same,
            "the receipt of lease {lease} says {}, its entry another node or amount",
            receipt.quote.amount_micro
        );
        let is_paid = file.inputs.nodes.iter().any(|node| node.node == receipt.node);
        anyhow::ensure!(
            is_paid || entry.points_micro == 0,
            "the receipt of lease {lease} is among the entries, but its node {} is NOT PAID: it is not \
             among the nodes of this epoch. Only a node whose name begins with an address can be paid",
            output::plain(receipt.node.as_str())
        );
    }
    Ok(own)
}
