//! The window in German and back: chosen in the settings, shown at once, kept for the next window.

use std::time::Duration;

use crate::desk::in_the_window;
use crate::page::Page;

const SOON: Duration = Duration::from_secs(10);

#[test]
fn speaks_german_at_once_and_english_again() {
    in_the_window("language", async |page: Page| {
        page.wait_for("start-button", SOON).await;
        let before = page.read("state-sentence").await;
        assert!(before.starts_with("Not mining."), "{before}");

        page.go_to("settings").await;
        page.choose("language-select", "german").await;
        page.until("the page is German", SOON, async |page| title(page).await == "Einstellungen")
            .await;
        assert_eq!(page.script("return document.documentElement.lang").await, "de");
        page.press("doctor-run").await;
        page.wait_for("doctor-check", Duration::from_secs(30)).await;
        let checked = page.script("return document.querySelector('main').innerText").await;
        assert!(checked.as_str().unwrap().contains("Übungsnetzwerk läuft"), "{checked}");
        page.picture("settings").await;

        page.go_to("home").await;
        let german = page.read("state-sentence").await;
        assert!(german.starts_with("Kein Mining. Drück auf Start"), "{german}");
        page.picture("home").await;
        page.go_to("earnings").await;
        page.until("the earnings are German", SOON, async |page| title(page).await == "Einnahmen")
            .await;
        page.picture("earnings").await;

        // It is in the settings file, so that the tray and the next window speak it, too.
        let file = page.desk.home().join("config/preferences.toml");
        let kept = std::fs::read_to_string(&file).unwrap();
        assert!(kept.contains("language = \"german\""), "{kept}");

        page.go_to("settings").await;
        page.choose("language-select", "english").await;
        page.until("the page is English", SOON, async |page| title(page).await == "Settings").await;
        page.go_to("home").await;
        assert_eq!(page.read("state-sentence").await, before);
    });
}

/// The heading of the page.
async fn title(page: &Page) -> String {
    let found = page.script("return document.querySelector('main h1')?.innerText ?? ''").await;
    found.as_str().unwrap_or_default().to_owned()
}
