//! `neurino voucher`: promises to a gateway, signed on this machine.

use std::process::ExitCode;

use neurino_ledger::epoch::{Address, epoch_of};
use neurino_wallet::{Escrow, SignedVoucher, Voucher, open_identity};
use serde_json::json;

use crate::Setting;
use crate::args::{EscrowArgs, VoucherAction};
use crate::output::{self, Format};

/// For how many epochs a voucher is good unless it is said otherwise.
const EPOCHS_AHEAD: i64 = 4;

pub(crate) async fn run(setting: Setting, action: VoucherAction) -> anyhow::Result<ExitCode> {
    match action {
        VoucherAction::Sign { escrow, gateway, cumulative, epoch } => {
            let options = neurino_app::identity_options(&setting.dirs, &setting.settings);
            let identity = open_identity(options).await?;
            let payer: Address = identity.key.address().parse()?;
            // Long enough that whoever is paid can collect it, with some weeks to spare.
            let next = epoch_of(jiff::Timestamp::now().as_millisecond()) + EPOCHS_AHEAD;
            let epoch = epoch.unwrap_or(u64::try_from(next)?);
            let cumulative = cumulative.try_into()?;
            let voucher = Voucher { payer: payer.0, gateway: gateway.0, cumulative, epoch };
            let signed = of(&escrow).sign(&identity.key, voucher)?;
            match setting.format {
                Format::Json => output::json(&json!({ "header": signed.to_string() }))?,
                Format::Text => output::line(format!("Neurino-Voucher: {signed}")),
            }
        }
        VoucherAction::Check { escrow, voucher } => {
            let text = voucher.strip_prefix("Neurino-Voucher:").unwrap_or(&voucher);
            let signed: SignedVoucher = text.trim().parse()?;
            of(&escrow).verify(&signed)?;
            let (payer, epoch) = (Address(signed.voucher.payer), signed.voucher.epoch);
            let cumulative = signed.voucher.cumulative.to_string();
            match setting.format {
                Format::Json => output::json(&json!({
                    "payer": payer, "gateway": Address(signed.voucher.gateway),
                    "cumulative": cumulative, "epoch": epoch,
                }))?,
                Format::Text => output::line(format!(
                    "{payer} promises {cumulative} units in all, until the end of epoch {epoch}."
                )),
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn of(escrow: &EscrowArgs) -> Escrow {
    Escrow { chain_id: escrow.chain_id, contract: escrow.contract.0 }
}
