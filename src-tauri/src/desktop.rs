//! The desktop program: one process, a tray icon, and a window when somebody looks.

use std::ffi::OsString;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use neurino_app::telemetry::{self, Telemetry};
use neurino_app::{App, AppOptions, CatalogueOptions, EngineHost, StartError, UpdateOptions};
use neurino_config::{Dirs, Settings, WindowFile};
use neurino_control::{Order, State};
use neurino_platform::Surroundings;
use neurino_power::CardPower;
use neurino_protocol::app::{Command, Language, Reply};
use neurino_protocol::error::{ErrorBody, ErrorCode};
use tauri::{AppHandle, Manager, RunEvent};
use tokio::sync::watch;

use crate::notice::Desktop;
use crate::shell::{Next, Shell};
use crate::tray::Tray;
use crate::{rpc, window};

/// How long the application gets to hand its job back and close its files.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(5);
/// The same where the system ends the session: Windows kills a program that takes five seconds.
const SESSION_END_WAIT: Duration = Duration::from_secs(4);

/// Runs the program until it is quit; `hidden` leaves the window closed at first, `mine` presses
/// Start.
pub(crate) fn run(home: Option<PathBuf>, hidden: bool, mine: bool) -> ExitCode {
    let place = Dirs::discover(home.clone()).ok().map(|dirs| WindowFile::new(&dirs));
    let shell = Arc::new(Shell::new(place));
    let ended = Arc::clone(&shell);
    let instance = single_instance(home.as_ref());
    let (options, _telemetry) = options(home, shell.language());
    let built = tauri::Builder::default()
        // First: a second start must end before it opens the ledger.
        .plugin(instance)
        .manage(Arc::clone(&shell))
        .invoke_handler(tauri::generate_handler![rpc::rpc, rpc::subscribe])
        .setup(move |app| {
            set_up(app.handle(), options, hidden, mine);
            Ok(())
        })
        .build(tauri::generate_context!());
    let program = match built {
        Ok(program) => program,
        Err(error) => return failed(&error),
    };
    let code = program.run_return(|handle, event| match event {
        // Closing the last window leaves the tray; only `quit` ends the program.
        RunEvent::ExitRequested { code: None, api, .. } => api.prevent_exit(),
        RunEvent::Exit => end_with_session(&handle.state::<Arc<Shell>>()),
        _ => {}
    });
    if let Some(next) = ended.next() {
        ended.ended();
        let arguments = arguments_again(std::env::args_os().skip(1), next.hidden);
        return neurino_cli::update::hand_over(next.exchange, true, arguments);
    }
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// What the program was started with, for the next one: the window is open there if it is open here, and
/// it mines there if the person's last word, which is kept, says so. What a login asked for is over.
fn arguments_again(given: impl Iterator<Item = OsString>, hidden: bool) -> Vec<OsString> {
    let of_the_login = |argument: &OsString| argument == "--hidden" || argument == "--mine";
    let mut arguments: Vec<OsString> = given.filter(|argument| !of_the_login(argument)).collect();
    if hidden {
        arguments.push("--hidden".into());
    }
    arguments
}

/// What the application is started with, and the log. A mistake in the settings is the page's to
/// tell: nobody reads the standard error of a program started from a menu.
fn options(
    home: Option<PathBuf>,
    language: watch::Receiver<Language>,
) -> (Result<AppOptions, ErrorBody>, Option<Telemetry>) {
    let dirs = match Dirs::discover(home).and_then(|dirs| dirs.create().map(|()| dirs)) {
        Ok(dirs) => dirs,
        Err(error) => return (Err(StartError::from(error).body()), None),
    };
    let settings = Settings::load(&dirs);
    let logging = settings.as_ref().map(|s| s.telemetry.clone()).unwrap_or_default();
    let telemetry = telemetry::start(&dirs.logs, &logging);
    let options = settings.map_err(|error| StartError::from(error).body()).and_then(|settings| {
        let program = std::env::current_exe().map_err(|error| {
            let message = format!("the program's own file cannot be found: {error}");
            ErrorBody::new(ErrorCode::Internal, message)
        })?;
        let engine = EngineHost::Process { program };
        let updates = Some(UpdateOptions::of(&dirs, &settings, crate::EDITION)?);
        let usual = AppOptions::new(dirs, settings, engine);
        let surroundings = Some(surroundings());
        let awake = Some(neurino_platform::open_awake());
        Ok(AppOptions {
            practice_demand: true,
            any_port: true,
            surroundings,
            cards: cards(),
            card_script: card_script(),
            awake,
            updates,
            catalogue: CatalogueOptions::of_build(),
            hotkeys: Some(neurino_platform::open_hotkeys()),
            notifier: Some(Arc::new(Desktop { language })),
            ..usual
        })
    });
    (options, Some(telemetry))
}

/// The cards that a script plays, if one does.
fn cards() -> Option<Arc<dyn CardPower>> {
    Some(Arc::new(neurino_power::ScriptedCards::new(card_script()?)))
}

fn card_script() -> Option<PathBuf> {
    neurino_config::env::var(neurino_config::env::CARDS).map(PathBuf::from)
}

/// What the desktop tells, or the script that plays it.
fn surroundings() -> Box<dyn Surroundings> {
    match neurino_config::env::var(neurino_config::env::SURROUNDINGS) {
        Some(script) => Box::new(neurino_platform::Script::new(script.into())),
        None => neurino_platform::open(),
    }
}

fn failed(error: &tauri::Error) -> ExitCode {
    #[expect(clippy::print_stderr, reason = "no log exists yet")]
    {
        eprintln!("Neurino could not start its window: {error}");
    }
    ExitCode::FAILURE
}

/// Starts the application beside the window, so that the window need not wait for it.
fn set_up(handle: &AppHandle, options: Result<AppOptions, ErrorBody>, hidden: bool, mine: bool) {
    end_on_signals(handle);
    if !hidden {
        window::show(handle);
    }
    let tray = build_tray(handle);
    let handle = handle.clone();
    tauri::async_runtime::spawn(async move {
        let outcome = match options {
            Ok(options) => App::start(options).await.map_err(|error| error.body()),
            Err(error) => Err(error),
        };
        handle.state::<Arc<Shell>>().started(outcome.clone());
        if let (true, Ok(app)) = (mine, &outcome)
            && let Err(error) = mine_by_the_rules(app).await
        {
            tracing::warn!("mining cannot start by itself: {error}");
        }
        if let Ok(app) = &outcome {
            follow_update(&handle, app);
        }
        match (outcome, tray) {
            (Ok(app), Some(tray)) => {
                let shell = Arc::clone(&handle.state::<Arc<Shell>>());
                shell.speak(shell.preferences(SHUTDOWN_WAIT).await.language);
                tray.follow(app, shell.language()).await;
            }
            (Ok(_), None) => {}
            (Err(error), tray) => {
                tracing::error!(%error, "the application could not start: {error}");
                if let Some(tray) = &tray {
                    tray.show_failure();
                }
                // The page says why.
                window::show(&handle);
            }
        }
    });
}

/// Ends the program for the next one as soon as the application says that a newer version is due.
fn follow_update(handle: &AppHandle, app: &Arc<App>) {
    let (handle, app) = (handle.clone(), Arc::clone(app));
    tauri::async_runtime::spawn(async move {
        app.update_due().cancelled().await;
        // One that is minimised does not come up before the person: the tray brings it back.
        let hidden = !window::is_shown(&handle)
            && (!window::is_open(&handle) || crate::tray::way_back_exists());
        let next = Next { exchange: app.exchange_due(), hidden };
        handle.state::<Arc<Shell>>().followed_by(next);
        quit(&handle);
    });
}

/// Mines as the rules allow, as the person wants it at every login. It is not their word of this
/// moment: a pause of theirs goes on, and so does the wait after a run that ended badly.
async fn mine_by_the_rules(app: &Arc<App>) -> Result<(), ErrorBody> {
    if let Reply::Snapshot(snapshot) = app.dispatch(Command::Snapshot).await?
        && snapshot.control.decision.state == State::Stopped
    {
        app.dispatch(Command::MiningOrder { order: Order::FollowRules }).await?;
    }
    Ok(())
}

/// The tray icon, or none where the system has no library for it.
fn build_tray(handle: &AppHandle) -> Option<Tray> {
    // The icon's library is loaded on first use, and its absence is a panic.
    let built = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| Tray::build(handle)));
    match built {
        Ok(Ok(tray)) => {
            tauri::async_runtime::spawn_blocking(crate::tray::log_missing_host);
            return Some(tray);
        }
        Ok(Err(error)) => tracing::warn!(%error, "no tray icon: {error}"),
        Err(_) => tracing::warn!("no tray icon: the ayatana-appindicator3 library is missing"),
    }
    None
}

/// Ends the program: the window closes at once, the running job is handed back, then all stops.
pub(crate) fn quit(handle: &AppHandle) {
    let shell = Arc::clone(&handle.state::<Arc<Shell>>());
    if !shell.begin_quit() {
        return;
    }
    window::destroy(handle);
    let handle = handle.clone();
    tauri::async_runtime::spawn(async move {
        if let Some(app) = shell.app_now()
            && tokio::time::timeout(SHUTDOWN_WAIT, app.shutdown()).await.is_err()
        {
            tracing::error!("the application did not stop in {SHUTDOWN_WAIT:?}");
        }
        shell.ended();
        handle.exit(0);
    });
}

/// The event loop ends, and on Windows the process with it. Nothing is left to do after [`quit`];
/// but a shutdown, a restart and a log-off of Windows and macOS come here without it. They are no crash:
/// that much is written first, and then as much is put in order as there is time for.
fn end_with_session(shell: &Shell) {
    let Some(app) = shell.app_now() else { return };
    app.will_end();
    let ending = async { tokio::time::timeout(SESSION_END_WAIT, app.shutdown()).await };
    if tauri::async_runtime::block_on(ending).is_err() {
        tracing::error!("the application did not stop in {SESSION_END_WAIT:?}");
    }
    shell.ended();
}

/// A second start shows the first one's window and ends. Programs with different data folders do
/// not know of each other. Without a session bus every start is the first.
fn single_instance(home: Option<&PathBuf>) -> tauri::plugin::TauriPlugin<tauri::Wry> {
    let id = home.map_or_else(
        || "com.neurino.app".to_owned(),
        |home| {
            let mut hasher = DefaultHasher::new();
            std::path::absolute(home).as_ref().unwrap_or(home).hash(&mut hasher);
            format!("com.neurino.app.home{:016x}", hasher.finish())
        },
    );
    tauri_plugin_single_instance::Builder::new()
        .dbus_id(id)
        .callback(|handle, arguments, _| {
            if !arguments.iter().skip(1).any(|argument| argument == "--hidden") {
                window::show(handle);
            }
        })
        .build()
}

/// SIGTERM and SIGINT quit as the menu does; a second one does not wait.
fn end_on_signals(handle: &AppHandle) {
    let handle = handle.clone();
    tauri::async_runtime::spawn(async move {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let signals = signal(SignalKind::terminate())
                .and_then(|t| Ok((t, signal(SignalKind::interrupt())?)));
            let (mut terminate, mut interrupt) = match signals {
                Ok(signals) => signals,
                Err(error) => return tracing::warn!(%error, "signals end the program at once"),
            };
            for first in [true, false] {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                if first {
                    quit(&handle);
                }
            }
            std::process::exit(1);
        }
        #[cfg(not(unix))]
        if tokio::signal::ctrl_c().await.is_ok() {
            quit(&handle);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again(given: &[&str], hidden: bool) -> Vec<OsString> {
        arguments_again(given.iter().map(OsString::from), hidden)
    }

    #[test]
    fn another_version_does_not_start_what_the_person_stopped() {
        assert_eq!(again(&["--hidden", "--mine"], true), ["--hidden"]);
        assert_eq!(again(&["--mine", "--home", "/data"], false), ["--home", "/data"]);
        assert_eq!(again(&["--home", "/data"], true), ["--home", "/data", "--hidden"]);
    }
}
