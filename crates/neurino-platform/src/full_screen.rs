//! Which windows of Windows fill the screen as a game does.

/// A border with a title (`WS_CAPTION`). The border alone is one of its two bits.
const CAPTION: isize = 0x00C0_0000;

/// A window and the screen that it is on. Edges are left, top, right and bottom, in pixels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shown {
    pub(crate) place: [i32; 4],
    pub(crate) screen: [i32; 4],
    /// It was made as large as it gets.
    pub(crate) zoomed: bool,
    /// Its style bits.
    pub(crate) style: isize,
}

impl Shown {
    /// Whether it leaves nothing else to be seen, and is not an ordinary window that was maximised: that one
    /// covers a screen without a taskbar as well, and a few pixels beyond, like a browser on a second screen.
    pub(crate) fn is_full_screen(self) -> bool {
        let ([left, top, right, bottom], all) = (self.place, self.screen);
        let covers = left <= all[0] && top <= all[1] && right >= all[2] && bottom >= all[3];
        let ordinary = self.zoomed || self.style & CAPTION == CAPTION;
        covers && !ordinary
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCREEN: [i32; 4] = [1920, 0, 3840, 1080];
    /// `WS_POPUP` and `WS_VISIBLE`; a border is not a caption.
    const BORDERLESS: isize = 0x9000_0000;
    const BORDER: isize = 0x0080_0000;

    #[test]
    fn a_maximised_window_on_a_screen_without_a_taskbar_is_no_game() {
        let game = Shown { place: SCREEN, screen: SCREEN, zoomed: false, style: BORDERLESS };
        assert!(game.is_full_screen());
        assert!(Shown { style: BORDERLESS | BORDER, ..game }.is_full_screen());
        let beyond = [1912, -8, 3848, 1088];
        let browser = Shown { place: beyond, zoomed: true, style: CAPTION, ..game };
        assert!(!browser.is_full_screen());
        // One that draws its own title.
        assert!(!Shown { style: BORDERLESS, ..browser }.is_full_screen());
        assert!(!Shown { zoomed: false, ..browser }.is_full_screen());
        let beside_a_taskbar = [1920, 0, 3840, 1032];
        assert!(!Shown { place: beside_a_taskbar, ..game }.is_full_screen());
    }
}
