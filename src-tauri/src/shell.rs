//! What the window, the tray and the commands share: the application, once it has started.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use neurino_app::App;
use neurino_config::WindowFile;
use neurino_protocol::app::{Command, Event, Language, Preferences, Reply};
use neurino_protocol::error::{ErrorBody, ErrorCode};
use tauri::async_runtime::JoinHandle;
use tokio::sync::{broadcast, watch};

/// A second press of the close button this soon after the question means "just close".
const ASKED_RECENTLY: Duration = Duration::from_secs(10);

/// The application and the window's page, as the shell's parts see them.
pub(crate) struct Shell {
    startup: watch::Sender<Startup>,
    page: Mutex<Page>,
    /// The language that the person chose, for words outside the page.
    language: watch::Sender<Language>,
    /// Where the window's place is kept.
    place: Option<WindowFile>,
    quitting: AtomicBool,
    next: Mutex<Option<Next>>,
}

/// The program that follows this one.
#[derive(Clone, Copy)]
pub(crate) struct Next {
    /// What is exchanged first, if anything.
    pub(crate) exchange: Option<neurino_app::Exchange>,
    /// Without its window.
    pub(crate) hidden: bool,
}

/// How far the application is.
#[derive(Clone)]
enum Startup {
    Pending,
    Ready(Arc<App>),
    Failed(ErrorBody),
    Ended,
}

/// The page's side of the events.
struct Page {
    /// Events of the shell itself.
    events: broadcast::Sender<Event>,
    /// Forwards events to the page; there is one page at most.
    forwarder: Option<JoinHandle<()>>,
    /// When the person was asked what closing means.
    asked: Option<Instant>,
}

impl Shell {
    /// A shell whose application has yet to start.
    pub(crate) fn new(place: Option<WindowFile>) -> Self {
        Self {
            startup: watch::Sender::new(Startup::Pending),
            page: Mutex::new(Page {
                events: broadcast::Sender::new(8),
                forwarder: None,
                asked: None,
            }),
            language: watch::Sender::new(Language::System),
            place,
            quitting: AtomicBool::new(false),
            next: Mutex::new(None),
        }
    }

    /// Where the window's place is kept; nowhere without a data folder.
    pub(crate) fn place(&self) -> Option<&WindowFile> {
        self.place.as_ref()
    }

    /// The application is there, or will not come.
    pub(crate) fn started(&self, outcome: Result<Arc<App>, ErrorBody>) {
        self.startup.send_replace(match outcome {
            Ok(app) => Startup::Ready(app),
            Err(error) => Startup::Failed(error),
        });
    }

    /// The application; waits while it starts.
    ///
    /// # Errors
    /// Why it could not start.
    pub(crate) async fn app(&self) -> Result<Arc<App>, ErrorBody> {
        let mut startup = self.startup.subscribe();
        let settled = startup.wait_for(|startup| !matches!(startup, Startup::Pending)).await;
        match settled.expect("the shell holds the sender").clone() {
            Startup::Ready(app) => Ok(app),
            Startup::Failed(error) => Err(error),
            Startup::Ended => Err(ErrorBody::new(ErrorCode::Cancelled, "Neurino is closing.")),
            Startup::Pending => unreachable!("waited for the end of it"),
        }
    }

    /// The application, if it has started.
    pub(crate) fn app_now(&self) -> Option<Arc<App>> {
        match &*self.startup.borrow() {
            Startup::Ready(app) => Some(Arc::clone(app)),
            Startup::Pending | Startup::Failed(_) | Startup::Ended => None,
        }
    }

    /// The application has ended: its data folder is free for the program that follows, whatever still
    /// holds it. Where a process cannot become another one, this one waits for that program's end.
    pub(crate) fn ended(&self) {
        if let Startup::Ready(app) = self.startup.send_replace(Startup::Ended) {
            app.release();
        }
    }

    /// Whether the application could not start.
    pub(crate) fn failed(&self) -> bool {
        matches!(&*self.startup.borrow(), Startup::Failed(_))
    }

    /// The window's preferences; the defaults when they cannot be had within `wait`.
    pub(crate) async fn preferences(&self, wait: Duration) -> Preferences {
        let read = async {
            match self.app().await.ok()?.dispatch(Command::Preferences).await {
                Ok(Reply::Preferences(preferences)) => Some(preferences),
                Ok(_) => None,
                Err(error) => {
                    tracing::warn!(%error, "the preferences could not be read: {error}");
                    None
                }
            }
        };
        tokio::time::timeout(wait, read).await.ok().flatten().unwrap_or_default()
    }

    /// The person chose a language.
    pub(crate) fn speak(&self, language: Language) {
        self.language.send_if_modified(|now| std::mem::replace(now, language) != language);
    }

    /// The language that the person chose, now and when they choose another.
    pub(crate) fn language(&self) -> watch::Receiver<Language> {
        self.language.subscribe()
    }

    /// Events of the shell itself, for the page.
    pub(crate) fn page_events(&self) -> broadcast::Receiver<Event> {
        self.page().events.subscribe()
    }

    /// Makes `forwarder` the one that feeds the page; a reloaded page replaces the former.
    pub(crate) fn page_subscribed(&self, forwarder: JoinHandle<()>) {
        if let Some(former) = self.page().forwarder.replace(forwarder) {
            former.abort();
        }
        self.watched(true);
    }

    /// Tells the application whether somebody looks.
    fn watched(&self, is_watched: bool) {
        if let Some(app) = self.app_now() {
            app.watched(is_watched);
        }
    }

    /// Whether the window is the one in front.
    pub(crate) fn in_front(&self, is_in_front: bool) {
        if let Some(app) = self.app_now() {
            app.in_front(is_in_front);
        }
    }

    /// The window is gone, and the page with it.
    pub(crate) fn page_gone(&self) {
        self.watched(false);
        let mut page = self.page();
        page.asked = None;
        if let Some(forwarder) = page.forwarder.take() {
            forwarder.abort();
        }
    }

    /// Brings up the page's question what closing means. False if nobody would see it: no page
    /// listens, or it was asked a moment ago and the person closes again.
    pub(crate) fn ask_about_closing(&self) -> bool {
        let mut page = self.page();
        if page.asked.is_some_and(|asked| asked.elapsed() < ASKED_RECENTLY) {
            return false;
        }
        let heard = page.events.send(Event::CloseRequested).is_ok();
        page.asked = heard.then(Instant::now);
        heard
    }

    /// This program ends for another one.
    pub(crate) fn followed_by(&self, next: Next) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(next);
    }

    /// The program that follows this one, if any.
    pub(crate) fn next(&self) -> Option<Next> {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True for the first caller, who then ends the program.
    pub(crate) fn begin_quit(&self) -> bool {
        !self.quitting.swap(true, Ordering::AcqRel)
    }

    fn page(&self) -> std::sync::MutexGuard<'_, Page> {
        self.page.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
