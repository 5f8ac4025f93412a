//! `neurino practice`: the whole system in one command.

use serde_json::Value;

use crate::program::{command, home_with_model};

#[tokio::test]
async fn five_jobs_are_paid_and_the_books_balance() {
    let Some(home) = home_with_model() else { return };
    let output =
        command(home.path()).args(["practice", "--jobs", "5", "--json"]).output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_str(&text).unwrap();

    let jobs = report["jobs"].as_array().unwrap();
    assert_eq!(jobs.len(), 5);
    for job in jobs {
        assert_eq!(job["state"], "succeeded");
        assert!(!job["output"]["choices"][0]["text"].as_str().unwrap().trim().is_empty());
        let quote = &job["receipt"]["quote"];
        let tokens = quote["units"].as_i64().unwrap();
        assert!(tokens > 0);
        let by_hand = tokens * 1000 * quote["factor"].as_i64().unwrap() / 1_000_000
            * quote["multiplier"].as_i64().unwrap()
            / 1_000_000;
        assert_eq!(quote["amount_micro"].as_i64().unwrap(), by_hand);
    }
    let sum: i64 =
        jobs.iter().map(|j| j["receipt"]["quote"]["amount_micro"].as_i64().unwrap()).sum();
    assert!(sum > 0);
    assert_eq!(report["ledger"]["balance_micro"], sum);
    assert_eq!(report["ledger"]["receipts_sum_micro"], sum);
    assert_eq!(report["ledger"]["postings_sum_micro"], 0);
}
