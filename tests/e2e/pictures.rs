//! Pictures: words in the Playground, the picture that appears, Waifu points, a file that is kept.

use std::time::Duration;

use crate::desk::in_the_window;
use crate::earning::{explained, micro_points};
use crate::page::Page;

const SOON: Duration = Duration::from_secs(10);
/// A model is loaded and a job computed, on two cores that others may share.
const A_WHILE: Duration = Duration::from_mins(3);

#[test]
fn makes_a_picture_and_keeps_it() {
    in_the_window("makes-a-picture", async |page: Page| {
        page.press("start-button").await;
        page.until_state(&["waiting", "working"], A_WHILE).await;
        page.go_to("playground").await;
        page.press("making-image").await;
        page.picture("empty").await;
        page.write("picture-input", "a red circle on a blue background").await;
        page.press("picture-send").await;
        page.wait_for("picture", SOON).await;
        page.picture("asked").await;
        page.until("the picture is there", A_WHILE, async |page| {
            page.attribute("picture", "data-status").await.as_deref() == Some("done")
        })
        .await;
        page.until("it says what it earned", SOON, async |page| {
            page.read("picture-meta").await.contains("Waifu points")
        })
        .await;
        page.picture("done").await;
        check_pixels(&page).await;

        page.press("picture-save").await;
        let saved = page.desk.home().join("pictures");
        let kept = || {
            let files = std::fs::read_dir(&saved).ok()?.flatten().map(|file| file.path());
            files.filter(|path| path.extension().is_some_and(|ending| ending == "png")).last()
        };
        page.until("the picture is kept", SOON, async |_| kept().is_some()).await;
        assert!(std::fs::read(kept().unwrap()).unwrap().starts_with(b"\x89PNG"));
        page.picture("saved").await;

        page.go_to("home").await;
        page.wait_for("waifu-today", SOON).await;
        assert!(micro_points(&page.read("waifu-today").await) > 0);
        // Pixels times steps ÷ those of a point = base, × factor, × multiplier = amount.
        let steps = explained(&page, "Picture").await;
        page.picture("explained").await;
        let [units, per_point, base, factor, multiplier, amount] = steps[..] else {
            panic!("six steps: {steps:?}");
        };
        assert_eq!(per_point / 1_000_000, 512 * 512 * 20);
        assert_eq!(base, units / (per_point / 1_000_000));
        assert_eq!(amount, base * factor / 1_000_000 * multiplier / 1_000_000);
        page.until("it is computed again", SOON, async |page| {
            page.read("receipt-verdict").await.ends_with("the same amount.")
        })
        .await;
    });
}

/// The picture shows something: its pixels are not all alike.
async fn check_pixels(page: &Page) {
    let distinct = page
        .script(
            "const image = document.querySelector('[data-testid=picture-image]'); \
             const canvas = document.createElement('canvas'); \
             canvas.width = image.naturalWidth; canvas.height = image.naturalHeight; \
             const context = canvas.getContext('2d'); context.drawImage(image, 0, 0); \
             const { data } = context.getImageData(0, 0, canvas.width, canvas.height); \
             const seen = new Set(); \
             for (let i = 0; i < data.length; i += 4) seen.add(data[i] * 65536 + data[i + 1] * 256 + data[i + 2]); \
             return seen.size",
        )
        .await;
    assert!(distinct.as_u64().unwrap() > 16, "{distinct} colours");
}
