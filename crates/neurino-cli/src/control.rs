//! `neurino pause`, `resume`, `toggle` and `status`: orders for the program that runs.

use std::process::ExitCode;

use neurino_app::door::{self, DoorError};
use neurino_protocol::app::{Command, Reply, Snapshot};
use serde_json::json;

use crate::Setting;
use crate::args::PauseTime;
use crate::output::{self, Format};

pub(crate) async fn pause(setting: &Setting, time: PauseTime) -> anyhow::Result<ExitCode> {
    let minutes = match time {
        PauseTime::Minutes(minutes) => Some(minutes),
        PauseTime::UntilResume => None,
    };
    door::ask(&setting.dirs.data, door::pause(minutes)).await?;
    status(setting).await
}

pub(crate) async fn resume(setting: &Setting) -> anyhow::Result<ExitCode> {
    door::ask(&setting.dirs.data, Command::MiningStart).await?;
    status(setting).await
}

pub(crate) async fn toggle(setting: &Setting) -> anyhow::Result<ExitCode> {
    let order = door::toggle(snapshot(setting).await?.mining.state);
    door::ask(&setting.dirs.data, order).await?;
    status(setting).await
}

pub(crate) async fn status(setting: &Setting) -> anyhow::Result<ExitCode> {
    tell(setting.format, &snapshot(setting).await?)?;
    Ok(ExitCode::SUCCESS)
}

async fn snapshot(setting: &Setting) -> Result<Snapshot, DoorError> {
    match door::ask(&setting.dirs.data, Command::Snapshot).await? {
        Reply::Snapshot(snapshot) => Ok(*snapshot),
        _ => Err(DoorError::OtherVersion),
    }
}

fn tell(format: Format, snapshot: &Snapshot) -> anyhow::Result<()> {
    let points = &snapshot.points;
    match format {
        Format::Json => output::json(&json!({
            "version": snapshot.version, "mining": snapshot.mining, "network": snapshot.network,
            "job": snapshot.job, "points": points,
        })),
        Format::Text => {
            output::line(output::plain(&snapshot.mining.sentence));
            if let Some(hint) = snapshot.mining.problem.as_ref().and_then(|p| p.hint.as_ref()) {
                output::line(format!("  -> {}", output::plain(hint)));
            }
            let (llama, waifu) = (points.llama_today, points.waifu_today);
            output::line(format!("Today: {llama} Llama points, {waifu} Waifu points."));
            Ok(())
        }
    }
}
