//! `neurino audit`: how sure the checks of results are on this machine, and when cheating pays.

mod calibrate;
mod cheats;
mod likeness;
mod scores;

use std::process::ExitCode;

use neurino_core::audit::economics::{Economy, Thresholds};
use serde_json::json;

use crate::Setting;
use crate::args::{AuditAction, CalculatorArgs};
use crate::output::{self, Format};

pub(crate) async fn run(setting: Setting, action: AuditAction) -> anyhow::Result<ExitCode> {
    match action {
        AuditAction::Calibrate(args) => calibrate::run(setting, args).await,
        AuditAction::Calculator(args) => calculator(setting.format, &args),
    }
}

/// Appendix A of the white paper with the operator's own numbers.
fn calculator(format: Format, args: &CalculatorArgs) -> anyhow::Result<ExitCode> {
    let economy = Economy {
        honest_cost: args.honest_cost,
        cheat_cost: args.cheat_cost,
        reward: args.reward,
        audited: args.audited,
        found: args.found,
        slashed: args.slashed,
        nodes: args.nodes,
        tolerated: args.tolerated,
        jobs_in_escrow: args.jobs_in_escrow,
        patience: args.patience,
    };
    let found = economy.thresholds()?;
    match format {
        Format::Json => output::json(&json!({ "economy": economy, "thresholds": found }))?,
        Format::Text => lines(&economy, &found).iter().for_each(output::line),
    }
    Ok(ExitCode::SUCCESS)
}

fn lines(economy: &Economy, found: &Thresholds) -> Vec<String> {
    let percent = |share: f64| format!("{:.4} %", 100.0 * share);
    vec![
        format!("One cheated job is found out with     {}", percent(found.detection)),
        format!(
            "A stake that makes it a loss          above {:.6} (the pay of {:.1} jobs)",
            found.stake_min, found.stake_in_jobs
        ),
        format!(
            "All {} jobs of an escrow time cheated: found out with {}",
            economy.jobs_in_escrow,
            percent(found.campaign_detection)
        ),
        format!(
            "Cheating nodes the network bears      {:.0} by single jobs, {:.0} by escrow time, of {}",
            found.cheaters_by_job, found.cheaters_by_campaign, economy.nodes
        ),
        format!("Honest work, with all that follows    {:.6}", found.honest_future),
        format!("One cheated job, its risk counted in  {:.6}", found.cheat_gain),
        if found.honest_pays {
            "With the escrow as its only stake, honest work pays better.".into()
        } else {
            "CHEATING PAYS: audit more, hold earnings longer, or ask for a stake.".into()
        },
    ]
}
