//! The window: made on demand, destroyed when closed, so that a miner in the tray pays nothing for
//! a page nobody sees.

use std::sync::Arc;
use std::time::Duration;

use neurino_protocol::app::{OnClose, Theme};
use tauri::window::Color;
use tauri::{
    AppHandle, Manager, Url, WebviewUrl, WebviewWindow, WebviewWindowBuilder, WindowEvent,
};

use crate::shell::Shell;
use crate::{desktop, memory, place, tray};

/// The window's label, which `capabilities/main.json` names.
pub(crate) const LABEL: &str = "main";

/// How long the window waits for the preferences before it opens with the defaults.
const PREFERENCES_WAIT: Duration = Duration::from_millis(400);

/// The page's size when the window opens for the first time, in the desktop's own units.
const USUAL_SIZE: (f64, f64) = (1100.0, 760.0);

/// After so long nothing of a closed window is left.
const WINDOW_ENDS_WITHIN: Duration = Duration::from_secs(3);

/// Backgrounds of the page in its two themes, so that nothing flashes before the first paint.
/// `--bg` in `ui/src/app.css` states the same colours.
const DARK: Color = Color(15, 20, 19, 255);
const LIGHT: Color = Color(243, 246, 245, 255);

/// Whether the environment names a display.
pub(crate) fn display_is_named() -> bool {
    let named = |name| std::env::var_os(name).is_some_and(|display| !display.is_empty());
    !cfg!(target_os = "linux") || named("DISPLAY") || named("WAYLAND_DISPLAY")
}

/// Whether a window can be opened at all: Tauri panics where GTK finds no display.
pub(crate) fn display_answers() -> bool {
    #[cfg(target_os = "linux")]
    {
        gtk::init().is_ok()
    }
    #[cfg(not(target_os = "linux"))]
    {
        true
    }
}

/// Whether the window is open.
pub(crate) fn is_open(handle: &AppHandle) -> bool {
    handle.get_webview_window(LABEL).is_some()
}

/// Whether the window is on the screen, at least in part: open and not minimised.
pub(crate) fn is_shown(handle: &AppHandle) -> bool {
    let minimised = |window: WebviewWindow| window.is_minimized().unwrap_or(false);
    handle.get_webview_window(LABEL).is_some_and(|window| !minimised(window))
}

/// Whether the window is the one in front.
pub(crate) fn is_in_front(handle: &AppHandle) -> bool {
    handle.get_webview_window(LABEL).is_some_and(|window| window.is_focused().unwrap_or(true))
}

/// Opens the window, or brings the open one to the front.
pub(crate) fn show(handle: &AppHandle) {
    let handle = handle.clone();
    tauri::async_runtime::spawn(async move {
        let preferences = handle.state::<Arc<Shell>>().preferences(PREFERENCES_WAIT).await;
        // Building is left to the main thread, one after the other: two at once would both find
        // no window.
        let opener = handle.clone();
        let opened = handle.run_on_main_thread(move || {
            let shown = match opener.get_webview_window(LABEL) {
                Some(window) => bring_to_front(&window),
                None => build(&opener, preferences.theme),
            };
            if let Err(error) = shown {
                tracing::error!(%error, "the window could not be shown: {error}");
            }
        });
        if let Err(error) = opened {
            tracing::error!(%error, "the window could not be shown: {error}");
        }
    });
}

fn bring_to_front(window: &WebviewWindow) -> tauri::Result<()> {
    window.unminimize()?;
    window.show()?;
    window.set_focus()
}

fn build(handle: &AppHandle, theme: Theme) -> tauri::Result<()> {
    let (background, chosen) = match theme {
        Theme::Dark => (DARK, Some(tauri::Theme::Dark)),
        Theme::Light => (LIGHT, Some(tauri::Theme::Light)),
        Theme::System => (if desktop_is_dark() { DARK } else { LIGHT }, None),
    };
    let builder = WebviewWindowBuilder::new(handle, LABEL, WebviewUrl::default());
    // The card is for jobs. Given arguments replace the default ones, so those come along.
    #[cfg(windows)]
    let builder = builder.additional_browser_args(
        "--disable-gpu --disable-features=msWebOOUI,msPdfOOUI,msSmartScreenProtection",
    );
    let shell = handle.state::<Arc<Shell>>();
    let opening = shell.place().and_then(|file| place::opening(handle, file));
    let size = opening.map_or(USUAL_SIZE, |opening| opening.size.into());
    let builder = match opening.and_then(|opening| opening.position) {
        Some(at) => builder.position(at.x, at.y),
        None => builder.center(),
    };
    let window = builder
        .title("Neurino")
        .inner_size(size.0, size.1)
        .min_inner_size(720.0, 520.0)
        .maximized(opening.is_some_and(|opening| opening.maximized))
        .theme(chosen)
        .background_color(background)
        // The content security policy does not stop a page from leaving; this does.
        .on_navigation(is_own_page)
        .build()?;
    keep_off_the_gpu(&window);
    let handle = handle.clone();
    window.on_window_event(move |event| match event {
        WindowEvent::CloseRequested { api, .. } => {
            api.prevent_close();
            close_requested(&handle);
        }
        WindowEvent::Focused(is_in_front) => {
            handle.state::<Arc<Shell>>().in_front(*is_in_front);
        }
        WindowEvent::Destroyed => {
            handle.state::<Arc<Shell>>().page_gone();
            give_memory_back();
        }
        _ => {}
    });
    Ok(())
}

/// Whether the page may go there: its own origin, which is `tauri://localhost` or, on Windows,
/// `http(s)://tauri.localhost`.
fn is_own_page(url: &Url) -> bool {
    matches!(
        (url.scheme(), url.host_str()),
        ("tauri", Some("localhost")) | ("http" | "https", Some("tauri.localhost"))
    ) && url.port().is_none()
}

/// What the person's choice for closing says; asks where there is none.
fn close_requested(handle: &AppHandle) {
    let handle = handle.clone();
    tauri::async_runtime::spawn(async move {
        let shell = handle.state::<Arc<Shell>>();
        if shell.failed() {
            return desktop::quit(&handle);
        }
        match shell.preferences(PREFERENCES_WAIT).await.on_close {
            OnClose::Ask if shell.ask_about_closing() => {}
            OnClose::Ask | OnClose::Tray => put_away(&handle),
            OnClose::Quit => desktop::quit(&handle),
        }
    });
}

/// Closes the window and goes on without it. Where neither the tray nor a second start could bring
/// it back, it is only minimised.
pub(crate) fn put_away(handle: &AppHandle) {
    let Some(window) = handle.get_webview_window(LABEL) else { return };
    note_place(handle, &window);
    let put_away = if tray::way_back_exists() {
        window.destroy()
    } else {
        tracing::warn!("no tray and no session bus: the window is minimised instead of closed");
        window.minimize()
    };
    if let Err(error) = put_away {
        tracing::error!(%error, "the window could not be closed: {error}");
    }
}

/// Closes the window because the program ends.
pub(crate) fn destroy(handle: &AppHandle) {
    let Some(window) = handle.get_webview_window(LABEL) else { return };
    note_place(handle, &window);
    if let Err(error) = window.destroy() {
        tracing::error!(%error, "the window could not be closed: {error}");
    }
}

fn note_place(handle: &AppHandle, window: &WebviewWindow) {
    if let Some(file) = handle.state::<Arc<Shell>>().place() {
        place::note(window, file);
    }
}

/// What the window used goes back to the system once its parts have had time to end.
fn give_memory_back() {
    tauri::async_runtime::spawn(async {
        tokio::time::sleep(WINDOW_ENDS_WITHIN).await;
        memory::give_back();
    });
}

/// Has the page painted by the processor: the card is for jobs. Under Windows the builder has said so.
fn keep_off_the_gpu(window: &WebviewWindow) {
    #[cfg(target_os = "linux")]
    {
        use webkit2gtk::{HardwareAccelerationPolicy, SettingsExt as _, WebViewExt as _};
        let set = window.with_webview(|webview| {
            if let Some(settings) = webview.inner().settings() {
                settings.set_hardware_acceleration_policy(HardwareAccelerationPolicy::Never);
            }
        });
        if let Err(error) = set {
            tracing::warn!(%error, "the page may use the graphics card: {error}");
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = window;
}

/// Whether the desktop asks for dark windows.
fn desktop_is_dark() -> bool {
    #[cfg(target_os = "linux")]
    {
        use gtk::prelude::GtkSettingsExt as _;
        gtk::Settings::default().is_some_and(|settings| {
            settings.is_gtk_application_prefer_dark_theme()
                || settings
                    .gtk_theme_name()
                    .is_some_and(|name| name.to_ascii_lowercase().ends_with("-dark"))
        })
    }
    #[cfg(not(target_os = "linux"))]
    {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, own: bool) {
        assert_eq!(is_own_page(&Url::parse(url).expect("a URL")), own, "{url}");
    }

    #[test]
    fn the_page_stays_at_home() {
        check("tauri://localhost/", true);
        check("tauri://localhost/index.html#models", true);
        check("http://tauri.localhost/", true);
        check("https://tauri.localhost/", true);
        check("http://localhost/", false);
        check("http://127.0.0.1:43110/", false);
        check("http://tauri.localhost:8080/", false);
        check("https://tauri.localhost.example/", false);
        check("tauri://elsewhere/", false);
        check("file:///etc/passwd", false);
        check("data:text/html,<p>hello", false);
        check("about:blank", false);
    }
}
