//! Works the downloads off, one model after another, in the hours that the person allows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use neurino_control::Cause;
use neurino_core::ModelId;
use neurino_model_store::Window;
use neurino_protocol::library::DayWindow;
use neurino_protocol::{ErrorBody, ErrorCode};

use crate::{App, lock};

/// How often hours of the day and waits are looked at.
const TICK: Duration = Duration::from_secs(5);
/// The wait before a download is tried again that may work later by itself.
const RETRY_AFTER: Duration = Duration::from_mins(2);

impl App {
    /// Adds a model to the downloads.
    pub(crate) fn enqueue(self: &Arc<Self>, model: &ModelId) -> Result<(), ErrorBody> {
        self.known(model)?;
        lock(&self.library.state).retry_at.remove(model);
        self.forget_problem(model);
        self.queued(|queue| queue.add(model))?;
        self.changed.notify_one();
        Ok(())
    }

    /// Starts the work on the queue; it ends with the application.
    pub(crate) fn spawn_queue(self: &Arc<Self>) {
        let app = Arc::clone(self);
        self.tasks.spawn(async move {
            while !app.end.is_cancelled() {
                let Some(model) = app.turn_of() else {
                    tokio::select! {
                        () = app.end.cancelled() => return,
                        () = app.library.wake.notified() => {}
                        () = tokio::time::sleep(TICK) => {}
                    }
                    continue;
                };
                app.work_off(&model).await;
            }
        });
    }

    /// The model whose turn it is, if downloads may run now.
    fn turn_of(&self) -> Option<ModelId> {
        let in_the_way = lock(&self.guard).in_the_way();
        let mut state = lock(&self.library.state);
        let now = Instant::now();
        let due: Vec<ModelId> =
            state.retry_at.iter().filter(|(_, at)| **at <= now).map(|(m, _)| m.clone()).collect();
        for model in due {
            state.retry_at.remove(&model);
            // Not a change of the list, only of what is known of it.
            let _ = state.queue.pause(&model, false);
        }
        let next = state.queue.next().cloned();
        let moving = state.task.as_ref().is_some_and(super::tasks::Running::holds_downloads);
        // What the person set aside counts again when it comes again.
        let anyway =
            state.anyway.take_if(|aside| !in_the_way.as_ref().is_some_and(|c| same(c, aside)));
        let changed = anyway.is_some();
        let waits_for = in_the_way.filter(|_| state.anyway.is_none());
        let closed = state.settings.window.filter(|window| !holds_now(*window));
        let resting = match (closed, moving, &waits_for) {
            (_, true, _) => Some("Downloads wait until the library has moved.".to_owned()),
            (_, _, Some(cause)) => Some(format!("Downloads wait: {}.", cause.seen())),
            (Some(window), ..) => Some(format!(
                "Downloads run from {} to {}.",
                clock(window.from_minute),
                clock(window.until_minute)
            )),
            _ => None,
        };
        let waits_for = waits_for.filter(|_| !moving);
        let changed = changed || state.resting != resting || state.waits_for != waits_for;
        state.resting = resting;
        state.waits_for = waits_for;
        let free = state.resting.is_none();
        drop(state);
        if changed {
            self.changed.notify_one();
        }
        next.filter(|_| free)
    }

    async fn work_off(self: &Arc<Self>, model: &ModelId) {
        let ended = self.fetch_asked(model);
        tokio::pin!(ended);
        let outcome = loop {
            tokio::select! {
                outcome = &mut ended => break outcome,
                () = self.library.wake.notified() => {}
                () = tokio::time::sleep(TICK) => {}
            }
            if self.turn_of().as_ref() != Some(model) {
                self.stop_fetch(model).await;
            }
        };
        let mut state = lock(&self.library.state);
        match outcome {
            Ok(()) => {
                let _ = state.queue.remove(model);
            }
            Err(error) if error.code == ErrorCode::Cancelled => {}
            Err(error) => {
                state.queue.fail(model);
                if error.code == ErrorCode::Unreachable {
                    state.retry_at.insert(model.clone(), Instant::now() + RETRY_AFTER);
                }
            }
        }
        drop(state);
        self.changed.notify_one();
    }
}

/// Whether two causes are the same game, program, person or network; how a game was recognised, and that it
/// ended a moment ago, makes no other one of it.
fn same(one: &Cause, other: &Cause) -> bool {
    let game = |cause: &Cause| match cause {
        Cause::Game { program, .. } | Cause::CoolDown { program } => Some(program.clone()),
        _ => None,
    };
    match (game(one), game(other)) {
        (Some(one), Some(other)) => one == other,
        _ => one == other,
    }
}

fn holds_now(window: DayWindow) -> bool {
    let now = jiff::Zoned::now();
    let minute = u16::from(now.hour().unsigned_abs()) * 60 + u16::from(now.minute().unsigned_abs());
    let DayWindow { from_minute, until_minute } = window;
    Window { from_minute, until_minute }.holds(minute)
}

fn clock(minute: u16) -> String {
    format!("{:02}:{:02}", minute / 60, minute % 60)
}
