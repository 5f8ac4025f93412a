//! Closing the window: asked once, then in the tray or the end; a second start brings it back.

use std::time::{Duration, Instant};

use crate::desk::in_the_window;
use crate::page::Page;

const SOON: Duration = Duration::from_secs(10);

#[test]
fn closes_to_the_tray_and_comes_back() {
    in_the_window("closing", async |page: Page| {
        let desk = page.desk.clone();
        assert_eq!(desk.windows(), ["Neurino"]);
        desk.press_close("Neurino");
        page.wait_for("close-dialog", SOON).await;
        assert_eq!(desk.windows(), ["Neurino"], "the question is asked in the window");
        tokio::time::sleep(Duration::from_millis(300)).await;
        page.picture("asked").await;

        page.press_and_lose_the_page("close-tray").await;
        page.until("the window is gone", SOON, async |page| page.desk.windows().is_empty()).await;
        let program = desk.program().expect("the program goes on without a window");

        assert!(desk.start_again().success());
        page.until("the window is back", SOON, async |page| page.desk.windows() == ["Neurino"])
            .await;
        assert_eq!(desk.program().as_ref(), Some(&program), "there is still one program");

        // The choice was kept: no question this time.
        desk.press_close("Neurino");
        page.until("the window closes at once", SOON, async |page| page.desk.windows().is_empty())
            .await;
        program.terminate();
        page.until("the program ends when asked to", SOON, async |page| {
            page.desk.program().is_none() && page.desk.engine().is_none()
        })
        .await;
    });
}

#[test]
fn quits_in_the_middle_of_a_job() {
    in_the_window("quitting", async |page: Page| {
        page.press("start-button").await;
        page.until_state(&["working"], Duration::from_mins(3)).await;
        let desk = page.desk.clone();
        assert!(desk.engine().is_some());
        desk.press_close("Neurino");
        page.wait_for("close-dialog", SOON).await;
        let begin = Instant::now();
        page.press_and_lose_the_page("close-quit").await;
        page.until("the program and its engine are gone", SOON, async |page| {
            page.desk.program().is_none() && page.desk.engine().is_none()
        })
        .await;
        eprintln!("quit within {:?}", begin.elapsed());
    });
}
