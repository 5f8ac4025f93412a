//! The key that pauses and resumes, whichever window is in front: off until the person chooses one, held
//! while the program runs, given back at its end.

use std::sync::{Arc, Mutex};

use neurino_config::{Dirs, HotkeyFile};
use neurino_control::Hotkey;
use neurino_platform::{HeldKey, HotkeyError, Hotkeys};
use neurino_protocol::app::Command;
use neurino_protocol::hotkey::{HotkeyCommand, HotkeyView, HotkeyWay};
use neurino_protocol::notices::Notice;
use neurino_protocol::{ErrorBody, ErrorCode};
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::{App, door, internal, lock, told_with_causes};

/// What was chosen, and what holds it.
pub(crate) struct Keys {
    file: HotkeyFile,
    hotkeys: Option<Arc<dyn Hotkeys>>,
    /// Woken at each press.
    pressed: Arc<Notify>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    keys: Option<Hotkey>,
    held: Option<HeldKey>,
    problem: Option<ErrorBody>,
}

impl Keys {
    /// The hotkey of these folders, not taken yet. Without `hotkeys` there is none.
    pub(crate) fn open(dirs: &Dirs, hotkeys: Option<Arc<dyn Hotkeys>>) -> Self {
        let file = HotkeyFile::new(dirs);
        let state = Mutex::new(State { keys: file.load(), ..State::default() });
        Self { file, hotkeys, pressed: Arc::default(), state }
    }

    fn take(&self, keys: Hotkey) -> Result<HeldKey, HotkeyError> {
        let hotkeys = self.hotkeys.as_ref().ok_or(HotkeyError::NotHere)?;
        let pressed = Arc::clone(&self.pressed);
        hotkeys.take(keys, Box::new(move || pressed.notify_one()))
    }

    /// Takes what the file says; what speaks against it is shown in the settings.
    fn take_again(&self) {
        let mut state = lock(&self.state);
        state.held = None;
        let Some(keys) = state.keys else { return };
        match self.take(keys) {
            Ok(held) => (state.held, state.problem) = (Some(held), None),
            Err(error) => {
                warn!("the hotkey does nothing: {error}");
                state.problem = Some(body(&error));
            }
        }
    }

    /// Other keys from now on. What is refused changes nothing.
    fn set(&self, keys: Option<Hotkey>) -> Result<(), ErrorBody> {
        let mut state = lock(&self.state);
        // The same keys cannot be held twice.
        state.held = None;
        let held = keys.map(|keys| self.take(keys)).transpose().map_err(|error| body(&error));
        let changed = held.and_then(|held| {
            let saved = self.file.save(keys);
            saved.map_err(|error| internal(told_with_causes(&error)))?;
            Ok(held)
        });
        match changed {
            Ok(held) => {
                *state = State { keys, held, problem: None };
                Ok(())
            }
            Err(error) => {
                drop(state);
                self.take_again();
                Err(error)
            }
        }
    }

    /// Gives the keys back.
    pub(crate) fn release(&self) {
        lock(&self.state).held = None;
    }

    fn view(&self) -> HotkeyView {
        let way = match self.hotkeys.as_ref().map(|hotkeys| hotkeys.given()) {
            Some(Ok(())) => HotkeyWay::Here,
            Some(Err(HotkeyError::Wayland)) => HotkeyWay::Wayland,
            Some(Err(_)) | None => HotkeyWay::NotHere,
        };
        let state = lock(&self.state);
        HotkeyView { way, keys: state.keys, problem: state.problem.clone() }
    }
}

fn body(error: &HotkeyError) -> ErrorBody {
    let body = ErrorBody::new(ErrorCode::InvalidRequest, error.to_string());
    match error {
        HotkeyError::Taken(_) => {
            body.with_hint("choose other keys, or free them in the other program")
        }
        HotkeyError::NoKey(_) | HotkeyError::Refused(..) => body.with_hint("choose other keys"),
        HotkeyError::Wayland => body
            .with_hint("put the command `neurino toggle` on a key in the desktop's own settings"),
        HotkeyError::NotHere => body,
    }
}

impl App {
    /// Takes the chosen keys and answers them until the application ends.
    pub(crate) fn spawn_hotkey(self: &Arc<Self>) {
        if self.hotkey.hotkeys.is_none() {
            return;
        }
        self.hotkey.take_again();
        let app = Arc::clone(self);
        self.tasks.spawn(async move {
            loop {
                tokio::select! {
                    () = app.end.cancelled() => return,
                    () = app.hotkey.pressed.notified() => app.toggle().await,
                }
            }
        });
    }

    /// Pauses until the person resumes, or resumes.
    async fn toggle(self: &Arc<Self>) {
        let command = door::toggle(self.mining_now().mining.state);
        let starts = command == Command::MiningStart;
        info!("the hotkey {} mining", if starts { "starts" } else { "pauses" });
        if let Err(error) = self.dispatch(command).await {
            return warn!("the hotkey changed nothing: {error}");
        }
        self.tell_hotkey(starts).await;
    }

    /// Answers the window about the hotkey.
    pub(crate) async fn hotkey(
        self: &Arc<Self>,
        command: HotkeyCommand,
    ) -> Result<HotkeyView, ErrorBody> {
        if let HotkeyCommand::Set { keys } = command {
            let app = Arc::clone(self);
            let setting = tokio::task::spawn_blocking(move || app.hotkey.set(keys));
            setting.await.map_err(|_| internal("the hotkey could not be set"))??;
        }
        Ok(self.hotkey.view())
    }

    async fn tell_hotkey(&self, starts: bool) {
        if self.notices.wants_hotkey()
            && let Err(error) = self.show_notice(Notice::Hotkey(starts)).await
        {
            warn!("no notification: {error}");
        }
    }
}
