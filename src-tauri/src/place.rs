//! Where the window opens: where it was, as far as a monitor is still there; and noting it before the
//! window goes, for it is destroyed when it is closed into the tray.

use neurino_config::{WindowFile, WindowPlace};
use tauri::{AppHandle, LogicalPosition, LogicalSize, WebviewWindow};

/// Least size in physical pixels that counts as a window somebody chose.
const LEAST: (u32, u32) = (300, 200);
/// How much of the window's upper edge must lie on a monitor, so that a mouse can take hold of it.
const GRIP: (i64, i64) = (120, 24);

/// A monitor in physical pixels.
#[derive(Debug, Clone, Copy)]
struct Screen {
    x: i32,
    y: i32,
    width: u32,
    height: u32,
    scale: f64,
}

/// Where to open, in the desktop's own units.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Opening {
    /// The upper left corner; none where the middle is better.
    pub(crate) position: Option<LogicalPosition<f64>>,
    /// The page's size.
    pub(crate) size: LogicalSize<f64>,
    /// Whether it fills the desktop.
    pub(crate) maximized: bool,
}

/// Where the window was, if that is still a place; `None` for its first time.
pub(crate) fn opening(handle: &AppHandle, file: &WindowFile) -> Option<Opening> {
    let monitors = handle.available_monitors().unwrap_or_default();
    let screens = monitors.iter().map(|monitor| Screen {
        x: monitor.position().x,
        y: monitor.position().y,
        width: monitor.size().width,
        height: monitor.size().height,
        scale: monitor.scale_factor(),
    });
    on(&screens.collect::<Vec<_>>(), file.load()?)
}

/// Notes where the window is. What is minimised is nowhere, and a window that fills the desktop keeps
/// the place that it had before.
pub(crate) fn note(window: &WebviewWindow, file: &WindowFile) {
    let noted = place_of(window, file.load()).map(|place| file.save(place));
    if let Ok(Err(error)) = noted {
        tracing::warn!(%error, "the window's place cannot be kept: {error}");
    }
}

fn place_of(window: &WebviewWindow, before: Option<WindowPlace>) -> tauri::Result<WindowPlace> {
    let maximized = window.is_maximized()? || window.is_fullscreen()?;
    let (position, size) = (window.outer_position()?, window.inner_size()?);
    let (x, y) = (position.x, position.y);
    let now = WindowPlace { x, y, width: size.width, height: size.height, maximized };
    if !maximized && !window.is_minimized()? {
        return Ok(now);
    }
    Ok(WindowPlace { maximized, ..before.unwrap_or(now) })
}

/// Where a window that was at `place` opens on these screens.
fn on(screens: &[Screen], place: WindowPlace) -> Option<Opening> {
    if place.width < LEAST.0 || place.height < LEAST.1 {
        return None;
    }
    let shared = |begin: i32, length: u32, other: i32, other_length: u32| {
        let (begin, other) = (i64::from(begin), i64::from(other));
        (begin + i64::from(length)).min(other + i64::from(other_length)) - begin.max(other)
    };
    // Its upper edge alone: a window whose edge is out of reach cannot be moved back.
    let edge = GRIP.1 as u32;
    let holds = |screen: &&Screen| {
        shared(place.x, place.width, screen.x, screen.width) >= GRIP.0
            && shared(place.y, edge, screen.y, screen.height) >= GRIP.1
    };
    let there = screens.iter().find(holds);
    let screen = there.or(screens.first())?;
    let logical = |pixels: f64| pixels / screen.scale.max(0.1);
    let width = place.width.min(screen.width);
    let height = place.height.min(screen.height);
    Some(Opening {
        position: there.map(|_| {
            LogicalPosition::new(logical(f64::from(place.x)), logical(f64::from(place.y)))
        }),
        size: LogicalSize::new(logical(f64::from(width)), logical(f64::from(height))),
        maximized: place.maximized,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Screen = Screen { x: 0, y: 0, width: 1920, height: 1080, scale: 1.0 };
    const LEFT: Screen = Screen { x: -2560, y: 0, width: 2560, height: 1440, scale: 2.0 };

    fn place(x: i32, y: i32) -> WindowPlace {
        WindowPlace { x, y, width: 1200, height: 800, maximized: false }
    }

    fn position(screens: &[Screen], place: WindowPlace) -> Option<(f64, f64)> {
        on(screens, place).expect("it opens").position.map(|at| (at.x, at.y))
    }

    #[test]
    fn it_opens_where_it_was_on_the_monitor_that_is_there() {
        assert_eq!(position(&[FIRST, LEFT], place(100, 50)), Some((100.0, 50.0)));
        // Twice the pixels for each of the desktop's units.
        assert_eq!(position(&[FIRST, LEFT], place(-2000, 300)), Some((-1000.0, 150.0)));
        let size = on(&[FIRST, LEFT], place(-2000, 300)).expect("it opens").size;
        assert_eq!((size.width, size.height), (600.0, 400.0));
        // Half outside is where somebody put it.
        assert_eq!(position(&[FIRST], place(1500, 900)), Some((1500.0, 900.0)));
    }

    #[test]
    fn without_its_monitor_it_opens_in_the_middle() {
        for lost in [
            place(-2000, 300),
            place(5000, 10),
            place(100, 1070),
            place(100, -200),
            place(-1150, 10),
        ] {
            assert_eq!(position(&[FIRST], lost), None, "{lost:?}");
        }
        assert_eq!(position(&[FIRST], place(i32::MAX, i32::MIN)), None);
    }

    #[test]
    fn it_is_never_larger_than_its_monitor_nor_nothing() {
        let huge = WindowPlace { width: 9000, height: u32::MAX, ..place(0, 0) };
        let size = on(&[FIRST], huge).expect("it opens").size;
        assert_eq!((size.width, size.height), (1920.0, 1080.0));
        assert_eq!(on(&[FIRST], WindowPlace { width: 3, ..place(0, 0) }), None);
        assert_eq!(on(&[], place(0, 0)), None, "a desktop that names no monitor");
        let large = WindowPlace { maximized: true, ..place(0, 0) };
        assert!(on(&[FIRST], large).expect("it opens").maximized);
    }
}
