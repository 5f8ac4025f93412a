//! The key that pauses and resumes: pressed, refused, kept over a restart, given back at the end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use neurino_app::{AppOptions, Notifier};
use neurino_control::Hotkey;
use neurino_platform::{HeldKey, HotkeyError, Hotkeys, Pressed};
use neurino_protocol::ErrorBody;
use neurino_protocol::app::{Command, MiningState, Reply};
use neurino_protocol::hotkey::{HotkeyCommand, HotkeyView, HotkeyWay};
use neurino_protocol::notices::Notice;

use crate::world::{PATIENCE, Viewer, World};

/// A keyboard, some of whose keys other programs have.
#[derive(Clone, Default)]
struct Keyboard(Arc<Mutex<Taken>>);

#[derive(Default)]
struct Taken {
    ours: HashMap<String, Pressed>,
    others: Vec<String>,
}

struct Back(Keyboard, String);

impl Drop for Back {
    fn drop(&mut self) {
        self.0.0.lock().unwrap().ours.remove(&self.1);
    }
}

impl Hotkeys for Keyboard {
    fn given(&self) -> Result<(), HotkeyError> {
        Ok(())
    }

    fn take(&self, keys: Hotkey, pressed: Pressed) -> Result<HeldKey, HotkeyError> {
        let mut taken = self.0.lock().unwrap();
        let name = keys.to_string();
        if taken.others.contains(&name) || taken.ours.contains_key(&name) {
            return Err(HotkeyError::Taken(keys));
        }
        taken.ours.insert(name.clone(), pressed);
        Ok(HeldKey::new(Back(self.clone(), name)))
    }
}

impl Keyboard {
    fn ours(&self) -> Vec<String> {
        self.0.lock().unwrap().ours.keys().cloned().collect()
    }

    fn press(&self, keys: &str) {
        self.0.lock().unwrap().ours[keys]();
    }
}

/// Notes what is shown.
#[derive(Clone, Default)]
struct Shown(Arc<Mutex<Vec<Notice>>>);

impl Notifier for Shown {
    fn show(&self, notice: &Notice) -> Result<(), ErrorBody> {
        self.0.lock().unwrap().push(notice.clone());
        Ok(())
    }
}

fn options(world: &World, keyboard: &Keyboard, shown: &Shown) -> AppOptions {
    let hotkeys: Arc<dyn Hotkeys> = Arc::new(keyboard.clone());
    let notifier: Arc<dyn Notifier> = Arc::new(shown.clone());
    AppOptions { hotkeys: Some(hotkeys), notifier: Some(notifier), ..world.options() }
}

async fn set(viewer: &Viewer, keys: &str) -> Result<HotkeyView, ErrorBody> {
    let keys = (!keys.is_empty()).then(|| keys.parse().unwrap());
    view(viewer, HotkeyCommand::Set { keys }).await
}

async fn view(viewer: &Viewer, command: HotkeyCommand) -> Result<HotkeyView, ErrorBody> {
    match viewer.command(Command::Hotkey(command)).await? {
        Reply::Hotkey(view) => Ok(view),
        other => panic!("a hotkey's view, not {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_press_pauses_and_the_next_one_resumes() {
    let (world, keyboard, shown) = (World::answering("yes"), Keyboard::default(), Shown::default());
    let viewer = Viewer::start(options(&world, &keyboard, &shown)).await.unwrap();
    assert_eq!(keyboard.ours(), Vec::<String>::new(), "off by default");
    let view = set(&viewer, "Ctrl+Alt+M").await.unwrap();
    let keys = Some("Ctrl+Alt+M".parse().unwrap());
    assert_eq!(view, HotkeyView { way: HotkeyWay::Here, keys, problem: None });
    viewer.mine_until_ready().await;
    keyboard.press("Ctrl+Alt+M");
    viewer.until_state(MiningState::Paused).await;
    keyboard.press("Ctrl+Alt+M");
    viewer.until_ready().await;
    let begin = std::time::Instant::now();
    while shown.0.lock().unwrap().len() < 2 && begin.elapsed() < PATIENCE {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let told = shown.0.lock().unwrap().clone();
    assert_eq!(told, [Notice::Hotkey(false), Notice::Hotkey(true)]);
    viewer.app.shutdown().await;
    assert_eq!(keyboard.ours(), Vec::<String>::new(), "given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_another_program_has_are_refused_and_the_former_stay() {
    let (world, keyboard, shown) = (World::answering("yes"), Keyboard::default(), Shown::default());
    keyboard.0.lock().unwrap().others.push("Ctrl+Alt+P".into());
    let viewer = Viewer::start(options(&world, &keyboard, &shown)).await.unwrap();
    set(&viewer, "Ctrl+Alt+M").await.unwrap();
    let refused = set(&viewer, "Ctrl+Alt+P").await.unwrap_err();
    assert_eq!(refused.message, "another program has Ctrl+Alt+P");
    assert_eq!(keyboard.ours(), ["Ctrl+Alt+M"]);
    // The same keys again are no conflict with ourselves.
    set(&viewer, "Ctrl+Alt+M").await.unwrap();
    assert_eq!(keyboard.ours(), ["Ctrl+Alt+M"]);
    viewer.app.shutdown().await;

    // After a restart they are held again, or it is said why not.
    let viewer = Viewer::start(options(&world, &keyboard, &shown)).await.unwrap();
    assert_eq!(keyboard.ours(), ["Ctrl+Alt+M"]);
    viewer.app.shutdown().await;
    keyboard.0.lock().unwrap().others.push("Ctrl+Alt+M".into());
    let viewer = Viewer::start(options(&world, &keyboard, &shown)).await.unwrap();
    let shown = view(&viewer, HotkeyCommand::Look).await.unwrap();
    assert_eq!(shown.problem.unwrap().message, "another program has Ctrl+Alt+M");
    let view = set(&viewer, "").await.unwrap();
    assert_eq!((view.keys, view.problem), (None, None));
    assert_eq!(keyboard.ours(), Vec::<String>::new());
    viewer.app.shutdown().await;
}
