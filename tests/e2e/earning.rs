//! The first light: Start, a question, an answer, points, a receipt that explains them, Stop.

use std::time::Duration;

use serde_json::{Value, json};

use crate::desk::in_the_window;
use crate::page::Page;

const SOON: Duration = Duration::from_secs(10);
/// A model is loaded and a job computed, on two cores that others may share.
const A_WHILE: Duration = Duration::from_mins(3);

#[test]
fn earns_a_point() {
    in_the_window("earns-a-point", async |page: Page| {
        page.until_state(&["stopped"], SOON).await;
        assert_eq!(micro_points(&page.read("points-today").await), 0);
        page.picture("stopped").await;

        page.press("start-button").await;
        page.until_state(&["waiting", "working"], A_WHILE).await;
        page.picture("started").await;

        page.go_to("playground").await;
        always_the_likeliest_word(&page).await;
        ask(&page, "What is the capital of France?").await;
        page.wait_for("chat-answer", A_WHILE).await;
        page.picture("answering").await;
        until_answered(&page).await;
        let answer = page.read("chat-answer").await;
        assert!(answer.contains("Paris"), "{answer:?}");
        page.until("the answer says what it earned", SOON, async |page| {
            page.read("chat-meta").await.contains("earned")
        })
        .await;
        page.picture("answered").await;

        page.go_to("home").await;
        page.until("a text job is paid", A_WHILE, async |page| {
            let rows = page.script("return document.body.textContent").await;
            rows.as_str().is_some_and(|text| text.contains(" tokens"))
        })
        .await;
        page.picture("points").await;
        let today = micro_points(&page.read("points-today").await);
        assert!(today > 0, "points rose");
        check_newest_receipt(&page).await;

        // Practice jobs may have been paid meanwhile; together the receipts are the total.
        page.press("stop-button").await;
        page.until_state(&["stopped"], A_WHILE).await;
        check_sum_of_receipts(&page).await;
        page.picture("stopped-again").await;

        pictures_of_every_page(&page).await;
    });
}

/// Writes a question in the Playground and sends it.
pub(crate) async fn ask(page: &Page, question: &str) {
    page.go_to("playground").await;
    page.write("chat-input", question).await;
    page.press("chat-send").await;
}

/// Sets the temperature to zero, so that the answer is the same each time.
async fn always_the_likeliest_word(page: &Page) {
    const HOME_KEY: &str = "\u{E011}";
    page.script("document.querySelector('details').open = true").await;
    page.write("chat-temperature", HOME_KEY).await;
    page.picture("temperature").await;
}

/// Waits until the answer in the Playground is complete.
pub(crate) async fn until_answered(page: &Page) {
    page.until("the answer is complete", A_WHILE, async |page| {
        page.attribute("chat-answer", "data-status").await.as_deref() == Some("done")
    })
    .await;
}

/// Opens "How was this computed?" and computes it again from the figures it shows.
async fn check_newest_receipt(page: &Page) {
    // The steps as they are written: read + written = together, ÷ 1000 = base, × factor,
    // × multiplier = amount.
    let steps = explained(page, "tokens").await;
    page.picture("explained").await;
    let [read, written, together, per_point, base, factor, multiplier, amount] = steps[..] else {
        panic!("eight steps: {steps:?}");
    };
    assert!(read > 0 && written > 0);
    assert_eq!(together, read + written);
    assert_eq!(per_point, 1_000_000_000);
    assert_eq!(base, together / 1000);
    assert_eq!(amount, base * factor / 1_000_000 * multiplier / 1_000_000);
    assert!(amount > 0);
    page.until("it is computed again", SOON, async |page| {
        page.read("receipt-verdict").await.ends_with("the same amount.")
    })
    .await;
    page.script("document.querySelector('[data-testid=receipt-dialog] button').click()").await;
}

/// Opens the explanation of the newest receipt whose row has this word, and reads its steps.
pub(crate) async fn explained(page: &Page, word: &str) -> Vec<i64> {
    let press = format!(
        "const row = [...document.querySelectorAll('[data-testid=receipt-row]')] \
           .find((row) => row.textContent.includes('{word}')); \
         row.querySelector('[data-testid=receipt-explain]').click()"
    );
    page.script(&press).await;
    page.wait_for("receipt-dialog", SOON).await;
    let steps = page
        .script(
            "return [...document.querySelectorAll('[data-testid=receipt-dialog] tbody tr')] \
               .map((row) => row.querySelector('td.number').textContent.trim())",
        )
        .await;
    steps.as_array().unwrap().iter().map(|step| micro_points(step.as_str().unwrap())).collect()
}

/// The points shown are the sum of the receipts the program holds.
async fn check_sum_of_receipts(page: &Page) {
    let receipts = json!({ "command":
        { "cmd": "receipts", "payload": { "before_ms": Value::Null, "limit": 200 } } });
    let reply = page.invoke("rpc", receipts).await.unwrap();
    let receipts = reply["payload"].as_array().unwrap();
    let text = receipts.iter().filter(|r| r["quote"]["points"] == "llama");
    let sum: i64 = text.map(|r| r["quote"]["amount_micro"].as_i64().unwrap()).sum();
    eprintln!("{} receipts, {sum} micro-points", receipts.len());
    assert!(sum > 0 && receipts.len() < 200);
    page.until("the total is the sum of the receipts", SOON, async |page| {
        micro_points(&page.read("points-total").await) == sum
            && micro_points(&page.read("points-today").await) == sum
    })
    .await;
}

/// Every page in both themes, then in the smallest window.
async fn pictures_of_every_page(page: &Page) {
    for theme in ["dark", "light"] {
        page.choose_theme(theme).await;
        for view in ["home", "earnings", "playground", "models", "settings"] {
            page.go_to(view).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            page.picture(&format!("{theme}-{view}")).await;
        }
    }
    page.resize(720, 520).await;
    for view in ["home", "earnings", "playground", "models", "settings"] {
        page.go_to(view).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        page.picture(&format!("small-{view}")).await;
    }
}

/// A number as the page writes it, `1,234.5`, in millionths.
pub(crate) fn micro_points(text: &str) -> i64 {
    let text = text.replace(',', "");
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let digits = format!("{whole}{fraction:0<6}");
    digits.trim().parse().unwrap_or_else(|_| panic!("a number: {text:?}"))
}
