//! The system's own dialog for choosing a file or folder.

use std::path::PathBuf;

use neurino_protocol::app::Reply;
use neurino_protocol::error::{ErrorBody, ErrorCode};
use tauri::AppHandle;

/// What is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// One file.
    File,
    /// One folder.
    Folder,
}

/// Lets the person choose; `None` in the reply if they chose nothing.
///
/// # Errors
/// `Internal` if the system shows no dialog, or the name cannot be written as text.
pub(crate) async fn path(handle: &AppHandle, what: What) -> Result<Reply, ErrorBody> {
    let Some(path) = ask(handle, what).await? else { return Ok(Reply::Chosen { path: None }) };
    match path.into_os_string().into_string() {
        Ok(path) => Ok(Reply::Chosen { path: Some(path) }),
        Err(_) => Err(no("the name of that file cannot be written as text")
            .with_hint("rename it, or write another path into the field")),
    }
}

fn no(message: &str) -> ErrorBody {
    ErrorBody::new(ErrorCode::Internal, message)
}

/// GTK's native dialog: the desktop's own one where there is a portal.
#[cfg(target_os = "linux")]
async fn ask(handle: &AppHandle, what: What) -> Result<Option<PathBuf>, ErrorBody> {
    use gtk::prelude::{FileChooserExt as _, NativeDialogExt as _};
    use gtk::{FileChooserAction, FileChooserNative, ResponseType};

    let (sender, chosen) = tokio::sync::oneshot::channel();
    let parent = handle.clone();
    let show = move || {
        use tauri::Manager as _;
        let window = parent.get_webview_window(crate::window::LABEL);
        let window = window.and_then(|window| window.gtk_window().ok());
        let action = match what {
            What::File => FileChooserAction::Open,
            What::Folder => FileChooserAction::SelectFolder,
        };
        let dialog = FileChooserNative::new(None, window.as_ref(), action, None, None);
        dialog.set_modal(true);
        let sender = std::cell::Cell::new(Some(sender));
        // The dialog lives as long as somebody holds it, and GTK does not.
        let kept = std::cell::RefCell::new(Some(dialog.clone()));
        dialog.connect_response(move |dialog, response| {
            let path = (response == ResponseType::Accept).then(|| dialog.filename()).flatten();
            if let Some(sender) = sender.take() {
                let _ = sender.send(path);
            }
            kept.borrow_mut().take();
        });
        dialog.show();
    };
    let shown = handle.run_on_main_thread(show);
    shown.map_err(|error| no(&format!("the dialog could not be opened: {error}")))?;
    // Without an answer the dialog went with its window.
    Ok(chosen.await.ok().flatten())
}

/// The dialog of Windows or macOS.
#[cfg(not(target_os = "linux"))]
async fn ask(_handle: &AppHandle, what: What) -> Result<Option<PathBuf>, ErrorBody> {
    let dialog = rfd::AsyncFileDialog::new();
    let chosen = match what {
        What::File => dialog.pick_file().await,
        What::Folder => dialog.pick_folder().await,
    };
    Ok(chosen.map(|chosen| chosen.path().to_owned()))
}
