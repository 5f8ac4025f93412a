//! A schedule that forbids this hour, what Start means then, and the way back to the rules.

use std::time::Duration;

use serde_json::json;

use crate::desk::in_the_window;
use crate::page::Page;

const SOON: Duration = Duration::from_secs(10);
/// A model is loaded and a job computed, on two cores that others may share.
const A_WHILE: Duration = Duration::from_mins(3);

#[test]
fn keeps_to_the_schedule() {
    in_the_window("schedule", async |page: Page| {
        page.press("start-button").await;
        page.until_state(&["waiting", "working"], A_WHILE).await;
        page.go_to("settings").await;
        page.choose("when-select", "schedule").await;
        page.wait_for("week-grid", SOON).await;
        paint_now(&page, ".").await;
        page.picture("forbidden").await;
        page.go_to("home").await;
        page.until_state(&["paused"], A_WHILE).await;
        let sentence = page.read("state-sentence").await;
        assert!(sentence.to_lowercase().contains("schedule"), "{sentence}");
        page.picture("paused").await;

        page.press("resume-anyway").await;
        page.until_state(&["starting", "waiting", "working"], A_WHILE).await;
        page.press("follow-rules").await;
        page.until_state(&["paused"], A_WHILE).await;

        page.go_to("settings").await;
        paint_now(&page, "m").await;
        page.go_to("home").await;
        page.until_state(&["starting", "waiting", "working"], A_WHILE).await;
    });
}

/// Paints this hour and the next, in case the test runs into it.
async fn paint_now(page: &Page, letter: &str) {
    page.press(&format!("brush-{letter}")).await;
    for hours in [0, 1] {
        let place = page
            .script(&format!(
                "const at = new Date(Date.now() + {hours} * 3600e3); \
                 return (at.getDay() + 6) % 7 + '-' + at.getHours()"
            ))
            .await;
        let cell = format!("[data-at='{}']", place.as_str().unwrap());
        page.press_the(&cell).await;
        page.until("the hour is painted", SOON, async |page| {
            let script = format!("return document.querySelector(\"{cell}\").dataset.letter");
            page.script(&script).await == json!(letter)
        })
        .await;
    }
}
