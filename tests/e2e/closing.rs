//! Closing the window: asked once, then in the tray or the end; a second start brings it back where it
//! was. In the tray the program is small.

use std::time::{Duration, Instant};

use crate::desk::in_the_window;
use crate::page::Page;

const SOON: Duration = Duration::from_secs(10);
/// Most memory of the program in the tray, in bytes: what is its own, and its share of what others have
/// loaded too. A desktop has the window's libraries loaded once; here nobody else has.
const TRAY_BYTES_MAX: u64 = 120_000_000;
/// Until the window's parts have ended and their memory is given back.
const SETTLES_WITHIN: Duration = Duration::from_mins(1);

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
        let (begin, mut memory) = (Instant::now(), program.memory_bytes());
        while memory.pss > TRAY_BYTES_MAX && begin.elapsed() < SETTLES_WITHIN {
            tokio::time::sleep(Duration::from_millis(500)).await;
            memory = program.memory_bytes();
        }
        eprintln!("in the tray after {:?}: {memory:?}", begin.elapsed());
        assert!(memory.pss <= TRAY_BYTES_MAX, "{memory:?}");
        // And it stays small while it waits.
        tokio::time::sleep(Duration::from_secs(10)).await;
        let memory = program.memory_bytes();
        eprintln!("ten seconds later: {memory:?}");
        assert!(memory.pss <= TRAY_BYTES_MAX, "{memory:?}");

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
fn opens_where_it_was() {
    in_the_window("window-place", async |page: Page| {
        page.go_to("settings").await;
        page.choose("close-select", "tray").await;
        let desk = page.desk.clone();
        desk.place_window([140, 90, 930, 610]);
        page.until("the window moves", SOON, async |page| {
            page.desk.window_place().is_some_and(|at| at[2] == 930)
        })
        .await;
        let mut before = desk.window_place().unwrap();
        for _ in 0..2 {
            desk.press_close("Neurino");
            page.until("the window closes", SOON, async |page| page.desk.windows().is_empty())
                .await;
            assert!(desk.start_again().success());
            page.until("it is back where it was", SOON, async |page| {
                page.desk.window_place().is_some_and(|now| is_near(now, before))
            })
            .await;
            tokio::time::sleep(Duration::from_millis(500)).await;
            before = desk.window_place().unwrap();
            eprintln!("it is at {before:?}");
        }
        // The monitor that it was on is gone: it opens where there is one.
        let file = desk.home().join("data/window.toml");
        desk.press_close("Neurino");
        page.until("the window closes", SOON, async |page| page.desk.windows().is_empty()).await;
        let far = "x = 9000\ny = -4000\nwidth = 930\nheight = 610\nmaximized = false\n";
        std::fs::write(file, far).unwrap();
        assert!(desk.start_again().success());
        page.until("it can be seen", SOON, async |page| {
            page.desk
                .window_place()
                .is_some_and(|[x, y, ..]| (0..900).contains(&x) && (0..900).contains(&y))
        })
        .await;
        desk.program().unwrap().terminate();
        page.until("the program ends", SOON, async |page| page.desk.program().is_none()).await;
    });
}

/// Whether a window is where it was, but for what its frame makes of it.
fn is_near(now: [i32; 4], before: [i32; 4]) -> bool {
    now.iter().zip(&before).all(|(now, before)| (now - before).abs() <= 2)
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
