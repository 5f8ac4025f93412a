//! axe-core's verdict on every page, the guide of the first start and the dialogs, in both themes.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::desk::in_the_window;
use crate::page::Page;

const SOON: Duration = Duration::from_secs(10);

#[test]
fn everybody_can_use_every_page() {
    in_the_window("accessibility", async |page: Page| {
        load_axe(&page).await;
        let mut faults = Vec::new();
        for theme in ["light", "dark"] {
            page.choose_theme(theme).await;
            for view in ["home", "earnings", "playground", "models", "settings"] {
                page.go_to(view).await;
                // Colours fade from one theme to the next.
                tokio::time::sleep(Duration::from_millis(500)).await;
                faults.extend(faults_of(&page, &format!("{view}, {theme}")).await);
            }
            faults.extend(faults_of_dialogs(&page, theme).await);
            faults.extend(faults_of_the_guide(&page, theme).await);
        }
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    });
}

/// Each dialog that opens from a button, and what it hides as little as what it shows.
async fn faults_of_dialogs(page: &Page, theme: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for (view, opener, dialog) in [
        ("models", "own-open", "own-dialog"),
        ("models", "lists-open", "lists-dialog"),
        ("models", "move-library", "move-dialog"),
        ("models", "reuse-files", "reuse-dialog"),
        ("settings", "open-decisions", "decisions-dialog"),
    ] {
        page.go_to(view).await;
        page.press(opener).await;
        page.wait_for(dialog, SOON).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        faults.extend(faults_of(page, &format!("{dialog}, {theme}")).await);
        page.script("document.querySelector('dialog[open] button').click()").await;
        page.until("it closes", SOON, async |page| page.find(dialog).await.is_none()).await;
    }
    if theme == "dark" {
        // A second press soon after the question means yes.
        tokio::time::sleep(Duration::from_secs(11)).await;
    }
    page.desk.press_close("Neurino");
    page.wait_for("close-dialog", SOON).await;
    faults.extend(faults_of(page, &format!("close-dialog, {theme}")).await);
    page.script("document.querySelector('dialog[open] button').click()").await;
    page.until("it closes", SOON, async |page| page.find("close-dialog").await.is_none()).await;
    faults
}

/// The steps of the guide, one after the other, and away again.
async fn faults_of_the_guide(page: &Page, theme: &str) -> Vec<String> {
    page.go_to("settings").await;
    page.press("guide-again").await;
    let mut faults = Vec::new();
    for step in ["reward", "key", "machine", "models", "when", "first_job"] {
        page.until(step, SOON, async |page| {
            page.attribute("guide", "data-step").await.as_deref() == Some(step)
        })
        .await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        faults.extend(faults_of(page, &format!("guide at {step}, {theme}")).await);
        if step == "when" {
            page.press("guide-when-schedule").await;
            page.wait_for("week-grid", SOON).await;
            faults.extend(faults_of(page, &format!("guide with a week, {theme}")).await);
            page.press("guide-when-always").await;
            // Without the week the buttons below it move up.
            page.until("the week goes", SOON, async |page| page.find("week-grid").await.is_none())
                .await;
        }
        if step != "first_job" {
            page.press("guide-next").await;
        }
    }
    page.press("guide-leave").await;
    page.wait_for("state-sentence", SOON).await;
    faults
}

async fn load_axe(page: &Page) {
    let axe = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ui/node_modules/axe-core/axe.min.js");
    let axe = std::fs::read_to_string(&axe)
        .unwrap_or_else(|error| panic!("{}: {error}; run `npm ci` in ui", axe.display()));
    page.script(&axe).await;
}

/// Serious and critical faults, one line each.
async fn faults_of(page: &Page, place: &str) -> Vec<String> {
    let script = "const done = arguments[0]; \
        axe.run(document, { resultTypes: ['violations'] }) \
          .then((result) => done({ violations: result.violations, passes: result.passes.length }), \
                (error) => done({ error: String(error) }))";
    let result = page.script_async(script, Vec::new()).await;
    let violations = result["violations"].as_array().unwrap_or_else(|| panic!("{result}"));
    // A check of nothing finds nothing.
    assert!(result["passes"].as_u64().unwrap() > 5, "axe looked at {place}");
    violations
        .iter()
        .filter(|fault| [json!("serious"), json!("critical")].contains(&fault["impact"]))
        .map(|fault| {
            let nodes: Vec<&Value> =
                fault["nodes"].as_array().into_iter().flatten().map(|n| &n["html"]).collect();
            format!("{place}: {} ({}): {nodes:?}", fault["help"], fault["id"])
        })
        .collect()
}
