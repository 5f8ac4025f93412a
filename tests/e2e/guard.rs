//! A game starts and gets the machine; it ends, and mining goes on. And the person's own pause.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::desk::in_the_window;
use crate::page::Page;

const SOON: Duration = Duration::from_secs(10);
/// A model is loaded and a job computed, on two cores that others may share.
const A_WHILE: Duration = Duration::from_mins(3);
const GAME: &str = "/games/steamapps/common/DOOM/doom";

#[test]
fn steps_aside_for_a_game() {
    in_the_window("game-guard", async |page: Page| {
        page.until_state(&["stopped"], SOON).await;
        page.go_to("settings").await;
        page.choose("cool-down", "30").await;
        page.script("document.querySelector('[data-section=games]').scrollIntoView()").await;
        page.picture("rules").await;
        page.go_to("home").await;
        page.press("start-button").await;
        page.until_state(&["working"], A_WHILE).await;

        page.desk.play(&json!({ "idle_secs": 0, "programs": [GAME] }));
        let begin = Instant::now();
        page.until_state(&["paused"], SOON).await;
        let sentence = page.read("state-sentence").await;
        assert_eq!(sentence, "Doom is running. Resumes 30 s after it is gone.");
        page.until("the engine's process is gone", SOON, async |page| page.desk.engine().is_none())
            .await;
        eprintln!("the machine was given back {:?} after the game began", begin.elapsed());
        let proof = page.read("gave-back").await;
        eprintln!("{proof}");
        assert!(proof.starts_with("Gave back ") && proof.contains(" in "), "{proof}");
        page.picture("paused").await;

        page.desk.play(&json!({ "idle_secs": 0, "programs": [] }));
        page.wait_for("time-left", SOON).await;
        assert!(page.read("state-sentence").await.contains("a moment ago"));
        page.picture("cooling-down").await;
        page.until_state(&["starting", "waiting", "working"], Duration::from_mins(1)).await;
        page.until_state(&["working"], A_WHILE).await;
        assert!(page.find("gave-back").await.is_none(), "it is no news any more");
        check_history(&page).await;
    });
}

/// The settings list what was decided, newest first.
async fn check_history(page: &Page) {
    page.go_to("settings").await;
    page.press("open-decisions").await;
    page.wait_for("decision", SOON).await;
    page.picture("decisions").await;
    let states = page
        .script(
            "return [...document.querySelectorAll('[data-testid=decision] .state')] \
               .map((state) => state.textContent)",
        )
        .await;
    assert_eq!(states, json!(["Mining", "Paused", "Paused", "Mining", "Stopped"]));
}

#[test]
fn pauses_until_the_person_resumes() {
    in_the_window("pausing", async |page: Page| {
        page.press("start-button").await;
        page.until_state(&["waiting", "working"], A_WHILE).await;
        page.press("pause-menu").await;
        page.picture("menu").await;
        page.press("pause-menu-open").await;
        page.until_state(&["paused"], SOON).await;
        assert_eq!(page.read("state-sentence").await, "Paused by you until you resume.");
        page.until("the engine's process is gone", SOON, async |page| page.desk.engine().is_none())
            .await;
        page.picture("paused").await;
        // A game comes and goes; the pause stays.
        page.desk.play(&json!({ "programs": [GAME] }));
        tokio::time::sleep(Duration::from_secs(3)).await;
        page.desk.play(&json!({ "programs": [] }));
        tokio::time::sleep(Duration::from_secs(3)).await;
        page.until_state(&["paused"], SOON).await;
        page.press("start-button").await;
        page.until_state(&["waiting", "working"], A_WHILE).await;
    });
}
