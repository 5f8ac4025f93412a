//! Linux: logind's inhibitor lock against sleep. The lock is a file descriptor, so that it ends with
//! the process whatever happens. Closing the lid and "Suspend" in the menu stay the person's.

use std::time::Duration;

use zbus::blocking::Connection;
use zbus::blocking::connection::Builder;
use zbus::zvariant::OwnedFd;

use crate::awake::{Awake, AwakeError};

const SERVICE: &str = "org.freedesktop.login1";
/// A service that does not answer by then is not there.
const ANSWER_LIMIT: Duration = Duration::from_millis(500);

/// logind, reached when first needed.
pub(crate) struct Logind {
    /// The address of the bus; the system's if absent.
    address: Option<String>,
    bus: Option<Connection>,
    lock: Option<OwnedFd>,
}

impl Logind {
    /// The one of this system.
    pub(crate) fn system() -> Self {
        Self { address: None, bus: None, lock: None }
    }

    fn connect(&self) -> zbus::Result<Connection> {
        let builder = match &self.address {
            Some(address) => Builder::address(address.as_str())?,
            None => Builder::system()?,
        };
        builder.method_timeout(ANSWER_LIMIT).build()
    }
}

impl Awake for Logind {
    fn hold(&mut self, why: &str) -> Result<(), AwakeError> {
        if self.lock.is_some() {
            return Ok(());
        }
        if self.bus.is_none() {
            self.bus = Some(self.connect().map_err(|_| AwakeError::NoService)?);
        }
        let bus = self.bus.as_ref().ok_or(AwakeError::NoService)?;
        // "sleep" leaves the screen alone; "block" holds until the lock is closed.
        let lock = ask(bus, ("sleep", "Neurino", why, "block"));
        if matches!(lock, Err(AwakeError::NoService)) {
            // The bus may have been restarted.
            self.bus = None;
        }
        self.lock = Some(lock?);
        Ok(())
    }

    fn release(&mut self) {
        self.lock = None;
    }
}

fn ask(bus: &Connection, request: (&str, &str, &str, &str)) -> Result<OwnedFd, AwakeError> {
    let manager = Some("org.freedesktop.login1.Manager");
    let path = "/org/freedesktop/login1";
    let reply = bus.call_method(Some(SERVICE), path, manager, "Inhibit", &request);
    let reply = reply.map_err(|error| match error {
        zbus::Error::MethodError(name, message, _)
            if !name.ends_with("ServiceUnknown") && !name.ends_with("NameHasNoOwner") =>
        {
            AwakeError::Refused(message.unwrap_or_else(|| name.to_string()))
        }
        _ => AwakeError::NoService,
    })?;
    reply.body().deserialize().map_err(|error| AwakeError::Refused(error.to_string()))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::private_bus::{self, Daemon};

    /// A logind that notes what it is asked for, and keeps the other end of each lock.
    #[derive(Clone, Default)]
    struct Fake {
        asked: Arc<Mutex<Vec<[String; 4]>>>,
        ends: Arc<Mutex<Vec<UnixStream>>>,
        refuses: bool,
    }

    #[zbus::interface(name = "org.freedesktop.login1.Manager")]
    impl Fake {
        fn inhibit(
            &self,
            what: String,
            who: String,
            why: String,
            mode: String,
        ) -> zbus::fdo::Result<OwnedFd> {
            if self.refuses {
                return Err(zbus::fdo::Error::AccessDenied("no session".into()));
            }
            self.asked.lock().unwrap().push([what, who, why, mode]);
            let (ours, theirs) = UnixStream::pair().unwrap();
            self.ends.lock().unwrap().push(ours);
            Ok(std::os::fd::OwnedFd::from(theirs).into())
        }
    }

    /// The fake on a bus, and who asks it.
    fn logind(daemon: &Daemon, fake: Fake) -> (Logind, Connection) {
        let bus = Builder::address(daemon.address()).unwrap().name(SERVICE).unwrap();
        let served = bus.serve_at("/org/freedesktop/login1", fake).unwrap().build().unwrap();
        (Logind { address: Some(daemon.address().to_owned()), ..Logind::system() }, served)
    }

    /// Whether the other end of the lock sees it closed.
    fn is_closed(end: &UnixStream) -> bool {
        end.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let mut end = end;
        matches!(end.read(&mut [0]), Ok(0))
    }

    #[test]
    fn a_hold_is_one_lock_against_sleep_and_a_release_closes_it() {
        let fake = Fake::default();
        let Some(daemon) = private_bus::start(None) else { return };
        let (mut logind, _served) = logind(&daemon, fake.clone());
        logind.hold("jobs are running").unwrap();
        logind.hold("jobs are running").unwrap();
        let expect = ["sleep", "Neurino", "jobs are running", "block"].map(str::to_owned);
        assert_eq!(*fake.asked.lock().unwrap(), [expect]);
        let first = fake.ends.lock().unwrap().remove(0);
        assert!(!is_closed(&first));
        logind.release();
        assert!(is_closed(&first), "the computer may sleep");
        logind.release();
        logind.hold("again").unwrap();
        let second = fake.ends.lock().unwrap().remove(0);
        drop(logind);
        assert!(is_closed(&second), "what is dropped holds nothing");
    }

    #[test]
    fn a_refusal_and_a_missing_service_are_told_apart() {
        let Some(daemon) = private_bus::start(None) else { return };
        let nobody =
            Logind { address: Some(daemon.address().to_owned()), ..Logind::system() }.hold("x");
        assert_eq!(nobody, Err(AwakeError::NoService));
        let (mut logind, _served) = logind(&daemon, Fake { refuses: true, ..Fake::default() });
        let refused = logind.hold("x").unwrap_err();
        assert_eq!(refused, AwakeError::Refused("no session".into()));
        drop(daemon);
        assert_eq!(logind.hold("x"), Err(AwakeError::NoService));
        let nowhere = Some("unix:path=/nowhere/bus".to_owned());
        let mut nowhere = Logind { address: nowhere, ..Logind::system() };
        assert_eq!(nowhere.hold("x"), Err(AwakeError::NoService));
    }
}
