//! axe-core's verdict on every page in both themes.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::desk::in_the_window;
use crate::page::Page;

#[test]
fn everybody_can_use_every_page() {
    in_the_window("accessibility", async |page: Page| {
        let axe =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../ui/node_modules/axe-core/axe.min.js");
        let axe = std::fs::read_to_string(&axe)
            .unwrap_or_else(|error| panic!("{}: {error}; run `npm ci` in ui", axe.display()));
        page.script(&axe).await;
        let mut faults = Vec::new();
        for theme in ["light", "dark"] {
            page.choose_theme(theme).await;
            for view in ["home", "earnings", "playground", "models", "settings"] {
                page.go_to(view).await;
                // Colours fade from one theme to the next.
                tokio::time::sleep(Duration::from_millis(500)).await;
                faults.extend(faults_of(&page, &format!("{view}, {theme}")).await);
            }
        }
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    });
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
