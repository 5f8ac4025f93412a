//! The engine's process dies in the middle of an answer; the window lives, says so, and goes on.

use std::time::Duration;

use crate::desk::in_the_window;
use crate::earning::{ask, until_answered};
use crate::page::Page;

const A_WHILE: Duration = Duration::from_mins(3);

#[test]
fn survives_the_loss_of_its_engine() {
    in_the_window("engine-loss", async |page: Page| {
        page.press("start-button").await;
        page.until_state(&["waiting", "working"], A_WHILE).await;
        ask(&page, "Write a long story about a lighthouse keeper and her robot.").await;
        page.wait_for("chat-answer", A_WHILE).await;

        page.go_to("home").await;
        listen_to_the_sentence(&page).await;
        let lost = page.desk.engine().expect("an engine computes the answer");
        lost.kill();
        page.until("another engine takes over", A_WHILE, async |page| {
            page.desk.engine().is_some_and(|engine| engine != lost)
        })
        .await;
        page.until_state(&["waiting", "working"], A_WHILE).await;
        page.picture("after-the-loss").await;
        let heard = heard(&page).await;
        eprintln!("the state sentence said: {heard:#?}");
        assert!(
            heard.iter().any(|sentence| sentence.to_lowercase().contains("engine")),
            "the person is told: {heard:?}"
        );

        page.go_to("playground").await;
        page.until("the lost answer comes to an end", A_WHILE, async |page| {
            page.find("chat-send").await.is_some()
        })
        .await;
        page.picture("the-lost-answer").await;
        ask(&page, "What is the capital of France?").await;
        until_answered(&page).await;
        page.picture("the-next-answer").await;
    });
}

/// Has the page write down every wording of the state sentence: some last only a moment.
async fn listen_to_the_sentence(page: &Page) {
    page.wait_for("state-sentence", Duration::from_secs(5)).await;
    page.script(
        "window.heard = []; \
         const look = () => { \
           const text = document.querySelector('[data-testid=state-sentence]')?.textContent; \
           const stem = text?.replace(/: \\d.*/, ''); \
           if (stem && window.heard.at(-1) !== stem) window.heard.push(stem) \
         }; \
         look(); \
         new MutationObserver(look).observe(document.body, \
           { subtree: true, childList: true, characterData: true })",
    )
    .await;
}

async fn heard(page: &Page) -> Vec<String> {
    let heard = page.script("return window.heard").await;
    heard.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}
