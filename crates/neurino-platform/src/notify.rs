//! A notification of the desktop's own.

/// The name under which the desktop lists the program.
const NAME: &str = "Neurino";

/// Why the desktop shows none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotifyError {
    /// There is nobody who shows notifications.
    #[error("nothing on this desktop shows notifications")]
    NoService,
    /// The desktop refused.
    #[error("the desktop refuses: {0}")]
    Refused(String),
}

/// Shows a notification. Takes milliseconds, and a second where the desktop hangs: keep it off async
/// threads.
///
/// # Errors
/// [`NotifyError`].
pub fn notify(title: &str, body: &str) -> Result<(), NotifyError> {
    #[cfg(target_os = "linux")]
    return linux::notify(title, body);
    #[cfg(windows)]
    return crate::windows_notify::notify(title, body);
    #[cfg(not(any(target_os = "linux", windows)))]
    {
        let _ = (NAME, title, body);
        Err(NotifyError::NoService)
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::HashMap;
    use std::time::Duration;

    use zbus::blocking::connection::Builder;
    use zbus::zvariant::Value;

    use super::{NAME, NotifyError};

    const ANSWER_LIMIT: Duration = Duration::from_secs(2);
    const SERVICE: &str = "org.freedesktop.Notifications";

    /// Through the freedesktop service, which every desktop has. The body may be read as markup.
    pub(super) fn notify(title: &str, body: &str) -> Result<(), NotifyError> {
        let builder = Builder::session().map_err(|_| NotifyError::NoService)?;
        let bus = builder
            .method_timeout(ANSWER_LIMIT)
            .build()
            .map_err(|_| NotifyError::NoService)?;
        let body = body.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let hints = HashMap::from([("desktop-entry", Value::from("neurino"))]);
        let nothing: &[&str] = &[];
        // The desktop decides how long it stays.
        let said = (NAME, 0_u32, "neurino", title, body.as_str(), nothing, hints, -1_i32);
        let path = "/org/freedesktop/Notifications";
        match bus.call_method(Some(SERVICE), path, Some(SERVICE), "Notify", &said) {
            Ok(_) => Ok(()),
            Err(zbus::Error::MethodError(name, _, _))
                if name.ends_with("ServiceUnknown") || name.ends_with("NameHasNoOwner") =>
            {
                Err(NotifyError::NoService)
            }
            Err(error) => Err(NotifyError::Refused(error.to_string())),
        }
    }
}
