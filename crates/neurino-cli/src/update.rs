//! `neurino update`: newer versions from the terminal, and the tools of whoever makes releases.
//!
//! Also what every start of the program that lasts does first ([`begin`]), and how the old process
//! hands over to the new one ([`hand_over`], [`switch`]).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, bail};
use neurino_app::UpdateOptions;
use neurino_config::{Dirs, InstanceLock, Settings, UpdatesFile};
use neurino_update::making::{self, Terms};
use neurino_update::swap::locks::Running;
use neurino_update::swap::{self, AtStart, Staged};
use neurino_update::{Edition, Exchange, Place, Version, hand_over, release};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::Setting;
use crate::args::{SignArgs, SwitchArgs, UpdateAction};
use crate::output::{self, Format};

/// The hidden role that exchanges the files.
const SWITCH: &str = "switch";
/// Tells other starts that this program runs, until it becomes another one.
static RUNNING: Mutex<Option<Running>> = Mutex::new(None);

pub(crate) async fn run(
    setting: Setting,
    action: Option<UpdateAction>,
    edition: Edition,
) -> anyhow::Result<ExitCode> {
    match action.unwrap_or(UpdateAction::Check) {
        UpdateAction::Check => look(&setting, edition, false).await?,
        UpdateAction::Install => {
            let _alone = InstanceLock::acquire(&setting.dirs)
                .context("quit Neurino first, or let it install the new version itself")?;
            look(&setting, edition, true).await?;
        }
        UpdateAction::Back => {
            let _alone = InstanceLock::acquire(&setting.dirs).context("quit Neurino first")?;
            let place = Place::here(edition)?;
            let left = swap::state(&place).map(|trial| trial.to);
            let version = swap::take_back(&place, true)?;
            // What was left is not installed again without being asked for.
            if let Some(left) = left {
                let file = UpdatesFile::new(&setting.dirs);
                let mut saved = file.load();
                saved.went_back_from(&left.to_string());
                file.save(&saved)?;
            }
            answer(&setting, &json!({ "back": version }), format!("Version {version} is back."))?;
        }
        UpdateAction::NewKey { file } => new_key(&file)?,
        UpdateAction::Pack { folder, package } => making::pack(&folder, &package)?,
        UpdateAction::Sign(args) => sign(args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn answer(setting: &Setting, value: &serde_json::Value, text: String) -> anyhow::Result<()> {
    match setting.format {
        Format::Json => output::json(value),
        Format::Text => {
            output::line(text);
            Ok(())
        }
    }
}

/// Looks for a newer version and, if asked to, installs it.
async fn look(setting: &Setting, edition: Edition, install: bool) -> anyhow::Result<()> {
    let options = UpdateOptions::of(&setting.dirs, &setting.settings, edition)?;
    let own = options.own;
    let Some(updater) = options.updater else {
        bail!(
            "this version does not update itself; `[update]` in settings.toml can name where newer ones lie"
        );
    };
    let file = UpdatesFile::new(&setting.dirs);
    let mut saved = file.load();
    let seen = saved.seen.as_deref().and_then(|text| text.parse::<Version>().ok());
    let Some(offer) = updater.look(seen, jiff::Timestamp::now()).await? else {
        return answer(
            setting,
            &json!({ "own": own, "newer": null }),
            format!("{own} is the latest."),
        );
    };
    let version = offer.release.version;
    // An older list is not believed any more, whoever reads it.
    if seen != Some(version) {
        saved.seen = Some(version.to_string());
        file.save(&saved)?;
    }
    let notes = offer.release.notes.get("en").cloned().unwrap_or_default();
    if !install {
        let text = format!("Version {version} is there; {own} runs.\n{}", output::plain(&notes));
        let value = json!({ "own": own, "newer": version, "notes": offer.release.notes });
        return answer(setting, &value, text.trim_end().to_owned());
    }
    let package = updater.fetch(&offer, |_| {}, CancellationToken::new()).await?;
    if let Some(command) = updater.place.command_for(&package) {
        let text = format!("Version {version} is here. Install it with:\n  {command}");
        return answer(setting, &json!({ "newer": version, "command": command }), text);
    }
    let staged = swap::stage(&updater.place, &package, version)?;
    swap::put_in_place(&updater.place, &staged, own)?;
    let text = format!("Version {version} is in place. Should it not come up, {own} comes back.");
    answer(setting, &json!({ "installed": version }), text)
}

fn new_key(file: &Path) -> anyhow::Result<()> {
    if file.exists() {
        bail!("{} exists; a key is never overwritten", file.display());
    }
    let (seed, public) = release::new_key()?;
    write_private(file, &hex(&seed)).with_context(|| format!("cannot write {}", file.display()))?;
    output::line(format!("Secret key   {}  (keep it off this machine)", file.display()));
    output::line(format!("Public key   {}", hex(&public)));
    Ok(())
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    writeln!(options.open(path)?, "{text}")
}

fn sign(args: SignArgs) -> anyhow::Result<()> {
    let own = args.release.unwrap_or_else(Version::own);
    let key = fs::read_to_string(&args.key)
        .with_context(|| format!("cannot read {}", args.key.display()))?;
    let seed = bytes_of(key.trim()).context("the key's file holds no 64 hexadecimal digits")?;
    let mut notes = BTreeMap::new();
    for (language, file) in [("en", args.notes), ("de", args.notes_de)] {
        if let Some(file) = file {
            let text = fs::read_to_string(&file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            notes.insert(language.to_owned(), text.trim().to_owned());
        }
    }
    let hours = i64::from(args.days) * 24;
    let expires = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(hours);
    let minimum = args.minimum.unwrap_or_else(|| Version::new(0, 1, 0));
    let terms = Terms { version: own, minimum, expires, notes };
    let release = making::sign(&args.folder, terms, &seed)?;
    for package in &release.packages {
        output::line(format!("  {}  {}", package.sha256, package.file));
    }
    output::line(format!("Signed: {}", args.folder.join(neurino_update::LIST_NAME).display()));
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // A text takes whatever is written to it.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn bytes_of(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let byte = |n: usize| u8::from_str_radix(&text[2 * n..2 * n + 2], 16).ok();
    (0..32).map(byte).collect::<Option<Vec<u8>>>()?.try_into().ok()
}

/// What a start that lasts does first: counts the start of a version on trial, or goes back to the
/// one before it and becomes that.
pub fn begin(edition: Edition) -> Option<ExitCode> {
    let place = Place::here(edition).ok().filter(|place| place.updates().is_dir())?;
    let start = match swap::at_start(&place, Version::own()) {
        Ok(start) => start,
        Err(error) => {
            output::note(format!("neurino: {error}"));
            return None;
        }
    };
    match start.then {
        AtStart::GoOn => {
            *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) = start.running;
            None
        }
        AtStart::StartAgain => {
            drop(start.running);
            let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
            output::note(format!(
                "neurino: version {} was replaced; the one that is there now starts",
                Version::own()
            ));
            Some(hand_over::become_program(&place.program, &arguments))
        }
    }
}

/// Becomes the process that exchanges the files and starts what is there then with these arguments. Call
/// it when the application has ended. Without an exchange the program is only started again.
pub fn hand_over(exchange: Option<Exchange>, watch: bool, arguments: Vec<OsString>) -> ExitCode {
    // The one that follows is a start of its own.
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner).take();
    // The edition plays no part in where the program lies.
    let place = match Place::here(Edition::Server) {
        Ok(place) => place,
        Err(error) => {
            output::note(format!("neurino: the program's own file cannot be found: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let Some(exchange) = exchange else {
        return hand_over::become_program(&place.program, &arguments);
    };
    let mut switch: Vec<OsString> = vec![SWITCH.into()];
    if let Exchange::Install(version) = exchange {
        switch.push(version.to_string().into());
        if watch {
            switch.push("--watch".into());
        }
    }
    switch.push("--".into());
    switch.extend(arguments);
    hand_over::become_program(&place.program, &switch)
}

/// `neurino switch`: exchanges the files, and starts what is in place then.
pub(crate) fn switch(args: &SwitchArgs, home: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let _log = Dirs::discover(home)
        .ok()
        .map(|dirs| neurino_app::telemetry::start(&dirs.logs, &Settings::default().telemetry));
    let place = Place::here(Edition::Server)?;
    let exchanged = match args.version {
        Some(version) => swap::put_in_place(&place, &Staged { version }, Version::own()),
        None => swap::take_back(&place, true).map(drop),
    };
    match exchanged {
        Ok(()) if args.watch && args.version.is_some() => {
            return Ok(hand_over::start_and_watch(&place, &args.arguments));
        }
        Ok(()) => {}
        // The version that was there starts again.
        Err(error) => tracing::error!("the other version cannot be put in place: {error}"),
    }
    Ok(hand_over::become_program(&place.program, &args.arguments))
}
