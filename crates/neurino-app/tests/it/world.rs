//! A home of its own with a model of a few bytes, an application in it, and a viewer.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use neurino_app::{App, AppOptions, EngineHost, StartError};
use neurino_config::{Dirs, KeyStoreSetting, Settings};
use neurino_core::{ChatMessage, ModelId, Receipt, Role, Usage};
use neurino_model_store::{Catalog, Digest, ModelFile, ModelManifest, ModelStore, Source};
use neurino_protocol::app::{
    ChatUpdate, Command, Event, MiningState, ModelState, Reply, Snapshot, StopMode,
};
use neurino_protocol::{ErrorBody, ErrorCode};
use neurino_testkit::ScriptedEngine;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

/// Longest wait for anything that should happen.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);
/// The content of the model's file.
pub(crate) const WEIGHTS: &[u8] = b"the weights of a scripted engine";
const FILE: &str = "weights.gguf";

pub(crate) struct World {
    pub(crate) home: tempfile::TempDir,
    pub(crate) engine: ScriptedEngine,
    pub(crate) settings: Settings,
    sources: Vec<Source>,
}

impl World {
    /// A home that has the starter model; every job is answered with `text`.
    pub(crate) fn answering(text: &str) -> Self {
        let world = Self::without_model(vec![]);
        let folder = world.store().folder(&Catalog::starter());
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(FILE), WEIGHTS).unwrap();
        Self { engine: ScriptedEngine::answering(text), ..world }
    }

    /// A home without the starter model, which can be had from these sources.
    pub(crate) fn without_model(sources: Vec<Source>) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut settings = Settings::default();
        settings.gateway.listen_port = 0;
        settings.identity.key_store = KeyStoreSetting::File;
        let engine = ScriptedEngine::answering("fine");
        Self { home, engine, settings, sources }
    }

    pub(crate) fn dirs(&self) -> Dirs {
        let home = self.home.path();
        let mut dirs = Dirs::discover(Some(home.to_owned())).unwrap();
        // Whatever the environment of the test run says.
        dirs.models = home.join("models");
        dirs.resources = home.join("resources");
        dirs
    }

    /// Where the model's file lies, or would.
    pub(crate) fn model_file(&self) -> PathBuf {
        self.store().folder(&Catalog::starter()).join(FILE)
    }

    fn store(&self) -> ModelStore {
        self.store_of(WEIGHTS, &self.sources)
    }

    /// The library, whose catalogue says that the model's file holds `weights`.
    pub(crate) fn store_of(&self, weights: &[u8], sources: &[Source]) -> ModelStore {
        let catalog = Catalog::of(vec![manifest(weights, sources)]);
        ModelStore::open_with(&self.dirs().models, catalog, Box::new(|_| Ok(u64::MAX))).unwrap()
    }

    pub(crate) fn options(&self) -> AppOptions {
        let engine = EngineHost::Given(Arc::new(self.engine.clone()));
        let usual = AppOptions::new(self.dirs(), self.settings.clone(), engine);
        AppOptions { store: Some(self.store()), ..usual }
    }

    pub(crate) async fn start(&self) -> Viewer {
        Viewer::start(self.options()).await.unwrap()
    }
}

/// The starter model by name, with a file of a few bytes: the network prices it.
fn manifest(weights: &[u8], sources: &[Source]) -> ModelManifest {
    let file = ModelFile {
        name: FILE.into(),
        sha256: Digest::of(weights),
        size_bytes: weights.len() as u64,
        sources: sources.to_vec(),
        pieces: None,
    };
    ModelManifest {
        id: Catalog::starter(),
        name: "Starter".into(),
        summary: "A model for tests.".into(),
        family: "test".into(),
        arch: "llama".into(),
        dtype: "f32".into(),
        kind: neurino_core::JobKind::Text,
        context_tokens: 8192,
        image: None,
        memory_bytes_min: 1,
        licence: "Apache-2.0".into(),
        attribution: "nobody".into(),
        files: vec![file],
    }
}

/// An application and somebody who looks at it.
pub(crate) struct Viewer {
    pub(crate) app: Arc<App>,
    pub(crate) events: broadcast::Receiver<Event>,
    /// Receipts that came while something else was waited for.
    early: VecDeque<Receipt>,
}

/// A whole answer.
#[derive(Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) text: String,
    pub(crate) usage: Usage,
}

impl Viewer {
    pub(crate) async fn start(options: AppOptions) -> Result<Self, StartError> {
        let app = App::start(options).await?;
        let events = app.subscribe();
        Ok(Self { app, events, early: VecDeque::new() })
    }

    pub(crate) async fn command(&self, command: Command) -> Result<Reply, ErrorBody> {
        tokio::time::timeout(PATIENCE, self.app.dispatch(command)).await.unwrap()
    }

    pub(crate) async fn mine(&self) {
        assert_eq!(self.command(Command::MiningStart).await, Ok(Reply::Ok));
    }

    pub(crate) async fn stop(&self, mode: StopMode) {
        assert_eq!(self.command(Command::MiningStop { mode }).await, Ok(Reply::Ok));
    }

    /// Starts mining and waits until the miner waits for a job.
    pub(crate) async fn mine_until_ready(&self) -> Snapshot {
        self.mine().await;
        self.until_ready().await
    }

    pub(crate) async fn until_ready(&self) -> Snapshot {
        let ready = |s: &Snapshot| s.mining.state == MiningState::Waiting && s.network.connected;
        self.until("ready for a job", ready).await
    }

    pub(crate) async fn until_state(&self, state: MiningState) -> Snapshot {
        self.until(&format!("{state:?}"), |s| s.mining.state == state).await
    }

    /// Mining is over and the model's memory given back.
    pub(crate) async fn until_over(&self) -> Snapshot {
        let over = |s: &Snapshot| {
            s.mining.state == MiningState::Stopped && s.models[0].state != ModelState::Loaded
        };
        self.until("stopped, model unloaded", over).await
    }

    pub(crate) async fn snapshot(&self) -> Snapshot {
        match self.command(Command::Snapshot).await {
            Ok(Reply::Snapshot(snapshot)) => *snapshot,
            other => panic!("{other:?}"),
        }
    }

    /// Waits for a state of things.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Snapshot) -> bool) -> Snapshot {
        let began = std::time::Instant::now();
        loop {
            let snapshot = self.snapshot().await;
            if holds(&snapshot) {
                return snapshot;
            }
            assert!(began.elapsed() < PATIENCE, "not {what}: {:#?}", snapshot.mining);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The first event that `pick` takes.
    pub(crate) async fn event<T>(&mut self, mut pick: impl FnMut(Event) -> Option<T>) -> T {
        let look = async {
            loop {
                match self.events.recv().await {
                    Ok(event) => {
                        if let Some(picked) = pick(event) {
                            return picked;
                        }
                    }
                    Err(RecvError::Lagged(lost)) => panic!("{lost} events were lost"),
                    Err(RecvError::Closed) => panic!("the application is gone"),
                }
            }
        };
        tokio::time::timeout(PATIENCE, look).await.expect("the event in time")
    }

    pub(crate) async fn settled(&mut self) -> Receipt {
        if let Some(receipt) = self.early.pop_front() {
            return receipt;
        }
        self.event(|event| match event {
            Event::Settled(receipt) => Some(*receipt),
            _ => None,
        })
        .await
    }

    pub(crate) async fn ask(&self, chat: &str) -> Result<Reply, ErrorBody> {
        self.command(question(chat)).await
    }

    /// The next step of a conversation.
    pub(crate) async fn update(&mut self, chat: &str) -> ChatUpdate {
        let mut early = std::mem::take(&mut self.early);
        let update = self
            .event(|event| match event {
                Event::Chat { chat: of, update } if of == chat => Some(update),
                // The receipt may be there before the answer's last piece.
                Event::Settled(receipt) => {
                    early.push_back(*receipt);
                    None
                }
                _ => None,
            })
            .await;
        self.early = early;
        update
    }

    /// The rest of a conversation's answer; a wait before its first word is left out.
    pub(crate) async fn answer(&mut self, chat: &str) -> Result<Answer, ErrorBody> {
        let mut text = String::new();
        loop {
            match self.update(chat).await {
                ChatUpdate::Queued => {}
                ChatUpdate::Delta { text: more } => text.push_str(&more),
                ChatUpdate::Done { usage, .. } => return Ok(Answer { text, usage }),
                ChatUpdate::Failed { error } => return Err(error),
            }
        }
    }

    /// Asks once and takes the answer and its receipt.
    pub(crate) async fn earn(&mut self, chat: &str) -> Receipt {
        assert_eq!(self.ask(chat).await, Ok(Reply::Ok));
        self.answer(chat).await.unwrap();
        self.settled().await
    }

    pub(crate) async fn end(self) {
        self.app.shutdown().await;
    }
}

pub(crate) fn question(chat: &str) -> Command {
    question_of(chat, Catalog::starter())
}

pub(crate) fn question_of(chat: &str, model: ModelId) -> Command {
    let message = ChatMessage::new(Role::User, "What is a neuron?");
    Command::ChatSend {
        chat: chat.into(),
        model,
        messages: vec![message],
        temperature: 0.0,
        max_tokens: 64,
    }
}

pub(crate) fn code(outcome: Result<Reply, ErrorBody>) -> ErrorCode {
    outcome.expect_err("the command is refused").code
}
