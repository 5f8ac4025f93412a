//! `neurino doctor`

use std::process::ExitCode;

use anyhow::Context as _;
use neurino_protocol::app::CheckStatus;

use crate::args::DoctorArgs;
use crate::output::{self, Format};
use crate::{FAILED, Setting};

pub(crate) async fn run(setting: Setting, args: DoctorArgs) -> anyhow::Result<ExitCode> {
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
                output::line(format!("{word}  {:<15} {}", c.name, c.finding));
                if let Some(fix) = &c.fix {
                    output::line(format!("{:<21} -> {fix}", ""));
                }
            }
        }
    }
    if let Some(path) = args.bundle {
        neurino_app::write_bundle(&setting.dirs, &setting.settings, &checks, &path)
            .with_context(|| format!("{} cannot be written", path.display()))?;
        output::note(format!("wrote {}", path.display()));
    }
    let failed = checks.iter().any(|c| c.status == CheckStatus::Fail);
    Ok(if failed { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}
