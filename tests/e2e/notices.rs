//! The desktop's notifications, one kind after the other: what is switched on is told once, what is off is
//! not, and the words are those of the window.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;
use zbus::blocking::connection::Builder;
use zbus::zvariant::OwnedValue;

use crate::desk::in_the_window;
use crate::page::Page;

const SOON: Duration = Duration::from_secs(10);
/// A model is loaded and a job computed, on two cores that others may share.
const A_WHILE: Duration = Duration::from_mins(3);
const SERVICE: &str = "org.freedesktop.Notifications";
const GAME: &str = "/games/steamapps/common/DOOM/doom";

/// A desktop that notes titles and texts of what it is to show.
#[derive(Clone, Default)]
struct Desktop(Arc<Mutex<Vec<(String, String)>>>);

#[zbus::interface(name = "org.freedesktop.Notifications")]
impl Desktop {
    #[expect(clippy::too_many_arguments, reason = "the service has so many")]
    fn notify(
        &self,
        program: &str,
        replaces: u32,
        icon: String,
        title: String,
        body: String,
        actions: Vec<String>,
        hints: HashMap<String, OwnedValue>,
        stays_ms: i32,
    ) -> u32 {
        let _ = (replaces, icon, actions, hints, stays_ms);
        assert_eq!(program, "Neurino");
        self.0.lock().unwrap().push((title, body));
        1
    }
}

impl Desktop {
    /// Waits for the notification with this title, and returns its text.
    async fn shows(&self, title: &str, at_most: Duration) -> String {
        let begin = Instant::now();
        loop {
            let shown = self.0.lock().unwrap().clone();
            if let Some((_, body)) = shown.iter().find(|(one, _)| one == title) {
                return body.clone();
            }
            assert!(begin.elapsed() < at_most, "`{title}` is not among {shown:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn count(&self, title: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|(one, _)| one == title).count()
    }
}

#[test]
fn are_told_by_kind_once_and_in_the_windows_language() {
    in_the_window("notices", async |page: Page| {
        let desktop = Desktop::default();
        let _served = serve(page.desk.bus().to_owned(), desktop.clone()).await;

        page.go_to("settings").await;
        page.press("settings-advanced").await;
        page.wait_for("notices", SOON).await;
        page.choose("cool-down", "30").await;
        page.press("notice-test").await;
        assert_eq!(desktop.shows("Neurino", SOON).await, "Notifications work.");

        // The first job that is paid.
        page.press("notice-first_points").await;
        page.go_to("home").await;
        page.press("start-button").await;
        let body = desktop.shows("First points of the day", A_WHILE).await;
        assert_eq!(body, "A job was paid today.");
        page.go_to("settings").await;
        for kind in ["paused", "alerts"] {
            page.press(&format!("notice-{kind}")).await;
        }
        // An alert: no drive of a test has a terabyte free.
        page.replace("alert-low-disk-gb", "1000").await;
        let body = desktop.shows("Neurino noticed something", Duration::from_mins(1)).await;
        assert!(body.contains("1000 GB"), "{body}");

        // A rule: a game begins.
        page.desk.play(&json!({ "idle_secs": 0, "programs": [GAME] }));
        let body = desktop.shows("Mining is paused", SOON).await;
        assert_eq!(body, "Paused: doom is running.");
        page.desk.play(&json!({ "idle_secs": 0, "programs": [] }));

        // Off again, and in German: the next game is not told.
        page.press("notice-paused").await;
        page.choose("language-select", "german").await;
        page.until("the page is German", SOON, async |page| {
            page.script("return document.documentElement.lang").await == json!("de")
        })
        .await;
        page.press("notice-test").await;
        let begin = Instant::now();
        while desktop.count("Neurino") < 2 {
            assert!(begin.elapsed() < SOON, "the second test is shown");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let last = desktop.0.lock().unwrap().last().cloned().unwrap();
        assert_eq!(last.1, "Die Mitteilungen funktionieren.");
        page.go_to("home").await;
        page.until_state(&["working"], A_WHILE).await;
        page.desk.play(&json!({ "idle_secs": 0, "programs": [GAME] }));
        page.until_state(&["paused"], A_WHILE).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(desktop.count("Mining is paused"), 1);
        assert_eq!(desktop.count("Das Mining pausiert"), 0, "it is off");
        assert_eq!(desktop.count("Neurino noticed something"), 1, "told once");
        assert_eq!(desktop.count("First points of the day"), 1);
    });
}

/// The service on the desk's bus; it ends with what is returned.
async fn serve(address: String, desktop: Desktop) -> zbus::blocking::Connection {
    // Building waits, and nothing may wait on the test's own thread.
    let built = tokio::task::spawn_blocking(move || {
        let bus = Builder::address(address.as_str())?.name(SERVICE)?;
        bus.serve_at("/org/freedesktop/Notifications", desktop)?.build()
    });
    built.await.unwrap().unwrap()
}
