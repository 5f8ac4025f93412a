//! `neurino coordinator vouchers`: where they are collected, who may send them, what to collect.

use neurino_coordinator::Database;
use neurino_coordinator::vouchers::{self, Channel, VoucherTerms};
use serde_json::json;

use crate::Setting;
use crate::args::VouchersAction;
use crate::output::{self, Format};

pub(super) async fn run(
    setting: &Setting,
    database: &Database,
    action: &VouchersAction,
) -> anyhow::Result<()> {
    let format = setting.format;
    let said = match action {
        VouchersAction::List => return list(format, database).await,
        VouchersAction::Terms { escrow, gateway, units_per_micro } => {
            let terms = VoucherTerms {
                chain_id: escrow.chain_id,
                contract: escrow.contract,
                gateway: match gateway {
                    Some(gateway) => *gateway,
                    None => super::address_of(setting, database).await?,
                },
                units_per_micro: *units_per_micro,
            };
            vouchers::set_terms(database, &terms).await?;
            format!("Vouchers are taken, made out to {}.", terms.gateway)
        }
        VouchersAction::Open { payer, deposit } => {
            vouchers::open_channel(database, *payer, *deposit).await?;
            format!("{payer} may promise up to {deposit} credits in all.")
        }
        VouchersAction::Close { payer } => {
            vouchers::close_channel(database, *payer).await?;
            format!("No further voucher of {payer} is taken. Collect the last one in time.")
        }
    };
    match format {
        Format::Json => output::json(&json!({ "done": said })),
        Format::Text => {
            output::line(said);
            Ok(())
        }
    }
}

async fn list(format: Format, database: &Database) -> anyhow::Result<()> {
    let (terms, channels) = vouchers::channels(database).await?;
    if format == Format::Json {
        return output::json(&json!({ "terms": terms, "channels": channels }));
    }
    let Some(terms) = terms else {
        output::line("No vouchers are taken; `vouchers terms` says where they are collected.");
        return Ok(());
    };
    output::line(format!(
        "Collected by the contract {} on chain {}, for {}; a millionth of a credit is {} units",
        terms.contract, terms.chain_id, terms.gateway, terms.units_per_micro
    ));
    for Channel { payer, deposit, cumulative, spent, held, epoch, is_open, signature, .. } in
        channels
    {
        let state = if is_open { "open" } else { "closed" };
        output::line(format!(
            "{payer}  {state}: {deposit} deposited, {cumulative} promised, {spent} spent, {held} set \
             aside"
        ));
        if let Some(signature) = signature {
            output::line(format!("    collect until the end of epoch {epoch}: {signature}"));
        }
    }
    Ok(())
}
