//! `neurino practice`: the whole system in one command.

use serde_json::Value;

use crate::program::{command, home_with_model};

#[tokio::test]
async fn six_jobs_of_both_kinds_are_paid_and_the_books_balance() {
    let Some(home) = home_with_model() else { return };
    let output =
        command(home.path()).args(["practice", "--jobs", "6", "--json"]).output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_str(&text).unwrap();

    let jobs = report["jobs"].as_array().unwrap();
    assert_eq!(jobs.len(), 6);
    let (mut llama, mut waifu) = (0, 0);
    for job in jobs {
        assert_eq!(job["state"], "succeeded");
        let quote = &job["receipt"]["quote"];
        let units = quote["units"].as_i64().unwrap();
        assert!(units > 0);
        let factors =
            quote["factor"].as_i64().unwrap() / 1_000_000 * quote["multiplier"].as_i64().unwrap();
        let amount = quote["amount_micro"].as_i64().unwrap();
        match job["output"]["kind"].as_str().unwrap() {
            "text" => {
                assert!(!job["output"]["choices"][0]["text"].as_str().unwrap().trim().is_empty());
                assert_eq!(quote["points"], "llama");
                assert_eq!(amount, units * 1000 * factors / 1_000_000);
                llama += amount;
            }
            "image" => {
                let png = job["output"]["png"].as_str().unwrap();
                assert!(png.starts_with("iVBORw0KGgo"), "a PNG in base64");
                assert_eq!(quote["points"], "waifu");
                let side = |name: &str| job["output"][name].as_i64().unwrap();
                assert_eq!(units % (side("width") * side("height")), 0, "pixels times steps");
                assert_eq!(amount, units * 1_000_000 * factors / (512 * 512 * 20) / 1_000_000);
                waifu += amount;
            }
            other => panic!("an unknown kind of result: {other}"),
        }
    }
    assert!(llama > 0 && waifu > 0, "{llama} and {waifu}");
    assert_eq!(report["ledger"]["llama_micro"], llama);
    assert_eq!(report["ledger"]["waifu_micro"], waifu);
    assert_eq!(report["ledger"]["balance_micro"], llama + waifu);
    assert_eq!(report["ledger"]["receipts_sum_micro"], llama + waifu);
    assert_eq!(report["ledger"]["postings_sum_micro"], 0);
}
