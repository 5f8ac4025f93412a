//! The page as a person meets it: things to press, texts to read, and pictures of it all.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fantoccini::elements::Element;
use fantoccini::{Client, Locator};
use serde_json::{Value, json};

use crate::desk::{self, Helper, View};

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The Tab key, as the driver writes it.
const LEAVE: char = '\u{e004}';

/// The page of one window.
#[derive(Clone)]
pub(crate) struct Page {
    session: Arc<Mutex<Session>>,
    name: &'static str,
    pictures: Arc<AtomicU32>,
    /// What lies outside the page.
    pub(crate) desk: View,
}

/// One run of the program under the driver; the driver ends with it.
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) driver: Option<Helper>,
}

impl Page {
    pub(crate) fn new(name: &'static str, desk: View, session: Session) -> Self {
        let session = Arc::new(Mutex::new(session));
        Self { session, name, pictures: Arc::default(), desk }
    }

    fn client(&self) -> Client {
        self.session.lock().unwrap().client.clone()
    }

    /// Ends the session, and with it the program, then the driver.
    pub(crate) async fn close(self) {
        self.end().await;
    }

    async fn end(&self) {
        // The window may be gone already, and the session with it.
        let _ = tokio::time::timeout(Duration::from_secs(10), self.client().close()).await;
        self.session.lock().unwrap().driver.take();
    }

    /// Ends the program as the system does at shutdown, starts it anew and waits for this part of its
    /// page.
    pub(crate) async fn start_anew(&self, first: &str) {
        let program = self.desk.program().expect("the program runs");
        program.terminate();
        self.until("the program ends", Duration::from_secs(20), async |page| {
            page.desk.program().is_none() && page.desk.engine().is_none()
        })
        .await;
        self.end().await;
        let session = self.desk.open().await;
        *self.session.lock().unwrap() = session;
        self.wait_for(first, Duration::from_secs(30)).await;
    }

    /// Loads the page again and waits for this part of it.
    pub(crate) async fn reload(&self, first: &str) {
        // What the old page shows must not be taken for the new one's.
        self.script("window.outdated = true; location.reload()").await;
        self.until("the page is another one", Duration::from_secs(20), async |page| {
            let script = "return window.outdated === undefined";
            page.client().execute(script, Vec::new()).await.is_ok_and(|is| is == json!(true))
        })
        .await;
        self.wait_for(first, Duration::from_secs(30)).await;
    }

    /// The element with this `data-testid`.
    pub(crate) async fn find(&self, id: &str) -> Option<Element> {
        self.client().find(Locator::Css(&selector(id))).await.ok()
    }

    /// Waits for the element with this `data-testid`. While a window is being drawn anew the driver may
    /// answer with neither an element nor its absence; it is asked again.
    pub(crate) async fn wait_for(&self, id: &str, at_most: Duration) -> Element {
        let begin = Instant::now();
        loop {
            if let Some(element) = self.find(id).await {
                return element;
            }
            assert!(begin.elapsed() < at_most, "{id} appears within {at_most:?}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Presses a button once it lies still: a person does not press what moves under the finger.
    pub(crate) async fn press(&self, id: &str) {
        self.wait_still(id, Duration::from_secs(10)).await.click().await.unwrap();
    }

    async fn wait_still(&self, id: &str, at_most: Duration) -> Element {
        const A_MOMENT: Duration = Duration::from_millis(50);
        let begin = Instant::now();
        loop {
            let element = self.wait_for(id, at_most).await;
            let before = element.rectangle().await.ok();
            tokio::time::sleep(A_MOMENT).await;
            // An element that was drawn anew meanwhile has no place.
            if before.is_some() && before == element.rectangle().await.ok() {
                return element;
            }
            assert!(begin.elapsed() < at_most, "{id} lies still within {at_most:?}");
        }
    }

    /// Presses what no test id names.
    pub(crate) async fn press_the(&self, css: &str) {
        self.client().find(Locator::Css(css)).await.unwrap().click().await.unwrap();
    }

    /// Presses what closes the window: the driver may have no page left to answer from.
    pub(crate) async fn press_and_lose_the_page(&self, id: &str) {
        let button = self.wait_for(id, Duration::from_secs(10)).await;
        let _ = tokio::time::timeout(Duration::from_secs(2), button.click()).await;
    }

    pub(crate) async fn write(&self, id: &str, text: &str) {
        self.wait_for(id, Duration::from_secs(10)).await.send_keys(text).await.unwrap();
    }

    /// Writes into what no test id names.
    pub(crate) async fn write_in(&self, css: &str, text: &str) {
        let field = self.client().find(Locator::Css(css)).await.unwrap();
        field.send_keys(text).await.unwrap();
    }

    pub(crate) async fn read(&self, id: &str) -> String {
        self.wait_for(id, Duration::from_secs(10)).await.text().await.unwrap()
    }

    pub(crate) async fn attribute(&self, id: &str, name: &str) -> Option<String> {
        self.find(id).await?.attr(name).await.ok()?
    }

    /// Writes over what a field holds and leaves it.
    pub(crate) async fn replace(&self, id: &str, text: &str) {
        let field = self.wait_for(id, Duration::from_secs(10)).await;
        self.script(&format!("{}.select()", query(id))).await;
        field.send_keys(&format!("{text}{LEAVE}")).await.unwrap();
    }

    /// Gives a field of several parts, such as a time, its value and leaves it: the driver's keys do not
    /// reach the parts one after the other, as a person's do.
    pub(crate) async fn give(&self, id: &str, value: &str) {
        self.wait_for(id, Duration::from_secs(10)).await;
        let field = query(id);
        self.script(&format!(
            "{field}.focus(); {field}.value = '{value}'; \
             {field}.dispatchEvent(new Event('input', {{ bubbles: true }})); {field}.blur()"
        ))
        .await;
    }

    /// Chooses an entry of a list by its value.
    pub(crate) async fn choose(&self, id: &str, value: &str) {
        let list = self.wait_for(id, Duration::from_secs(10)).await;
        list.select_by_value(value).await.unwrap();
    }

    pub(crate) async fn go_to(&self, page: &str) {
        self.press(&format!("nav-{page}")).await;
    }

    /// The theme for this window, chosen in the settings as a person would.
    pub(crate) async fn choose_theme(&self, theme: &str) {
        self.go_to("settings").await;
        self.choose("theme-select", theme).await;
        self.until("the theme shows", Duration::from_secs(5), async |page| {
            page.script("return document.documentElement.dataset.theme").await == json!(theme)
        })
        .await;
    }

    pub(crate) async fn resize(&self, width: u32, height: u32) {
        self.client().set_window_size(width, height).await.unwrap();
        // Let the page lay itself out before anybody looks.
        tokio::time::sleep(Duration::from_millis(300)).await;
    }

    /// Runs a script in the page and returns what it returns.
    pub(crate) async fn script(&self, script: &str) -> Value {
        self.client().execute(script, Vec::new()).await.unwrap()
    }

    /// Runs a script whose last argument is called with the result.
    pub(crate) async fn script_async(&self, script: &str, arguments: Vec<Value>) -> Value {
        self.client().execute_async(script, arguments).await.unwrap()
    }

    /// Calls the program as the page's own code does: what it answered, or what it refused with.
    pub(crate) async fn invoke(&self, command: &str, arguments: Value) -> Result<Value, Value> {
        let script = "const [command, payload, done] = arguments; \
            window.__TAURI_INTERNALS__.invoke(command, payload) \
              .then((ok) => done({ ok }), (refused) => done({ refused }))";
        let answer = self.script_async(script, vec![json!(command), arguments]).await;
        match answer.get("refused") {
            Some(refused) => Err(refused.clone()),
            None => Ok(answer["ok"].clone()),
        }
    }

    /// Waits until `condition` holds.
    pub(crate) async fn until(
        &self,
        what: &str,
        at_most: Duration,
        condition: impl AsyncFn(&Self) -> bool,
    ) {
        let begin = Instant::now();
        while !condition(self).await {
            assert!(begin.elapsed() < at_most, "{what} within {at_most:?}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits for one of the miner's states and returns it.
    pub(crate) async fn until_state(&self, states: &[&str], at_most: Duration) {
        let what = format!("the state is one of {states:?}");
        self.until(&what, at_most, async |page| {
            let state = page.attribute("state-sentence", "data-state").await;
            state.is_some_and(|state| states.contains(&state.as_str()))
        })
        .await;
    }

    /// Leaves a picture of the page among the artifacts.
    pub(crate) async fn picture(&self, of: &str) {
        let number = self.pictures.fetch_add(1, Ordering::Relaxed) + 1;
        let png = self.screenshot().await.expect("a picture is taken within seconds");
        let name = format!("{}-{number:02}-{of}.png", self.name);
        std::fs::write(desk::artifacts().join(name), png).unwrap();
    }

    pub(crate) async fn picture_of_failure(&self) {
        if let Some(png) = self.screenshot().await {
            let name = format!("{}-failed.png", self.name);
            let _ = std::fs::write(desk::artifacts().join(name), png);
        }
    }

    /// A page that does not use the graphics card is painted only where it changes, and the driver
    /// waits for the next painting: a pixel that blinks gives it one.
    async fn screenshot(&self) -> Option<Vec<u8>> {
        const BLINK: &str = "const pixel = document.createElement('div'); \
            pixel.id = 'blink'; \
            pixel.style = 'position:fixed;inset:auto 0 0 auto;width:1px;height:1px;z-index:9'; \
            (document.querySelector('dialog[open]') ?? document.body).append(pixel); \
            let on = false; \
            window.blinking = setInterval(() => { \
              on = !on; pixel.style.background = on ? '#808080' : '#818181' \
            }, 50)";
        const REST: &str =
            "clearInterval(window.blinking); document.getElementById('blink')?.remove()";
        let take = async {
            self.client().execute(BLINK, Vec::new()).await.ok()?;
            let png = self.client().screenshot().await.ok();
            self.client().execute(REST, Vec::new()).await.ok()?;
            png
        };
        tokio::time::timeout(Duration::from_secs(15), take).await.ok()?
    }
}

/// The script that finds the element with this `data-testid`.
pub(crate) fn query(id: &str) -> String {
    format!("document.querySelector(\"{}\")", selector(id))
}

fn selector(id: &str) -> String {
    format!("[data-testid='{id}']")
}
