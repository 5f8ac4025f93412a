//! `neurino coordinator audits`: which results were computed again, what that says of nodes, and
//! appeals. Works beside a running coordinator.

use std::path::Path;

use neurino_coordinator::admin::{self, AuditedNode};
use neurino_coordinator::compare::Finding;
use neurino_coordinator::{Conviction, Database, StoredAudit};
use neurino_core::NodeId;
use serde_json::json;

use crate::args::AuditsAction;
use crate::output::{self, Format};

/// Newest audits that a plain list shows.
const NEWEST: u32 = 20;

pub(super) async fn run(
    format: Format,
    database: &Database,
    payload_key: &Path,
    action: Option<&AuditsAction>,
) -> anyhow::Result<()> {
    let said = match action {
        None => return list(format, database, NEWEST).await,
        Some(AuditsAction::List { newest }) => return list(format, database, *newest).await,
        Some(AuditsAction::Evidence { job }) => {
            return output::json(&admin::evidence(database, payload_key, *job).await?);
        }
        Some(AuditsAction::Trust { node }) => {
            admin::set_validator(database, node, true).await?;
            format!("{node} decides when two others differ.")
        }
        Some(AuditsAction::Distrust { node }) => {
            admin::set_validator(database, node, false).await?;
            format!("{node} decides nothing.")
        }
        Some(AuditsAction::Appeal { node, words }) => {
            admin::appeal(database, node, words).await?;
            format!("The appeal of {node} is taken down; `grant` or `deny` decides it.")
        }
        Some(AuditsAction::Grant { node, note }) => {
            admin::decide_appeal(database, node, true, note).await?;
            format!("{node} begins anew, and has back what was called back.")
        }
        Some(AuditsAction::Deny { node, note }) => {
            admin::decide_appeal(database, node, false, note).await?;
            format!("The conviction of {node} stands.")
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

async fn list(format: Format, database: &Database, newest: u32) -> anyhow::Result<()> {
    let all = admin::audits(database, newest).await?;
    if format == Format::Json {
        return output::json(&all);
    }
    if all.nodes.is_empty() {
        output::line("Nothing was audited yet.");
    }
    for (node, about) in &all.nodes {
        output::line(node_line(node, about));
    }
    for node in &all.validators {
        output::line(format!("{node}  decides when two others differ"));
    }
    if all.validators.is_empty() {
        output::line("No node decides when two others differ; `audits trust NODE` names one.");
    }
    for conviction in &all.convictions {
        conviction_lines(conviction).iter().for_each(output::line);
    }
    for audit in &all.newest {
        output::line(audit_line(audit));
    }
    Ok(())
}

fn node_line(node: &NodeId, about: &AuditedNode) -> String {
    let audits: Vec<String> = about
        .audits
        .iter()
        .map(|(state, count)| format!("{count} {}", state.as_str().replace('_', " ")))
        .collect();
    let apart =
        if about.record.apart { "; draws its texts otherwise than the network" } else { "" };
    format!("{node}  {}: {}{apart}", about.stage.as_str(), audits.join(", "))
}

fn time(at_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(at_ms)
        .map_or_else(|_| "at some time".into(), |t| t.to_string())
}

fn conviction_lines(conviction: &Conviction) -> Vec<String> {
    let Conviction { node, at_ms, called_back, .. } = conviction;
    let mut lines =
        vec![format!("{node}  convicted {}, {called_back} payments called back", time(*at_ms))];
    if let Some(appeal) = &conviction.appeal {
        lines.push(format!("  appeal: {}", output::plain(appeal)));
    }
    if let Some(granted) = conviction.granted {
        let note = conviction.note.as_deref().map(output::plain).unwrap_or_default();
        lines.push(format!("  {}: {note}", if granted { "granted" } else { "denied" }));
    }
    lines
}

fn audit_line(audit: &StoredAudit) -> String {
    let found = match &audit.finding {
        None => "",
        Some(Finding::Same) => ", the same to the last bit",
        Some(Finding::Close { .. }) => ", within tolerance",
        Some(Finding::Differs { .. }) => ", different",
        Some(Finding::Unclear { .. }) => ", not to be told",
    };
    let state = audit.state.as_str().replace('_', " ");
    let why = audit.suspicion.as_deref().map(|why| format!(", because {why}")).unwrap_or_default();
    format!("{}  job {} by {}: {state}{found}{why}", time(audit.drawn_at_ms), audit.job, audit.node)
}
