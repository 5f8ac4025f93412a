//! `neurino doctor`

use std::process::ExitCode;

use neurino_protocol::app::CheckStatus;

use crate::output::{self, Format};
use crate::{FAILED, Setting};

pub(crate) async fn run(setting: Setting) -> anyhow::Result<ExitCode> {
    let checks = neurino_app::examine(&setting.dirs, &setting.settings).await;
    match setting.format {
        Format::Json => output::json(&checks)?,
        Format::Text => {
            for c in &checks {
                let word = match c.status {
                    CheckStatus::Ok => "ok  ",
                    CheckStatus::Warn => "note",
                    CheckStatus::Fail => "FAIL",
                };
                output::line(format!("{word}  {:<13} {}", c.name, c.finding));
                if let Some(fix) = &c.fix {
                    output::line(format!("{:<19} -> {fix}", ""));
                }
            }
        }
    }
    let failed = checks.iter().any(|c| c.status == CheckStatus::Fail);
    Ok(if failed { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}
