//! A key that pauses and resumes while another window is in front: chosen by pressing it, refused where
//! another program has it, given back at the end.

use std::time::Duration;

use x11rb::connection::Connection as _;
use x11rb::protocol::xproto::{
    ConnectionExt as _, GrabMode, KEY_PRESS_EVENT, KEY_RELEASE_EVENT, Keycode, ModMask,
};
use x11rb::protocol::xtest::ConnectionExt as _;
use x11rb::rust_connection::RustConnection;

use crate::desk::in_the_window;
use crate::page::{Page, query};

const SOON: Duration = Duration::from_secs(10);
/// A model is loaded and a job computed, on two cores that others may share.
const A_WHILE: Duration = Duration::from_mins(3);

const CTRL: u32 = 0xffe3;
const ALT: u32 = 0xffe9;
const M: u32 = 0x6d;
const P: u32 = 0x70;
const U: u32 = 0x75;

/// The keyboard of the desk.
struct Keyboard(RustConnection);

impl Keyboard {
    fn of(page: &Page) -> Self {
        Self(x11rb::connect(Some(page.desk.display())).unwrap().0)
    }

    fn code(&self, symbol: u32) -> Keycode {
        let (first, last) = (self.0.setup().min_keycode, self.0.setup().max_keycode);
        let map = self.0.get_keyboard_mapping(first, last - first + 1).unwrap().reply().unwrap();
        let columns = usize::from(map.keysyms_per_keycode);
        let at = map.keysyms.chunks(columns).position(|symbols| symbols.contains(&symbol)).unwrap();
        first + u8::try_from(at).unwrap()
    }

    fn press(&self, symbols: &[u32]) {
        let send = |event, symbol| {
            let (code, none) = (self.code(symbol), x11rb::NONE);
            self.0.xtest_fake_input(event, code, 0, none, 0, 0, 0).unwrap().check().unwrap();
        };
        for symbol in symbols {
            send(KEY_PRESS_EVENT, *symbol);
        }
        for symbol in symbols.iter().rev() {
            send(KEY_RELEASE_EVENT, *symbol);
        }
    }

    /// Whether nobody has Ctrl, Alt and a key.
    fn is_free(&self, symbol: u32) -> bool {
        let free = self.takes(symbol);
        if free {
            let (root, held) = (self.0.setup().roots[0].root, ModMask::CONTROL | ModMask::M1);
            self.0.ungrab_key(self.code(symbol), root, held).unwrap().check().unwrap();
        }
        free
    }

    /// Takes Ctrl, Alt and a key as another program would; false if somebody has it.
    fn takes(&self, symbol: u32) -> bool {
        let (root, mode) = (self.0.setup().roots[0].root, GrabMode::ASYNC);
        let held = ModMask::CONTROL | ModMask::M1;
        let code = self.code(symbol);
        self.0.grab_key(false, root, held, code, mode, mode).unwrap().check().is_ok()
    }
}

#[test]
fn pauses_and_resumes_from_any_window() {
    in_the_window("hotkey", async |page: Page| {
        let keyboard = Keyboard::of(&page);
        page.go_to("settings").await;
        assert_eq!(page.read("hotkey-off").await, "No hotkey");
        // Another program was first.
        assert!(keyboard.takes(P));
        choose(&page, &keyboard, P).await;
        let told = "Another program has Ctrl+Alt+P.";
        page.until(told, SOON, async |page| page.read("hotkey").await.contains(told)).await;
        page.picture("taken").await;

        choose(&page, &keyboard, M).await;
        page.until("it is chosen", SOON, async |page| page.find("hotkey-keys").await.is_some())
            .await;
        let kept = std::fs::read_to_string(page.desk.home().join("config/hotkey.toml")).unwrap();
        assert_eq!(kept, "keys = \"Ctrl+Alt+M\"\n");
        assert!(!keyboard.is_free(M), "the program has it");
        page.picture("chosen").await;

        page.go_to("home").await;
        page.until_state(&["stopped"], SOON).await;
        keyboard.press(&[CTRL, ALT, M]);
        page.until_state(&["starting", "waiting", "working"], A_WHILE).await;
        page.until_state(&["waiting", "working"], A_WHILE).await;
        // Other keys are other programs'.
        keyboard.press(&[CTRL, ALT, U]);
        keyboard.press(&[CTRL, M]);
        tokio::time::sleep(Duration::from_secs(1)).await;
        page.until_state(&["waiting", "working"], SOON).await;
        keyboard.press(&[CTRL, ALT, M]);
        page.until_state(&["paused"], A_WHILE).await;
        assert!(page.read("state-sentence").await.contains("Paused by you"));
        page.picture("paused").await;

        // It is held again after a restart, and given back when the program ends.
        page.start_anew("state-sentence").await;
        page.until("it is held again", SOON, async |_| !keyboard.is_free(M)).await;
        page.go_to("settings").await;
        page.press("hotkey-remove").await;
        page.wait_for("hotkey-off", SOON).await;
        page.until("it is given back", SOON, async |_| keyboard.is_free(M)).await;
    });
}

/// Chooses Ctrl, Alt and a key by pressing them on the keyboard.
async fn choose(page: &Page, keyboard: &Keyboard, key: u32) {
    page.press("hotkey-choose").await;
    page.until("the field listens", SOON, async |page| {
        let script = format!("return document.activeElement === {}", query("hotkey-field"));
        page.script(&script).await == serde_json::json!(true)
    })
    .await;
    if key == P {
        // The other program gets these keys, and the page never sees them: it is told as it would be
        // by a keyboard of which that program takes nothing.
        let event = "new KeyboardEvent('keydown', { key: 'p', code: 'KeyP', ctrlKey: true, \
            altKey: true, bubbles: true, cancelable: true })";
        page.script(&format!("{}.dispatchEvent({event})", query("hotkey-field"))).await;
    } else {
        keyboard.press(&[CTRL, ALT, key]);
    }
}
