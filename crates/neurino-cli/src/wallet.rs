//! `neurino wallet`

use std::path::Path;
use std::process::ExitCode;

use neurino_config::InstanceLock;
use neurino_wallet::{former_identities, open_identity, restore_former};
use serde_json::json;

use crate::Setting;
use crate::args::WalletAction;
use crate::output::{self, Format};

pub(crate) async fn run(setting: Setting, action: WalletAction) -> anyhow::Result<ExitCode> {
    if let WalletAction::Former { restore, yes } = action {
        return former(&setting, restore, yes).await;
    }
    let options = neurino_app::identity_options(&setting.dirs, &setting.settings);
    let identity = open_identity(options).await?;
    match action {
        WalletAction::Former { .. } => unreachable!("answered above"),
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

/// Lists former identities, or goes back to one.
async fn former(setting: &Setting, restore: Option<String>, yes: bool) -> anyhow::Result<ExitCode> {
    let Some(address) = restore else {
        let addresses = former_identities(&setting.dirs.data)?;
        match setting.format {
            Format::Json => output::json(&json!({ "former": addresses }))?,
            Format::Text if addresses.is_empty() => {
                output::line("No identity was ever replaced on this machine.");
            }
            Format::Text => addresses.iter().for_each(output::line),
        }
        return Ok(ExitCode::SUCCESS);
    };
    if !yes {
        anyhow::bail!(
            "points and bindings belong to the identity that earned them; say with --yes that this \
             machine is to mine as {address} from now on (the present identity is kept)"
        );
    }
    // Nothing is signed by one identity and sent by another.
    let _alone = InstanceLock::acquire(&setting.dirs)?;
    if has_unsent_results(&setting.dirs.outbox) {
        anyhow::bail!(
            "finished jobs of the present identity wait to be sent; mine once so that they are paid, \
             then stop and try again"
        );
    }
    let options = neurino_app::identity_options(&setting.dirs, &setting.settings);
    let opened = restore_former(options, &address).await?;
    let address = opened.key.address_checksummed();
    match setting.format {
        Format::Json => output::json(&json!({ "address": address }))?,
        Format::Text => output::line(format!("This machine is {address} again.")),
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether results of any network wait in the outbox.
fn has_unsent_results(outbox: &Path) -> bool {
    let below = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten();
    let is_result = |path: &Path| path.extension().is_some_and(|end| end == "json");
    below(outbox).any(|entry| {
        let path = entry.path();
        is_result(&path) || below(&path).any(|inside| is_result(&inside.path()))
    })
}
