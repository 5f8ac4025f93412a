//! `neurino wallet`

use std::process::ExitCode;

use neurino_wallet::open_identity;
use serde_json::json;

use crate::Setting;
use crate::args::WalletAction;
use crate::output::{self, Format};

pub(crate) async fn run(setting: Setting, action: WalletAction) -> anyhow::Result<ExitCode> {
    let options = neurino_app::identity_options(&setting.dirs, &setting.settings);
    let identity = open_identity(options).await?;
    match action {
        WalletAction::Show => {
            let address = identity.key.address_checksummed();
            let store = identity.store.describe();
            match setting.format {
                Format::Json => output::json(&json!({ "address": address, "key_store": store }))?,
                Format::Text => {
                    output::line(format!("Address    {address}"));
                    output::line(format!("Key store  {store}"));
                }
            }
        }
        WalletAction::Phrase { reveal: false } => anyhow::bail!(
            "anybody who sees the twelve words can act as you; make sure that nobody looks over \
             your shoulder, then add --reveal"
        ),
        WalletAction::Phrase { reveal: true } => {
            use secrecy::ExposeSecret as _;
            let phrase = identity.key.phrase();
            match setting.format {
                Format::Json => output::json(&json!({ "phrase": phrase.expose_secret() }))?,
                Format::Text => output::line(phrase.expose_secret()),
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
