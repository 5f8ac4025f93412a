//! The page's only two doors: one command, one stream of events.

use std::sync::Arc;

use neurino_protocol::app::{Command, Event, Reply, Snapshot, WindowAction};
use neurino_protocol::error::{ErrorBody, ErrorCode};
use tauri::ipc::Channel;
use tauri::{AppHandle, State};
use tokio::sync::broadcast::{Receiver, error::RecvError};

use crate::shell::Shell;
use crate::{choose, desktop, window};

/// Does what the page asks for. [`Command::Window`] is the shell's own; the rest is passed on.
#[tauri::command]
pub(crate) async fn rpc(
    handle: AppHandle,
    shell: State<'_, Arc<Shell>>,
    command: Command,
) -> Result<Reply, ErrorBody> {
    match command {
        Command::Window { action: WindowAction::Hide } => window::put_away(&handle),
        Command::Window { action: WindowAction::Quit } => desktop::quit(&handle),
        Command::Window { action: WindowAction::ChooseFile } => {
            return choose::path(&handle, choose::What::File).await;
        }
        Command::Window { action: WindowAction::ChooseFolder } => {
            return choose::path(&handle, choose::What::Folder).await;
        }
        Command::PreferencesSet { preferences } => {
            let language = preferences.language;
            let reply =
                shell.app().await?.dispatch(Command::PreferencesSet { preferences }).await?;
            shell.speak(language);
            return Ok(reply);
        }
        command => return shell.app().await?.dispatch(command).await,
    }
    Ok(Reply::Ok)
}

/// Streams events into `channel` until the window goes; a fresh snapshot comes first.
#[tauri::command]
pub(crate) async fn subscribe(
    handle: AppHandle,
    shell: State<'_, Arc<Shell>>,
    channel: Channel<Event>,
) -> Result<(), ErrorBody> {
    let app = shell.app().await?;
    // Before the snapshot, so that nothing falls between it and the first event.
    let (mut events, mut page_events) = (app.subscribe(), shell.page_events());
    send(&channel, Event::Snapshot(snapshot(&app).await?))?;
    let forwarder = tauri::async_runtime::spawn(async move {
        loop {
            let event = tokio::select! {
                event = next(&mut events) => event,
                event = next(&mut page_events) => event,
            };
            let event = match event {
                Next::Event(event) => event,
                // The page shows the newest state, so a fresh one makes up for the lost ones.
                Next::Lagged => match snapshot(&app).await {
                    Ok(snapshot) => Event::Snapshot(snapshot),
                    Err(_) => continue,
                },
                Next::Closed => return,
            };
            if send(&channel, event).is_err() {
                return;
            }
        }
    });
    shell.page_subscribed(forwarder);
    // A window that opened behind others has no change to tell of.
    shell.in_front(window::is_in_front(&handle));
    Ok(())
}

/// What a receiver of events yields.
enum Next {
    Event(Event),
    Lagged,
    Closed,
}

async fn next(events: &mut Receiver<Event>) -> Next {
    match events.recv().await {
        Ok(event) => Next::Event(event),
        Err(RecvError::Lagged(lost)) => {
            tracing::warn!(lost, "the page was too slow for {lost} events");
            Next::Lagged
        }
        Err(RecvError::Closed) => Next::Closed,
    }
}

async fn snapshot(app: &Arc<neurino_app::App>) -> Result<Box<Snapshot>, ErrorBody> {
    match app.dispatch(Command::Snapshot).await? {
        Reply::Snapshot(snapshot) => Ok(snapshot),
        other => {
            tracing::error!(?other, "a snapshot was answered with something else");
            Err(ErrorBody::new(ErrorCode::Internal, "The application gave no state."))
        }
    }
}

fn send(channel: &Channel<Event>, event: Event) -> Result<(), ErrorBody> {
    channel.send(event).map_err(|error| {
        tracing::debug!(%error, "the page is gone");
        ErrorBody::new(ErrorCode::Internal, "The window is gone.")
    })
}
