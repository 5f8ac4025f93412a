//! The tray icon: state at a glance, and the few things one wants without a window.

use std::sync::Arc;

use neurino_app::{App, Glance};
use neurino_control::Order;
use neurino_core::MicroPoints;
use neurino_protocol::app::{Command, Language, MiningState, PointsSummary, StopMode};
use tauri::image::Image;
use tauri::menu::{Menu, MenuItem, PredefinedMenuItem};
use tauri::tray::{MouseButton, MouseButtonState, TrayIcon, TrayIconBuilder, TrayIconEvent};
use tauri::{AppHandle, Manager};
use tokio::sync::watch;

use crate::shell::Shell;
use crate::words::Words;
use crate::{desktop, window};

/// Ids of the menu's items.
const START: &str = "start";
const FINISH: &str = "finish";
const PAUSE_HOUR: &str = "pause-hour";
const PAUSE: &str = "pause";
const STOP_NOW: &str = "stop-now";
const OPEN: &str = "open";
const QUIT: &str = "quit";

/// Picks one of a language's words.
type Word = fn(&Words) -> &'static str;

/// The icon and the items that change with the state.
pub(crate) struct Tray {
    icon: TrayIcon,
    state: MenuItem<tauri::Wry>,
    points: MenuItem<tauri::Wry>,
    /// Items whose words change with the language alone.
    fixed: Vec<(MenuItem<tauri::Wry>, Word)>,
    start: MenuItem<tauri::Wry>,
    finish: MenuItem<tauri::Wry>,
    pause_hour: MenuItem<tauri::Wry>,
    pause: MenuItem<tauri::Wry>,
    stop_now: MenuItem<tauri::Wry>,
}

/// What the tray shows; it is touched only when this changes, not with every token.
#[derive(Debug, Clone, PartialEq, Eq)]
struct View {
    words: &'static Words,
    state: MiningState,
    state_line: String,
    points_line: String,
}

impl View {
    fn of(now: &Glance, words: &'static Words) -> Self {
        let state = now.mining.state;
        let state_line = words.state(state, Some(&now.control.decision.said));
        Self { words, state, state_line, points_line: today(&now.points, words) }
    }

    /// What the first item does: start, or go on.
    fn start_word(&self) -> &'static str {
        if self.state == MiningState::Paused { self.words.resume } else { self.words.start }
    }

    /// Whether there is something to start, to finish, to pause and to stop.
    fn actions(&self) -> [bool; 4] {
        match self.state {
            MiningState::Stopped | MiningState::NeedsYou => [true, false, false, false],
            MiningState::Starting | MiningState::Waiting | MiningState::Working => {
                [false, true, true, true]
            }
            MiningState::Paused => [true, false, true, true],
            MiningState::Finishing => [false, false, false, true],
        }
    }

    fn icon(&self) -> Image<'static> {
        match self.state {
            MiningState::Stopped => tauri::include_image!("../icons/tray-stopped.png"),
            MiningState::Starting
            | MiningState::Waiting
            | MiningState::Finishing
            | MiningState::Paused => {
                tauri::include_image!("../icons/tray-waiting.png")
            }
            MiningState::Working => tauri::include_image!("../icons/tray-working.png"),
            MiningState::NeedsYou => tauri::include_image!("../icons/tray-attention.png"),
        }
    }
}

impl Tray {
    /// Puts the icon into the tray. Must run on the main thread.
    ///
    /// # Errors
    /// Where the menu or the icon cannot be made; the program is usable without.
    pub(crate) fn build(handle: &AppHandle) -> tauri::Result<Self> {
        // The chosen language is known once the application has started; until then the system's.
        let words = spoken(Language::System);
        let view = View {
            words,
            state: MiningState::Stopped,
            state_line: words.starting_up.to_owned(),
            points_line: today(&PointsSummary::default(), words),
        };
        let item = |id: &str, text: &str, enabled: bool| {
            MenuItem::with_id(handle, id, text, enabled, None::<&str>)
        };
        let separator = || PredefinedMenuItem::separator(handle);
        let state = item("state", &view.state_line, false)?;
        let points = item("points", &view.points_line, false)?;
        let start = item(START, words.start, false)?;
        let finish = item(FINISH, words.finish, false)?;
        let pause_hour = item(PAUSE_HOUR, words.pause_hour, false)?;
        let pause = item(PAUSE, words.pause, false)?;
        let stop_now = item(STOP_NOW, words.stop_now, false)?;
        let open = item(OPEN, words.open, true)?;
        let quit = item(QUIT, words.quit, true)?;
        let menu = Menu::with_items(
            handle,
            &[
                &state,
                &points,
                &separator()?,
                &start,
                &pause_hour,
                &pause,
                &finish,
                &stop_now,
                &separator()?,
                &open,
                &quit,
            ],
        )?;
        let mut builder = TrayIconBuilder::with_id("main")
            .icon(view.icon())
            .tooltip("Neurino")
            .menu(&menu)
            .show_menu_on_left_click(false)
            .on_menu_event(|handle, event| chosen(handle, event.id().as_ref()))
            .on_tray_icon_event(|icon, event| {
                let (left, up) = (MouseButton::Left, MouseButtonState::Up);
                if let TrayIconEvent::Click { button, button_state, .. } = event
                    && (button, button_state) == (left, up)
                {
                    window::show(icon.app_handle());
                }
            });
        // Linux trays read the icon from a file; the default folder is shared between users.
        if let Ok(cache) = handle.path().app_cache_dir() {
            builder = builder.temp_dir_path(cache.join("tray"));
        }
        let icon = builder.build(handle)?;
        let fixed: Vec<(_, Word)> = vec![
            (finish.clone(), |words| words.finish),
            (pause_hour.clone(), |words| words.pause_hour),
            (pause.clone(), |words| words.pause),
            (stop_now.clone(), |words| words.stop_now),
            (open, |words| words.open),
            (quit, |words| words.quit),
        ];
        Ok(Self { icon, state, points, fixed, start, finish, pause_hour, pause, stop_now })
    }

    fn show(&self, view: &View) -> tauri::Result<()> {
        self.icon.set_icon(Some(view.icon()))?;
        self.icon
            .set_tooltip(Some(format!("Neurino: {}\n{}", view.state_line, view.points_line)))?;
        self.state.set_text(&view.state_line)?;
        self.points.set_text(&view.points_line)?;
        for (item, word) in &self.fixed {
            item.set_text(word(view.words))?;
        }
        self.start.set_text(view.start_word())?;
        let [start, finish, pause, stop_now] = view.actions();
        self.start.set_enabled(start)?;
        self.finish.set_enabled(finish)?;
        self.pause_hour.set_enabled(pause)?;
        self.pause.set_enabled(pause)?;
        self.stop_now.set_enabled(stop_now)?;
        Ok(())
    }

    /// Keeps the tray in step with the application until that ends.
    pub(crate) async fn follow(self, app: Arc<App>, mut language: watch::Receiver<Language>) {
        // Not the window's events: whoever follows those has everything computed all the time.
        let mut glances = app.glances();
        let mut shown = None;
        let mut words = spoken(*language.borrow_and_update());
        loop {
            self.update(&mut shown, View::of(&app.glance(), words));
            tokio::select! {
                changed = glances.changed() => if changed.is_err() { return },
                Ok(()) = language.changed() => words = spoken(*language.borrow_and_update()),
            }
        }
    }

    fn update(&self, shown: &mut Option<View>, view: View) {
        if shown.as_ref() == Some(&view) {
            return;
        }
        if let Err(error) = self.show(&view) {
            tracing::warn!(%error, "the tray could not be updated: {error}");
        }
        *shown = Some(view);
    }

    /// Says that the application did not start.
    pub(crate) fn show_failure(&self) {
        if let Err(error) = self.state.set_text(spoken(Language::System).could_not_start) {
            tracing::warn!(%error, "the tray could not be updated: {error}");
        }
    }
}

/// The words of a chosen language, or of the desktop's.
fn spoken(language: Language) -> &'static Words {
    Words::of(language, neurino_platform::language().as_deref())
}

/// Today's points, of both kinds once there are some of the second.
fn today(points: &PointsSummary, words: &Words) -> String {
    let llama = format!("{}: {} {}", words.today, in_short(points.llama_today, words), words.llama);
    if points.waifu_today == MicroPoints(0) {
        return llama;
    }
    format!("{llama}, {} {}", in_short(points.waifu_today, words), words.waifu)
}

/// An amount as the window writes it: three decimals, and more where they are not zero.
pub(crate) fn in_short(amount: MicroPoints, words: &Words) -> String {
    const DECIMALS: usize = 6;
    const LEAST: usize = 3;
    let text = amount.to_string();
    let zeros = text.len() - text.trim_end_matches('0').len();
    text[..text.len() - zeros.min(DECIMALS - LEAST)].replace('.', &words.decimal.to_string())
}

/// Does what the chosen item says.
fn chosen(handle: &AppHandle, item: &str) {
    let command = match item {
        OPEN => return window::show(handle),
        QUIT => return desktop::quit(handle),
        START => Command::MiningStart,
        FINISH => Command::MiningStop { mode: StopMode::Finish },
        PAUSE_HOUR => Command::MiningOrder { order: Order::Snooze { minutes: Some(60) } },
        PAUSE => Command::MiningOrder { order: Order::Snooze { minutes: None } },
        STOP_NOW => Command::MiningStop { mode: StopMode::Now },
        _ => return,
    };
    let Some(app) = handle.state::<Arc<Shell>>().app_now() else { return };
    let handle = handle.clone();
    tauri::async_runtime::spawn(async move {
        if let Err(error) = app.dispatch(command).await {
            // The page shows the state and its reason; the tray has no room for it.
            tracing::warn!(%error, "the tray's command failed: {error}");
            window::show(&handle);
        }
    });
}

/// Whether a closed window can be opened again. The tray's icons and a second start both reach this
/// process over the session bus, so without one there is no way back.
pub(crate) fn way_back_exists() -> bool {
    #[cfg(target_os = "linux")]
    {
        use gtk::gio;
        gio::bus_get_sync(gio::BusType::Session, None::<&gio::Cancellable>).is_ok()
    }
    #[cfg(not(target_os = "linux"))]
    {
        true
    }
}

/// Writes down that the desktop shows no tray icons, for whoever looks for ours.
pub(crate) fn log_missing_host() {
    #[cfg(target_os = "linux")]
    if !notifier_host_exists() {
        tracing::info!(
            "this desktop announces no tray; closing the window leaves Neurino running, and \
             starting it again opens the window"
        );
    }
}

/// Whether something on the session bus shows tray icons.
#[cfg(target_os = "linux")]
fn notifier_host_exists() -> bool {
    use gtk::{gio, glib};
    let Ok(bus) = gio::bus_get_sync(gio::BusType::Session, None::<&gio::Cancellable>) else {
        return false;
    };
    let owned = bus.call_sync(
        Some("org.freedesktop.DBus"),
        "/org/freedesktop/DBus",
        "org.freedesktop.DBus",
        "NameHasOwner",
        Some(&("org.kde.StatusNotifierWatcher",).into()),
        Some(glib::VariantTy::new("(b)").expect("a type string")),
        gio::DBusCallFlags::NO_AUTO_START,
        2_000,
        None::<&gio::Cancellable>,
    );
    owned.ok().and_then(|reply| reply.get::<(bool,)>()).is_some_and(|(owned,)| owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(micro: i64, expect: &str) {
        let english = Words::of(Language::English, None);
        assert_eq!(in_short(MicroPoints(micro), english), expect);
    }

    #[test]
    fn points_are_told_in_the_chosen_language() {
        let mut points = PointsSummary { llama_today: MicroPoints(52_500), ..Default::default() };
        let german = Words::of(Language::German, None);
        assert_eq!(today(&points, german), "Heute: 0,0525 Llama-Punkte");
        points.waifu_today = MicroPoints(24_000);
        let english = Words::of(Language::English, None);
        assert_eq!(today(&points, english), "Today: 0.0525 Llama points, 0.024 Waifu points");
    }

    #[test]
    fn amounts_are_short_and_exact() {
        check(0, "0.000");
        check(24_000, "0.024");
        check(490_000, "0.490");
        check(52_500, "0.0525");
        check(1, "0.000001");
        check(10_000_000, "10.000");
    }
}
