//! The Earnings page on a ledger that was seeded: a year of receipts, one of which was changed.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::desk::in_the_window_of;
use crate::page::Page;

const SOON: Duration = Duration::from_secs(10);
/// Receipts in the seeded ledger.
const RECEIPTS: i64 = 2_000;
const HOUR_MS: i64 = 3_600_000;

#[test]
fn tells_what_was_earned() {
    in_the_window_of("earnings", seed, async |page: Page| {
        page.go_to("earnings").await;
        page.wait_for("card-lifetime", SOON).await;
        let lifetime = page.read("card-lifetime").await;
        assert!(lifetime.contains("2,000 jobs"), "{lifetime}");
        assert!(lifetime.contains("Llama") && lifetime.contains("Waifu"), "{lifetime}");
        assert!(page.read("card-now").await.contains("not mining"));
        page.picture("overview").await;

        // The chart says the same in a table.
        page.press("series-as-table").await;
        page.wait_for("series-table", SOON).await;
        page.picture("table").await;
        page.press("series-as-table").await;

        // The receipt that was changed is found, and explained.
        page.press("show-drift").await;
        page.until("one receipt is found", SOON, async |page| {
            page.read("receipts-found").await.starts_with("1 receipt ")
        })
        .await;
        page.press("receipt-explain").await;
        page.until("it is computed again", SOON, async |page| {
            page.read("receipt-verdict").await.contains("does not add up")
        })
        .await;
        page.picture("drift").await;
        page.script("document.querySelector('[data-testid=receipt-dialog] button').click()").await;

        // All of them, page by page.
        page.press("receipt-drifted").await;
        page.until("all are found", SOON, async |page| {
            page.read("receipts-found").await.starts_with("2,000 receipts")
        })
        .await;
        assert_eq!(count(&page, "receipt-row").await, 50);
        page.script("[...document.querySelectorAll('button')].find((b) => b.textContent.includes('older')).click()").await;
        page.until("older ones follow", SOON, async |page| count(page, "receipt-row").await == 100)
            .await;
        page.picture("receipts").await;

        // A table for a spreadsheet, with every receipt.
        page.script("document.querySelector('[data-testid=earnings-view-overview]').click()").await;
        page.press("export-receipts-csv").await;
        page.wait_for("export-saved", SOON).await;
        let exports = page.desk.home().join("exports");
        let file = std::fs::read_dir(exports).unwrap().flatten().next().unwrap().path();
        let lines = std::fs::read_to_string(file).unwrap().lines().count();
        assert_eq!(lines as i64, RECEIPTS + 1);
        page.picture("exported").await;

        check_prices(&page).await;

        for (theme, width) in [("dark", 1180), ("light", 720)] {
            page.choose_theme(theme).await;
            page.resize(width, 780).await;
            page.go_to("earnings").await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            page.picture(&format!("{theme}-{width}")).await;
        }

        page.go_to("settings").await;
        page.press("log-toggle").await;
        page.wait_for("log-line", SOON).await;
        page.picture("log").await;
    });
}

/// Two kilowatt hours of cheap hours cost what the cheap price says, and without one what all hours cost.
async fn check_prices(page: &Page) {
    page.replace("tariff-price", "0.32").await;
    page.replace("tariff-cheap", "0.21").await;
    page.press("tariff-save").await;
    let cost = async |wanted: &str| {
        page.until(wanted, SOON, async |page| page.read("energy-table").await.contains(wanted))
            .await;
    };
    cost("0.4200 EUR").await;
    let kept = std::fs::read_to_string(page.desk.home().join("config/tariff.json")).unwrap();
    let kept: Value = serde_json::from_str(&kept).unwrap();
    let wanted = json!({ "kwh_micro": 320_000, "cheap_kwh_micro": 210_000, "currency": "EUR" });
    assert_eq!(kept, wanted);
    page.picture("prices").await;
    page.script("document.querySelector('[data-testid=tariff-cheap]').select()").await;
    page.write("tariff-cheap", "\u{e003}").await;
    page.press("tariff-save").await;
    cost("0.6400 EUR").await;
}

async fn count(page: &Page, id: &str) -> u64 {
    let script = format!("return document.querySelectorAll('[data-testid={id}]').length");
    page.script(&script).await.as_u64().unwrap()
}

/// Writes receipts of the last weeks: one every hour, every fifth for a picture, one changed.
fn seed(home: &Path) {
    let folder = home.join("data").join("practice");
    std::fs::create_dir_all(&folder).unwrap();
    let mut file = std::fs::File::create(folder.join("receipts.jsonl")).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let now_ms = i64::try_from(now.as_millis()).unwrap();
    for n in 0..RECEIPTS {
        let receipt = receipt(n, now_ms - (RECEIPTS - n) * HOUR_MS);
        writeln!(file, "{receipt}").unwrap();
    }
    // Two kilowatt hours, measured, an hour ago and two, in a week of cheap hours.
    let mut meter = std::fs::File::create(folder.join("meter.bin")).unwrap();
    for hours in [1, 2] {
        let minute = (now_ms - hours * HOUR_MS) / 60_000 * 60_000;
        let words = [minute, 60_000, 3_600_000_000, 0_i64];
        let mut record: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let sum = crc32(&record);
        record.extend(sum.to_le_bytes());
        meter.write_all(&record).unwrap();
    }
    let config = home.join("config");
    std::fs::create_dir_all(&config).unwrap();
    let day = format!("\"{}\"", "c".repeat(24));
    let week = format!("week = [{}]\n", vec![day; 7].join(", "));
    std::fs::write(config.join("rules.toml"), week).unwrap();
}

/// The checksum of Ethernet and zip.
fn crc32(bytes: &[u8]) -> u32 {
    let table = |byte: u32| (0..8).fold(byte, |c, _| (c >> 1) ^ (0xedb8_8320 * (c & 1)));
    !bytes.iter().fold(u32::MAX, |sum, byte| table((sum ^ u32::from(*byte)) & 0xff) ^ (sum >> 8))
}

fn receipt(n: i64, settled_at_ms: i64) -> Value {
    let id = format!("01935000-0000-7000-8000-{n:012x}");
    let picture = n % 5 == 0;
    let units = if picture { 64 * 64 * 20 } else { 100 + n % 50 };
    let amount = if picture { 15_625 } else { units * 1000 };
    // One was tampered with.
    let paid = if n == 7 { amount + 1 } else { amount };
    let model = if picture { "neurino-toybox-64" } else { "smollm2-135m-instruct" };
    let written = if picture { 0 } else { units - 40 };
    let read = if picture { 0 } else { 40 };
    json!({
        "event": id, "job": id, "lease": id,
        "node": "0x1f9a3c5be27d480f6a1b92c3d4e5f60718293a4b",
        "model": model,
        "usage": { "prompt_tokens": read, "completion_tokens": written },
        "rule_set": "practice3",
        "quote": {
            "points": if picture { "waifu" } else { "llama" },
            "units": units, "base_micro": amount, "factor": 1_000_000, "multiplier": 1_000_000,
            "amount_micro": paid,
        },
        "digest": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "duration_ms": 3000, "settled_at_ms": settled_at_ms, "network": "practice",
        "coordinator": "0x7be8076f4ea4a4ad08075c2508e481d6c946d12b", "signature": "0x00",
    })
}
