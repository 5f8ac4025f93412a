//! Settings: the search, and the cards that are folded away until asked for.

use std::time::Duration;

use serde_json::json;

use crate::desk::in_the_window;
use crate::page::Page;

const SOON: Duration = Duration::from_secs(10);

#[test]
fn are_found_and_unfolded() {
    in_the_window("settings", async |page: Page| {
        page.go_to("settings").await;
        page.wait_for("rules", SOON).await;

        // What few people need is folded away, and stays open once it was opened.
        assert!(!shows(&page, "alerts").await && !shows(&page, "power").await);
        page.press("settings-advanced").await;
        for card in ["alerts", "power", "notices", "update", "cards", "data", "wallet-chain"] {
            page.wait_for(card, SOON).await;
            page.until(card, SOON, async |page| shows(page, card).await).await;
        }
        page.go_to("home").await;
        page.go_to("settings").await;
        page.until("it stays open", SOON, async |page| shows(page, "alerts").await).await;

        // A search leaves only what has the word.
        page.write("settings-find", "temperature").await;
        page.until("cards are found", SOON, async |page| {
            shows(page, "hot-stop").await && !shows(page, "update").await
        })
        .await;
        page.picture("found").await;
    });
}

/// Whether a card is in the page and not folded away.
async fn shows(page: &Page, id: &str) -> bool {
    let script =
        format!("return (document.querySelector('[data-testid={id}]')?.offsetHeight ?? 0) > 0");
    page.script(&script).await == json!(true)
}
