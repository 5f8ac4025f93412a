//! Settings: the search, the cards that are folded away until asked for, and what is changed in them:
//! it is on disk, it shows again, and what makes no sense is refused without a loss.

use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::desk::{in_the_window, in_the_window_among};
use crate::page::{Page, query};

const SOON: Duration = Duration::from_secs(10);
/// A key of no secret: nothing is ever signed with it.
const UPDATE_KEY: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

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

/// How a setting is changed.
enum To {
    /// A switch that is pressed.
    On(bool),
    /// Written over what the field holds.
    Text(&'static str),
    /// A list's entry, by its value.
    Entry(&'static str),
}

use To::{Entry, On, Text};

/// Every field of the settings with what it is changed to, in the order of the page; what one change
/// shows is changed after it.
const CHANGES: &[(&str, To)] = &[
    ("theme-select", Entry("light")),
    ("close-select", Entry("tray")),
    ("settings-at-login", On(true)),
    ("when-select", Entry("away_on_schedule")),
    ("idle-minutes", Text("7")),
    ("stop-on-return", On(false)),
    ("cheap-only", On(true)),
    ("guard-full-screen", On(false)),
    ("guard-card-load", On(false)),
    ("guard-libraries", On(false)),
    ("cool-down", Entry("60")),
    ("pause-on-battery", On(false)),
    ("pause-on-metered", On(false)),
    ("hot-resume", Text("66")),
    ("hot-stop", Text("79")),
    ("gentle-on", On(true)),
    ("gentle-minutes", Text("9")),
    ("gentle-one-job", On(false)),
    ("gentle-share", Text("60")),
    ("keep-awake", Entry("mining")),
    ("alert-hot-c", Text("85")),
    ("alert-hot-minutes", Text("8")),
    ("alert-no-points-hours", Text("6")),
    ("alert-stuck-minutes", Text("40")),
    ("alert-low-disk-gb", Text("9")),
    ("alert-frozen-on", On(false)),
    ("notice-needs_you", On(false)),
    ("notice-paused", On(true)),
    ("notice-first_points", On(true)),
    ("notice-weekly", On(true)),
    ("notice-update", On(true)),
    ("notice-model", On(true)),
    ("notice-jobs_fail", On(true)),
    ("notice-alerts", On(true)),
    ("notice-hotkey", On(false)),
    ("update-always", On(false)),
    ("update-by-itself", On(false)),
    ("cap-input", Text("60")),
    ("line-input", Text("40")),
    ("connections-select", Entry("8")),
    ("night-input", On(true)),
    ("filter-on", On(true)),
];

/// Lists of programs and words, and what is added to each.
const LISTS: &[(&str, &str)] = &[
    ("games-list", "quake"),
    ("not-games-list", "paint"),
    ("exclusive-gpu", "resolve"),
    ("exclusive-cpu", "cargo"),
    ("filter-words", "gore"),
];

/// What has a part of its own that goes with it.
const SWITCHED_OFF: &[&str] = &[
    "game-guard",
    "pause-when-hot",
    "alert-hot-on",
    "alert-no-points-on",
    "alert-stuck-on",
    "alert-low-disk-on",
    "night-input",
];

/// Where each change is kept, and the words that say it.
const KEPT: &[(&str, &[&str])] = &[
    ("config/preferences.toml", &["theme = \"light\"", "on_close = \"tray\""]),
    (
        "config/rules.toml",
        &[
            "when = \"away_on_schedule\"",
            "idle_minutes = 7",
            "stop_on_return = false",
            "cheap_only = true",
            "guard_full_screen = false",
            "guard_card_load = false",
            "guard_libraries = false",
            "cool_down_secs = 60",
            "pause_on_battery = false",
            "pause_on_metered = false",
            "hot_stop_c = 79",
            "hot_resume_c = 66",
            "gentle = true",
            "gentle_minutes = 9",
            "gentle_one_job = false",
            "gentle_power_percent = 60",
            "\"quake\"",
            "\"paint\"",
            "\"resolve\"",
            "\"cargo\"",
            "ccc.ccmmm",
        ],
    ),
    ("config/power.toml", &["keep_awake = \"mining\"", "GPU-1 = 3"]),
    (
        "config/alerts.toml",
        &[
            "hot_c = 85",
            "hot_minutes = 8",
            "no_points_hours = 6",
            "stuck_minutes = 40",
            "low_disk_gb = 9",
            "frozen = false",
        ],
    ),
    (
        "config/notices.toml",
        &[
            "needs_you = false",
            "paused = true",
            "first_points = true",
            "weekly = true",
            "update = true",
            "model = true",
            "jobs_fail = true",
            "alerts = true",
            "hotkey = false",
        ],
    ),
    ("data/updates.json", &["\"check\":false", "\"by_itself\":false"]),
    (
        "config/library.toml",
        &[
            "cap_bytes = 60000000000",
            "bytes_per_s_max = 5000000",
            "connections = 8",
            "from_minute = 1350",
            "until_minute = 375",
        ],
    ),
    (
        "config/settings.toml",
        &[
            "refuse = true",
            "refuse_words = [\"gore\"]",
            "\"GPU-1\" = { name = \"The loud one\", use = true, role = \"pictures\" }",
            "\"GPU-2\" = { use = false, role = \"both\" }",
        ],
    ),
    ("../config/autostart/neurino.desktop", &["--hidden --mine"]),
];

#[test]
fn are_kept_and_shown_again() {
    in_the_window_among("settings-kept", with_two_cards, async |page: Page| {
        page.go_to("settings").await;
        page.press("settings-advanced").await;
        page.wait_for("filter-on", SOON).await;
        for (id, to) in CHANGES {
            change(&page, id, to).await;
        }
        for (id, word) in LISTS {
            add(&page, id, word).await;
        }
        change_the_cards(&page).await;
        page.press("brush-.").await;
        page.press_the("[data-at='0-3']").await;
        page.give("night-from", "22:30").await;
        until_kept(&page, "config/library.toml", &["from_minute = 1350"]).await;
        page.give("night-until", "06:15").await;
        for (file, words) in KEPT {
            until_kept(&page, file, words).await;
        }
        let changed = everything(&page).await;
        for (id, to) in CHANGES {
            let wanted = match to {
                On(on) => json!(on),
                Text(text) | Entry(text) => json!(text),
            };
            assert_eq!(changed[*id], wanted, "{id}");
        }
        take_pictures(&page).await;

        page.reload("state-sentence").await;
        until_everything_is(&page, &changed).await;
        page.start_anew("state-sentence").await;
        until_everything_is(&page, &changed).await;

        for id in SWITCHED_OFF {
            change(&page, id, &On(false)).await;
        }
        until_kept(&page, "config/rules.toml", &["game_guard = false", "pause_when_hot = false"])
            .await;
        let off = ["hot = false", "no_points = false", "stuck = false", "low_disk = false"];
        until_kept(&page, "config/alerts.toml", &off).await;
        page.choose("language-select", "german").await;
        until_kept(&page, "config/preferences.toml", &["language = \"german\""]).await;
        let changed = everything(&page).await;
        for id in SWITCHED_OFF {
            assert_eq!(changed[*id], json!(false), "{id}");
        }
        page.start_anew("state-sentence").await;
        until_everything_is(&page, &changed).await;
        let title = page.script("return document.querySelector('main h1').innerText").await;
        assert_eq!(title, "Einstellungen");
        page.picture("german").await;
    });
}

/// What makes no sense, the sentence that says so, and the file that stays as it was. The last is the
/// test id of the card that says it.
const REFUSED: &[(&str, &str, &str, &str, &str)] = &[
    (
        "hot-stop",
        "500",
        "The temperature to stop at must be between 50 and 105, not 500.",
        "config/rules.toml",
        "rules",
    ),
    (
        "hot-resume",
        "90",
        "The temperature to go on at (90 °C) must be at least 3 °C below the one to stop at (88 °C).",
        "config/rules.toml",
        "rules",
    ),
    (
        "gentle-minutes",
        "0",
        "The minutes without input must be between 1 and 60, not 0.",
        "config/rules.toml",
        "rules",
    ),
    (
        "alert-low-disk-gb",
        "5000",
        "The gigabytes that are free must be between 1 and 1000, not 5000.",
        "config/alerts.toml",
        "alerts",
    ),
    ("cap-input", "-5", "That is not an amount.", "config/library.toml", "library-settings"),
    (
        "line-input",
        "0.01",
        "With so little bandwidth no download would end.",
        "config/library.toml",
        "library-settings",
    ),
];

#[test]
fn are_not_lost_to_nonsense() {
    in_the_window_among("settings-refused", with_two_cards, async |page: Page| {
        page.go_to("settings").await;
        page.press("settings-advanced").await;
        page.wait_for("alerts", SOON).await;
        // So that there is something to lose in each file.
        change(&page, "gentle-on", &On(true)).await;
        change(&page, "alert-hot-c", &Text("85")).await;
        change(&page, "cap-input", &Text("60")).await;
        until_kept(&page, "config/rules.toml", &["gentle = true"]).await;
        until_kept(&page, "config/alerts.toml", &["hot_c = 85"]).await;
        until_kept(&page, "config/library.toml", &["cap_bytes = 60000000000"]).await;
        let before = everything(&page).await;
        for (id, nonsense, sentence, file, card) in REFUSED {
            let file = page.desk.home().join(file);
            let kept = std::fs::read_to_string(&file).unwrap();
            page.replace(id, nonsense).await;
            page.until(sentence, SOON, async |page| page.read(card).await.contains(sentence)).await;
            assert_eq!(std::fs::read_to_string(&file).unwrap(), kept, "{id}");
            assert_eq!(everything(&page).await, before, "{id}");
            page.picture(&format!("refused-{id}")).await;
        }
        // A name that is none stays where it was written.
        write_in_list(&page, "games-list", "/").await;
        let sentence = "is no program's name; give its file name";
        page.until(sentence, SOON, async |page| page.read("rules").await.contains(sentence)).await;
        let field = format!("return {}.querySelector('input').value", query("games-list"));
        assert_eq!(page.script(&field).await, "/");

        page.reload("state-sentence").await;
        until_everything_is(&page, &before).await;
    });
}

/// Two graphics cards that a script plays, with a limit that may be set, and a place for newer
/// versions where none lies.
fn with_two_cards(person: &Path) -> Vec<(&'static str, OsString)> {
    let card = |uuid, name, memory_bytes: u64| {
        json!({ "uuid": uuid, "name": name, "least_mw": 150_000, "most_mw": 450_000,
            "usual_mw": 450_000, "limit_mw": 450_000, "may_set": true,
            "memory_bytes": memory_bytes })
    };
    let cards = json!([
        card("GPU-1", "NVIDIA GeForce RTX 4090", 25_769_803_776),
        card("GPU-2", "NVIDIA GeForce RTX 3060", 12_884_901_888),
    ]);
    let script = person.join("cards.json");
    std::fs::write(&script, cards.to_string()).unwrap();
    let updates = person.join("updates");
    std::fs::create_dir(&updates).unwrap();
    vec![
        ("NEURINO_CARDS", script.into()),
        ("NEURINO_DEVICE", "auto".into()),
        ("NEURINO_UPDATE_SOURCE", updates.into()),
        ("NEURINO_UPDATE_KEY", UPDATE_KEY.into()),
    ]
}

/// Changes one setting and waits until the page has taken it.
async fn change(page: &Page, id: &str, to: &To) {
    page.wait_for(id, SOON).await;
    let wanted = match to {
        On(on) => {
            assert_eq!(value(page, id).await, json!(!on), "{id} is something to change");
            page.press(id).await;
            json!(on)
        }
        Text(text) => {
            page.replace(id, text).await;
            json!(text)
        }
        Entry(entry) => {
            page.choose(id, entry).await;
            json!(entry)
        }
    };
    let what = format!("{id} shows {wanted}");
    page.until(&what, SOON, async |page| value(page, id).await == wanted).await;
}

/// What a field shows.
async fn value(page: &Page, id: &str) -> Value {
    let script =
        format!("const f = {}; return f.type === 'checkbox' ? f.checked : f.value", query(id));
    page.script(&script).await
}

async fn write_in_list(page: &Page, id: &str, word: &str) {
    page.script(&format!("{}.querySelector('input').focus()", query(id))).await;
    page.write_in(&format!("[data-testid='{id}'] input"), word).await;
    page.press_the(&format!("[data-testid='{id}'] button[type=submit]")).await;
}

/// Adds an entry to a list and waits until it stands there.
async fn add(page: &Page, id: &str, word: &str) {
    write_in_list(page, id, word).await;
    let script = format!(
        "return [...{}.querySelectorAll('.chip')].some((c) => c.innerText.trim() === '{word}')",
        query(id)
    );
    page.until(word, SOON, async |page| page.script(&script).await == json!(true)).await;
}

/// The first card gets a limit, work and a name, the second is not used.
async fn change_the_cards(page: &Page) {
    let slider = page.wait_for("limit-slider", SOON).await;
    // Down from its own 450 W by the keyboard.
    slider.send_keys(&"\u{e012}".repeat(20)).await.unwrap();
    page.until("the limit is chosen", SOON, async |page| page.find("limit-own").await.is_some())
        .await;
    page.press_the("[data-testid='card-row']:nth-of-type(1) [data-testid='card-role-pictures']")
        .await;
    page.replace("card-name", "The loud one").await;
    page.until("the card has its name", SOON, async |page| {
        page.read("cards").await.contains("The loud one")
    })
    .await;
    page.press_the("[data-testid='card-row']:nth-of-type(2) [data-testid='card-use']").await;
    page.until("the other is off", SOON, async |page| {
        page.script("return document.querySelectorAll('[data-testid=card-name]').length").await
            == json!(2)
            && page.read("cards").await.contains("Not used")
    })
    .await;
}

/// Waits until a file below the program's home says all of this.
async fn until_kept(page: &Page, file: &str, words: &[&str]) {
    let path = page.desk.home().join(file);
    let missing = || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        words.iter().find(|word| !text.contains(**word)).map(|word| (*word, text.clone()))
    };
    let begin = Instant::now();
    while let Some((word, text)) = missing() {
        assert!(begin.elapsed() < SOON, "{file} does not say `{word}`:\n{text}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What every field of the settings shows: by test id, and the lists, the cards and the week in order.
async fn everything(page: &Page) -> Value {
    let script = "const shown = {}; \
        const skip = ['settings-find', 'log-search', 'log-level', 'log-day']; \
        for (const field of document.querySelectorAll('main :is(input, select)[data-testid]')) { \
          const id = field.dataset.testid; \
          if (skip.includes(id) || field.type === 'radio') continue; \
          const value = field.type === 'checkbox' ? field.checked : field.value; \
          shown[id] = id in shown ? [shown[id], value] : value; \
        } \
        const all = (css, what) => [...document.querySelectorAll('main ' + css)].map(what); \
        shown.lists = all('.chip', (chip) => chip.innerText.trim()); \
        shown.week = all('[data-at]', (cell) => cell.dataset.letter).join(''); \
        shown.roles = all('[data-testid=card-row] label.chosen', (one) => one.innerText.trim()); \
        return shown";
    page.script(script).await
}

/// Goes to the settings and waits until every field shows what it showed.
async fn until_everything_is(page: &Page, before: &Value) {
    page.go_to("settings").await;
    let begin = std::time::Instant::now();
    loop {
        let now = everything(page).await;
        if now == *before {
            return;
        }
        if begin.elapsed() > SOON {
            assert_eq!(now, *before, "everything is as it was");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Each card of the settings in both themes and at two sizes, and nothing in them cut off.
async fn take_pictures(page: &Page) {
    let mut cut = Vec::new();
    for (width, height) in [(1100, 720), (720, 560)] {
        page.resize(width, height).await;
        for theme in ["light", "dark"] {
            page.choose("theme-select", theme).await;
            // Colours fade from one theme to the next.
            tokio::time::sleep(Duration::from_millis(400)).await;
            let cards = page.script("return document.querySelectorAll('main section.card').length");
            for card in 0..cards.await.as_u64().unwrap() {
                let scroll = "scrollIntoView({ block: 'start', behavior: 'instant' })";
                let script = format!(
                    "const card = document.querySelectorAll('main section.card')[{card}]; \
                     card.{scroll}; return card.querySelector('h2').innerText"
                );
                let title = page.script(&script).await;
                let words = title.as_str().unwrap().to_lowercase().replace(' ', "-");
                page.picture(&format!("{width}-{theme}-{words}")).await;
            }
            cut.extend(cut_off(page).await.into_iter().map(|one| format!("{width}: {one}")));
        }
    }
    page.choose("theme-select", "light").await;
    page.resize(1100, 720).await;
    assert!(cut.is_empty(), "{}", cut.join("\n"));
}

/// What is wider than its place, though it is not made to scroll.
async fn cut_off(page: &Page) -> Vec<String> {
    let script = "return [...document.querySelectorAll('main, main section.card, main section.card *')] \
        .filter((one) => one.clientWidth > 0 && one.scrollWidth > one.clientWidth + 1) \
        .filter((one) => !one.closest('pre, code, .hidden-visually, .chip') && one.tagName !== 'INPUT') \
        .map((one) => one.outerHTML.slice(0, 160))";
    let found = page.script(script).await;
    found.as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned()).collect()
}
