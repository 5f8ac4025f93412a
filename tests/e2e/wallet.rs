//! The wallet in Settings: an address, a key file out and in again, an identity from its words.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use crate::desk::in_the_window;
use crate::page::Page;

const SOON: Duration = Duration::from_secs(10);
const JUNK: &str = "test test test test test test test test test test test junk";
const JUNK_ADDRESS: &str = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";
const REWARD: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";

#[test]
fn keys_go_out_and_come_in() {
    in_the_window("wallet", async |page: Page| {
        page.go_to("settings").await;
        let own = page.read("identity").await;
        page.write("reward-input", &REWARD.to_lowercase()).await;
        page.press("reward-check").await;
        page.wait_for("reward-checked", SOON).await;
        page.press("reward-use").await;
        assert_eq!(page.read("reward-address").await, REWARD);
        page.press("reward-qr").await;
        page.wait_for("qr", SOON).await;
        page.picture("reward").await;

        // Out, into a folder of the person's choice.
        let miner = page.desk.home().join("old miner");
        std::fs::create_dir_all(&miner).unwrap();
        let keys = miner.join("keys");
        page.press("export-open").await;
        let field = page.wait_for("export-folder", SOON).await;
        field.clear().await.unwrap();
        page.write("export-folder", &keys.display().to_string()).await;
        page.press("export-accept").await;
        page.press("export-do").await;
        let told = page.read("exported").await;
        page.picture("exported").await;
        let file = keys.join(format!("{}.txt", REWARD.to_lowercase()));
        assert!(told.ends_with(&file.display().to_string()), "{told}");
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("Seed Phrase: ") && text.contains(&own.to_lowercase()));
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

        // Another identity from its words.
        page.press("restore-open").await;
        page.write("restore-input", JUNK).await;
        page.press("restore-do").await;
        until_identity(&page, JUNK_ADDRESS).await;
        page.picture("restored").await;

        // The first one back, as an existing miner's.
        std::fs::write(miner.join("config.toml"), "[storage]\nkeys_dir = \"keys\"\n").unwrap();
        std::fs::write(miner.join(".env"), format!("MINER_ID_0={REWARD}-desk\n")).unwrap();
        page.press("miner-open").await;
        page.write("miner-folder", &miner.display().to_string()).await;
        page.press("miner-look").await;
        page.wait_for("miner-found", SOON).await;
        page.picture("miner").await;
        page.press("miner-take-key").await;
        until_identity(&page, &own).await;
        let state = page.attribute("backup-state", "data-done").await;
        assert_eq!(state.as_deref(), Some("false"), "another identity has other words");

        // Chains are off, and say so; few people need them, so they are folded away.
        page.press("settings-advanced").await;
        let fact = page.attribute("fact-binding", "data-fact").await;
        assert_eq!(fact.as_deref(), Some("no_node"));
        let fact = page.attribute("fact-nfts", "data-fact").await;
        assert_eq!(fact.as_deref(), Some("not_known"));
        page.script("document.querySelector('[data-testid=wallet-chain]').scrollIntoView()").await;
        page.picture("chain").await;

        // No word of either identity is in a log.
        let logs = page.desk.home().join("logs");
        for entry in std::fs::read_dir(logs).unwrap().flatten() {
            let log = std::fs::read_to_string(entry.path()).unwrap();
            assert!(!log.contains("test test") && !log.contains("Seed Phrase"));
        }
    });
}

async fn until_identity(page: &Page, address: &str) {
    page.until("the identity is the other one", SOON, async |page| {
        page.read("identity").await == address
    })
    .await;
}
