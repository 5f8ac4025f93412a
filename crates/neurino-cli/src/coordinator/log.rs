//! `neurino coordinator log`: who did what to the network. Works beside a running coordinator.

use neurino_coordinator::{Database, admin};
use serde_json::json;

use crate::output::{self, Format};

/// Lines that are read at once.
const PAGE: u32 = 1000;

pub(super) async fn run(
    format: Format,
    database: &Database,
    after: i64,
    check: bool,
) -> anyhow::Result<()> {
    if check {
        return whole(format, database).await;
    }
    let mut after = after;
    loop {
        let lines = admin::log_lines(database, after, PAGE).await?;
        // The lines are JSON already, and what is digested are their bytes.
        lines.iter().for_each(output::line);
        after += lines.len() as i64;
        if lines.len() < PAGE as usize {
            return Ok(());
        }
    }
}

async fn whole(format: Format, database: &Database) -> anyhow::Result<()> {
    let found = admin::log_check(database).await?;
    if format == Format::Json {
        output::json(&json!({ "holds": found.holds(), "check": found }))?;
    } else if found.holds() {
        output::line(format!(
            "{} acts, and every line carries the digest of the one before.",
            found.lines
        ));
        output::line(format!("It ends with {}.", found.end));
        output::line(
            "Write that down elsewhere: a log that lost its last lines holds together, too.",
        );
    }
    if let Some(line) = found.broken_at {
        anyhow::bail!(
            "line {line} of the log does not fit the one before: somebody changed the books; compare \
             with a backup"
        );
    }
    Ok(())
}
