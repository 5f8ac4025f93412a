//! `neurino doctor`

use std::process::ExitCode;

use neurino_protocol::app::CheckStatus;

use crate::output::{self, Format};
use crate::{FAILED, Setting};

pub(crate) async fn run(setting: Setting) -> anyhow::Result<ExitCode> {
    let checks = neurino_app::examine(&setting.dirs, &setting.settings, false).await;
    match setting.format {
        Format::Json => output::json(&checks)?,
        Format::Text => {
            for c in &checks {
                let word = match c.status {
                    CheckStatus::Ok => "ok  ",
                    CheckStatus::Warn => "note",
                    CheckStatus::Fail => "FAIL",
                };
                let fix = c.fix.as_ref().map_or_else(String::new, |f| format!(" -> {f}"));
                output::line(format!("{word}  {:<13} {}{fix}", c.name, c.finding));
            }
        }
    }
    let failed = checks.iter().any(|c| c.status == CheckStatus::Fail);
    Ok(if failed { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}
