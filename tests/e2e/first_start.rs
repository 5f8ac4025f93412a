//! The first start: from an address to "You earned", in the order of the guide, and back to it
//! after a page that was lost.

use std::time::Duration;

use serde_json::json;

use crate::desk::at_the_first_start;
use crate::page::Page;

const SOON: Duration = Duration::from_secs(10);
/// A model is loaded and a job computed, on two cores that others may share.
const A_WHILE: Duration = Duration::from_mins(3);
const REWARD: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";

#[test]
fn guides_to_the_first_points() {
    at_the_first_start("first-start", async |page: Page| {
        page.picture("begin").await;
        page.write("reward-input", &REWARD[..40]).await;
        page.press("reward-check").await;
        page.wait_for("refusal", SOON).await;
        page.picture("bad-address").await;
        page.write("reward-input", &REWARD[40..]).await;
        page.press("reward-check").await;
        assert_eq!(page.read("reward-read").await, REWARD);
        page.picture("good-address").await;
        page.press("reward-use").await;
        page.wait_for("reward-address", SOON).await;
        next(&page, "key").await;

        back_up(&page).await;
        next(&page, "machine").await;
        page.wait_for("doctor-check", A_WHILE).await;
        page.picture("machine").await;

        // The page is lost and comes back where it was.
        page.script("location.reload()").await;
        page.wait_for("guide", SOON).await;
        until_step(&page, "machine").await;
        next(&page, "models").await;
        page.wait_for("first-model", SOON).await;
        page.picture("models").await;
        next(&page, "when").await;
        start_with_the_computer(&page).await;
        next(&page, "first_job").await;
        page.picture("before-the-job").await;
        page.press("start-button").await;
        let earned = page.wait_for("guide-earned", A_WHILE).await.text().await.unwrap();
        page.picture("earned").await;
        assert!(earned.starts_with("You earned ") && earned.ends_with("points"), "{earned}");
        let receipts = json!({ "command":
            { "cmd": "receipts", "payload": { "before_ms": null, "limit": 200 } } });
        let receipts = page.invoke("rpc", receipts).await.unwrap();
        let first = receipts["payload"].as_array().unwrap().last().unwrap().clone();
        let micro = first["quote"]["amount_micro"].as_i64().unwrap();
        let words = earned.split(' ').nth(2).unwrap();
        assert_eq!(crate::earning::micro_points(words), micro, "the receipt's own amount");

        page.press("guide-next").await;
        page.wait_for("state-sentence", SOON).await;
        page.picture("over").await;
        page.script("location.reload()").await;
        page.wait_for("state-sentence", SOON).await;
        assert!(page.find("guide").await.is_none(), "the guide opens once");
    });
}

async fn next(page: &Page, step: &str) {
    page.press("guide-next").await;
    until_step(page, step).await;
}

async fn until_step(page: &Page, step: &str) {
    page.until(step, SOON, async |page| {
        page.attribute("guide", "data-step").await.as_deref() == Some(step)
    })
    .await;
}

/// Shows the words, lets go, and enters the three that are asked for.
async fn back_up(page: &Page) {
    page.picture("words-hidden").await;
    let shown = async |page: &Page, shown: &str| {
        page.attribute("words", "data-shown").await.as_deref() == Some(shown)
    };
    let hold = "document.querySelector('[data-testid=words-hold]')\
        .dispatchEvent(new PointerEvent('POINTER', { bubbles: true }))";
    page.script(&hold.replace("POINTER", "pointerdown")).await;
    page.until("the words show", SOON, async |page| shown(page, "true").await).await;
    page.picture("words-shown").await;
    let words = page
        .script(
            "return [...document.querySelectorAll('[data-testid=words] .mono')] \
               .map((word) => word.textContent)",
        )
        .await;
    page.script(&hold.replace("POINTER", "pointerup")).await;
    page.until("the words are hidden", SOON, async |page| shown(page, "false").await).await;
    let text = page.script("return document.body.textContent").await;
    let words: Vec<&str> = words.as_array().unwrap().iter().map(|w| w.as_str().unwrap()).collect();
    assert_eq!(words.len(), 12);
    assert!(!text.as_str().unwrap().contains(words[0]), "nothing of them stays in the page");

    page.press("words-written").await;
    page.wait_for("quiz", SOON).await;
    for n in 0..3 {
        let place =
            format!("return Number(document.querySelectorAll('[data-place]')[{n}].dataset.place)");
        let place = page.script(&place).await.as_u64().unwrap() as usize;
        page.write(&format!("quiz-{n}"), words[place - 1]).await;
    }
    page.picture("quiz").await;
    page.press("quiz-check").await;
    page.wait_for("guide-backed-up", SOON).await;
    page.picture("backed-up").await;
}

/// Where the desktop has a place for it, an entry appears and goes.
async fn start_with_the_computer(page: &Page) {
    let home = page.desk.home();
    let file = home.parent().unwrap().join("config/autostart/neurino.desktop");
    page.press("at-login").await;
    page.until("the entry is there", SOON, async |_| file.is_file()).await;
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains(" --hidden --mine\n"), "{text}");
    assert!(text.contains(&format!("--home \"{}\"", home.display())), "{text}");
    page.picture("when").await;
    page.press("at-login").await;
    page.until("the entry is gone", SOON, async |_| !file.exists()).await;
}
