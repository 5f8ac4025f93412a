//! Closing the window: asked once, then in the tray; a second start brings it back; SIGTERM ends it.

use std::time::Duration;

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
