//! Keys, credits, models and votes of a network, changed in its books. A running coordinator notices
//! within a second.

use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use neurino_coordinator::admin;
use neurino_coordinator::keys::ApiKeyInfo;
use neurino_coordinator::{ApiKey, Database, KeyTerms, Scope};
use secrecy::SecretString;
use serde_json::json;

use crate::args::{CreditsAction, KeyTermsArgs, KeysAction, PodArgs, VotesArgs};
use crate::output::{self, Format};

/// Holds the token of the admin listener.
const TOKEN_FILE: &str = "admin.token";

pub(super) async fn keys(
    format: Format,
    database: &Database,
    action: &KeysAction,
) -> anyhow::Result<()> {
    match action {
        KeysAction::List => list(format, &admin::api_keys(database).await?),
        KeysAction::Add { name, terms } => {
            show(format, &admin::create_api_key_with(database, name, terms_of(terms)).await?)
        }
        KeysAction::Rotate { id, at_once } => {
            let keep_ms = if *at_once { 0 } else { admin::ROTATION_MS };
            show(format, &admin::rotate_api_key(database, id, keep_ms).await?)
        }
        KeysAction::Revoke { id } => {
            admin::revoke_api_key(database, id).await?;
            match format {
                Format::Json => output::json(&json!({ "revoked": id })),
                Format::Text => {
                    output::line(format!("The key {id} is closed."));
                    Ok(())
                }
            }
        }
    }
}

fn terms_of(args: &KeyTermsArgs) -> KeyTerms {
    let all = KeyTerms::default();
    let scopes = args.scopes.iter().filter_map(|name| Scope::named(name)).collect();
    KeyTerms {
        payer: args.payer.clone(),
        scopes: if args.scopes.is_empty() { all.scopes } else { scopes },
        prepaid: args.prepaid,
        budget: args.budget,
        requests_per_min: args.requests_per_min,
        units_per_min: args.tokens_per_min,
        frontend: args.frontend.clone(),
    }
}

/// Shows a new secret, this once.
pub(super) fn show(format: Format, key: &ApiKey) -> anyhow::Result<()> {
    match format {
        Format::Json => output::json(&json!({
            "id": key.info.id, "name": key.info.name, "api_key": key.expose_secret(),
        })),
        Format::Text => {
            output::line(key.expose_secret());
            output::note("Keep it: it is shown this once.");
            Ok(())
        }
    }
}

fn list(format: Format, keys: &[ApiKeyInfo]) -> anyhow::Result<()> {
    match format {
        Format::Json => output::json(&keys)?,
        Format::Text if keys.is_empty() => output::line("There are no keys."),
        Format::Text => {
            for key in keys {
                let scopes: Vec<_> = key.terms.scopes.iter().map(|s| s.as_str()).collect();
                let mut about = vec![scopes.join(" ")];
                if key.terms.prepaid {
                    let payer = key.payer().map(|payer| payer.to_string()).unwrap_or_default();
                    about.push(format!("prepaid by {payer}"));
                }
                if let Some(budget) = key.terms.budget {
                    about.push(format!("{budget} credits a month"));
                }
                if let Some(most) = key.terms.requests_per_min {
                    about.push(format!("{most} requests a minute"));
                }
                if let Some(most) = key.terms.units_per_min {
                    about.push(format!("{most} tokens a minute"));
                }
                if key.revoked_at_ms.is_some() {
                    about.push("revoked".into());
                }
                let name = output::plain(&key.name);
                output::line(format!("{}  {name}: {}", key.id, about.join(", ")));
            }
        }
    }
    Ok(())
}

pub(super) async fn credits(
    format: Format,
    database: &Database,
    action: &CreditsAction,
) -> anyhow::Result<()> {
    match action {
        CreditsAction::List => {
            let all = admin::credits(database).await?;
            if format == Format::Json {
                return output::json(&all);
            }
            for (payer, has) in &all.payers {
                let (balance, held) = (has.balance.to_string(), has.held);
                output::line(format!("{balance:>18}  {payer}, and {held} set aside for open jobs"));
            }
            for (earner, amount) in &all.earned {
                output::line(format!("{:>18}  {earner}", amount.to_string()));
            }
            output::line(format!(
                "{:>18}  in circulation: bought, less what was paid out",
                all.issued.to_string()
            ));
        }
        CreditsAction::Add { payer, amount, reference } => {
            let balance = admin::deposit(database, payer, *amount, reference).await?;
            match format {
                Format::Json => {
                    output::json(&json!({ "payer": payer, "balance_micro": balance }))?;
                }
                Format::Text => output::line(format!("{payer} has {balance} credits.")),
            }
        }
        CreditsAction::PayOut { account, amount, reference } => {
            let balance = admin::pay_out(database, account, *amount, reference).await?;
            match format {
                Format::Json => {
                    output::json(&json!({ "account": account, "balance_micro": balance }))?;
                }
                Format::Text => output::line(format!("{account} has {balance} credits left.")),
            }
        }
    }
    Ok(())
}

pub(super) async fn pod(format: Format, database: &Database, args: &PodArgs) -> anyhow::Result<()> {
    let PodArgs { model, deployer, votes, shareable } = args;
    admin::set_pod(database, model, deployer.as_ref(), *votes, *shareable).await?;
    said(format, &format!("{model} has {votes} votes."))
}

pub(super) async fn votes(
    format: Format,
    database: &Database,
    args: &VotesArgs,
) -> anyhow::Result<()> {
    admin::set_node_votes(database, &args.node, args.votes).await?;
    said(format, &format!("{} has {} votes.", args.node, args.votes))
}

fn said(format: Format, words: &str) -> anyhow::Result<()> {
    match format {
        Format::Json => output::json(&json!({ "done": words })),
        Format::Text => {
            output::line(words);
            Ok(())
        }
    }
}

/// The token of the admin listener; drawn the first time, readable by its owner alone.
pub(super) fn token(folder: &Path) -> anyhow::Result<SecretString> {
    let path = folder.join(TOKEN_FILE);
    match std::fs::read_to_string(&path) {
        Ok(token) if token.trim().len() >= 32 => return Ok(SecretString::from(token.trim())),
        Ok(_) => anyhow::bail!("{} is too short for a token; delete it", path.display()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    }
    let token = neurino_coordinator::admin::draw_token();
    let mut options = std::fs::OpenOptions::new();
    options.create_new(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&path).with_context(|| format!("write {}", path.display()))?;
    file.write_all(token.as_bytes())?;
    Ok(SecretString::from(token))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn the_token_is_drawn_once_and_kept_private() {
        let folder = tempfile::tempdir().unwrap();
        let first = token(folder.path()).unwrap();
        assert_eq!(first.expose_secret().len(), 64);
        assert_eq!(token(folder.path()).unwrap().expose_secret(), first.expose_secret());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::metadata(folder.path().join(TOKEN_FILE)).unwrap().permissions();
            assert_eq!(mode.mode() & 0o777, 0o600);
        }
        std::fs::write(folder.path().join(TOKEN_FILE), "short").unwrap();
        assert!(token(folder.path()).is_err());
    }
}
