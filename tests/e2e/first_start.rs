//! The first start: from an address to "You earned", in the order of the guide, and back to it
//! after a page that was lost. And the same for somebody who has a miner already.

use std::path::Path;
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
    at_the_first_start(
        "first-start",
        |_| {},
        async |page: Page| {
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
            page.reload("guide").await;
            until_step(&page, "machine").await;
            next(&page, "models").await;
            page.wait_for("first-model", SOON).await;
            page.picture("models").await;
            choose_the_folder(&page).await;
            next(&page, "when").await;
            say_when(&page).await;
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
            page.reload("state-sentence").await;
            assert!(page.find("guide").await.is_none(), "the guide opens once");
        },
    );
}

/// Key, reward address and model files of a miner of the first kind, and then no further: the guide
/// is left, and what was taken over stays.
#[test]
fn takes_over_an_existing_miner() {
    at_the_first_start("first-start-miner", leave_a_miner, async |page: Page| {
        let miner = page.desk.home().parent().unwrap().join("old miner");
        page.press("guide-miner").await;
        page.write("miner-folder", &miner.display().to_string()).await;
        page.press("miner-look").await;
        page.wait_for("miner-found", SOON).await;
        page.picture("found").await;
        page.press("miner-take-models").await;
        let model = page.desk.home().join("models/old-weights/old-weights.safetensors");
        page.until("the file is taken over", SOON, async |_| model.is_file()).await;
        page.until("it is told", SOON, async |page| {
            let text = page.script("return document.body.textContent").await;
            text.as_str().unwrap().contains("One file found")
        })
        .await;
        page.press("miner-take-key").await;
        page.wait_for("reward-address", SOON).await;
        assert_eq!(page.read("reward-address").await, REWARD);
        page.picture("taken").await;
        assert!(miner.join("models/weights.safetensors").is_file(), "the miner keeps its files");

        page.press("guide-leave").await;
        page.wait_for("state-sentence", SOON).await;
        page.reload("state-sentence").await;
        assert!(page.find("guide").await.is_none(), "a guide that was skipped stays away");
    });
}

/// A miner's folder, and a catalogue that knows its one file of weights.
fn leave_a_miner(home: &Path) {
    let miner = home.parent().unwrap().join("old miner");
    for folder in ["keys", "models"] {
        std::fs::create_dir_all(miner.join(folder)).unwrap();
    }
    let places = "[storage]\nkeys_dir = \"keys\"\nbase_dir = \"models\"\n";
    std::fs::write(miner.join("config.toml"), places).unwrap();
    std::fs::write(miner.join(".env"), format!("MINER_ID_0={REWARD}-desk\n")).unwrap();
    let words = "test test test test test test test test test test test junk";
    let identity = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";
    let key = format!("Seed Phrase: {words}\nIdentity Wallet Address: {identity}\n");
    std::fs::write(miner.join("keys").join(format!("{}.txt", REWARD.to_lowercase())), key).unwrap();
    let weights = vec![7_u8; 300_000];
    std::fs::write(miner.join("models/weights.safetensors"), &weights).unwrap();
    let catalogue = home.join("models/catalog");
    std::fs::create_dir_all(&catalogue).unwrap();
    let manifest = format!(
        "id = \"old-weights\"\nname = \"Old Weights\"\nsummary = \"A miner had them.\"\n\
         family = \"toybox\"\nkind = \"image\"\narch = \"sd15\"\ndtype = \"f16\"\n\
         memory_bytes_min = 300_000_000\nlicence = \"Apache-2.0\"\nattribution = \"Nobody\"\n\
         [image]\nwidth = 64\nheight = 64\nsteps = 20\nguidance = 3.0\n\
         [[files]]\nname = \"old-weights.safetensors\"\nsha256 = \"{}\"\nsize_bytes = 300000\n\
         [[files.sources]]\nkind = \"http\"\nurl = \"http://127.0.0.1:9/weights\"\n",
        crate::downloads::sha256(&weights)
    );
    std::fs::write(catalogue.join("old-weights.toml"), manifest).unwrap();
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

/// The library moves to another drive before anything is downloaded; a folder that cannot be is told.
async fn choose_the_folder(page: &Page) {
    let place = page.desk.home().parent().unwrap().join("other drive");
    std::fs::create_dir_all(&place).unwrap();
    page.press("guide-move").await;
    page.write("folder-input", "no whole path").await;
    page.press("folder-go").await;
    page.wait_for("move-dialog", SOON).await;
    page.until("the path is refused", SOON, async |page| {
        let text = page.script("return document.querySelector('[role=alert]')?.textContent").await;
        text.as_str().is_some_and(|text| !text.is_empty())
    })
    .await;
    page.picture("no-folder").await;
    page.wait_for("folder-input", SOON).await.clear().await.unwrap();
    page.write("folder-input", &place.display().to_string()).await;
    page.press("folder-go").await;
    page.until("the library has moved", A_WHILE, async |page| {
        page.read("guide-folder").await == place.display().to_string()
    })
    .await;
    let weights = place.join(crate::desk::STARTER);
    assert!(weights.is_dir(), "the starter model went along");
    page.picture("moved").await;
}

/// The rules of the settings, written from here.
async fn say_when(page: &Page) {
    let file = page.desk.home().join("config/rules.toml");
    let says = |wanted: &'static str| {
        let file = file.clone();
        async move |_: &Page| std::fs::read_to_string(&file).is_ok_and(|text| text.contains(wanted))
    };
    page.press("guide-when-away").await;
    page.until("the rule is kept", SOON, says("when = \"away\"")).await;
    page.picture("away").await;
    page.press("guide-when-schedule").await;
    page.press("guide-week-nights").await;
    page.until("the hours are kept", SOON, says("cccccc................cc")).await;
    page.picture("schedule").await;
    page.press("guide-week-all").await;
    page.press("guide-when-always").await;
    page.until("mining is free again", SOON, says("when = \"always\"")).await;
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
