//! A notification of the desktop's own.

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
        let _ = (title, body);
        Err(NotifyError::NoService)
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::HashMap;
    use std::time::Duration;

    use zbus::blocking::connection::Builder;
    use zbus::zvariant::Value;

    use super::NotifyError;

    /// The name under which the desktop lists the program.
    const NAME: &str = "Neurino";
    const ANSWER_LIMIT: Duration = Duration::from_secs(2);
    const SERVICE: &str = "org.freedesktop.Notifications";

    /// Through the freedesktop service, which every desktop has. The body may be read as markup.
    pub(super) fn notify(title: &str, body: &str) -> Result<(), NotifyError> {
        notify_at(Builder::session(), title, body)
    }

    fn notify_at(
        bus: zbus::Result<Builder<'_>>,
        title: &str,
        body: &str,
    ) -> Result<(), NotifyError> {
        let built = bus.and_then(|builder| builder.method_timeout(ANSWER_LIMIT).build());
        let bus = built.map_err(|_| NotifyError::NoService)?;
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

    #[cfg(test)]
    #[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    mod tests {
        use std::io::{BufRead as _, BufReader};
        use std::process::{Child, Command, Stdio};
        use std::sync::{Arc, Mutex};

        use zbus::zvariant::OwnedValue;

        use super::*;

        /// A desktop that notes what it is to show.
        #[derive(Clone, Default)]
        struct Desktop(Arc<Mutex<Vec<[String; 4]>>>);

        #[zbus::interface(name = "org.freedesktop.Notifications")]
        impl Desktop {
            #[expect(clippy::too_many_arguments, reason = "the service has so many")]
            fn notify(
                &self,
                program: String,
                replaces: u32,
                icon: String,
                title: String,
                body: String,
                actions: Vec<String>,
                hints: HashMap<String, OwnedValue>,
                stays_ms: i32,
            ) -> u32 {
                let _ = (replaces, actions, hints, stays_ms);
                self.0.lock().unwrap().push([program, icon, title, body]);
                1
            }
        }

        struct Daemon(Child);

        impl Drop for Daemon {
            fn drop(&mut self) {
                let _ = self.0.kill();
                let _ = self.0.wait();
            }
        }

        #[test]
        fn the_desktop_is_told_and_its_absence_too() {
            let spawned = Command::new("dbus-daemon")
                .args(["--session", "--nofork", "--nopidfile", "--print-address=1"])
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn();
            let Ok(mut daemon) = spawned.map(Daemon) else {
                assert!(std::env::var_os("NEURINO_E2E").is_none(), "dbus-daemon is not installed");
                return;
            };
            let mut address = String::new();
            let said = daemon.0.stdout.take().unwrap();
            BufReader::new(said).read_line(&mut address).unwrap();
            let address = address.trim();
            let tell = || notify_at(Builder::address(address), "Ready", "<b>1 & 2</b>");
            assert_eq!(tell(), Err(NotifyError::NoService));
            let desktop = Desktop::default();
            let bus = Builder::address(address).unwrap().name(SERVICE).unwrap();
            let path = "/org/freedesktop/Notifications";
            let _served = bus.serve_at(path, desktop.clone()).unwrap().build().unwrap();
            assert_eq!(tell(), Ok(()));
            let expect = ["Neurino", "neurino", "Ready", "&lt;b&gt;1 &amp; 2&lt;/b&gt;"];
            assert_eq!(*desktop.0.lock().unwrap(), [expect.map(str::to_owned)]);
        }
    }
}
