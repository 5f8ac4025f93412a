//! What services on D-Bus tell: GNOME's idle time, NetworkManager's metered networks, and logind's word on
//! who sits at the machine.

use std::time::{Duration, Instant};

use zbus::blocking::Connection;
use zbus::blocking::connection::Builder;
use zbus::zvariant::{OwnedObjectPath, OwnedValue, Value};

const LOGIN: &str = "org.freedesktop.login1";
const SEAT0: &str = "/org/freedesktop/login1/seat/seat0";
/// A service that does not answer by then does not know.
const ANSWER_LIMIT: Duration = Duration::from_millis(400);
/// Who did not answer is left alone so long, and twice as long with every further time.
const PAUSE_LEAST: Duration = Duration::from_secs(1);
/// But never longer: a service may start later, and a busy one gets over it.
const PAUSE_MOST: Duration = Duration::from_mins(1);

/// The services, each with a connection of its own.
pub(crate) struct Bus {
    idle: Service,
    network: Service,
    seat: Service,
}

impl Default for Bus {
    fn default() -> Self {
        let system = || Service::on(Which::System);
        Self { idle: Service::on(Which::Session), network: system(), seat: system() }
    }
}

impl Bus {
    /// Seconds since the last input, where GNOME's compositor runs.
    pub(crate) fn idle_secs(&mut self, now: Instant) -> Option<u32> {
        let idle_ms = self.idle.ask(now, |bus| {
            let service = Some("org.gnome.Mutter.IdleMonitor");
            let path = "/org/gnome/Mutter/IdleMonitor/Core";
            bus.call_method(service, path, service, "GetIdletime", &())?.body().deserialize::<u64>()
        });
        u32::try_from(idle_ms? / 1000).ok()
    }

    /// Whether another person's session is the one in front.
    pub(crate) fn other_user(&mut self, now: Instant) -> Option<bool> {
        self.seat.ask(now, other_user)
    }

    /// Whether the network is metered: 1 and 3 mean yes and probably yes, 2 and 4 no.
    pub(crate) fn metered(&mut self, now: Instant) -> Option<bool> {
        let value = self.network.ask(now, |bus| {
            let service = "org.freedesktop.NetworkManager";
            property(bus, service, "/org/freedesktop/NetworkManager", service, "Metered")
        });
        match u32::try_from(value?).ok()? {
            1 | 3 => Some(true),
            2 | 4 => Some(false),
            _ => None,
        }
    }
}

/// A property of a service's object.
fn property(
    bus: &Connection,
    service: &str,
    path: &str,
    interface: &str,
    name: &str,
) -> zbus::Result<OwnedValue> {
    let properties = Some("org.freedesktop.DBus.Properties");
    let reply = bus.call_method(Some(service), path, properties, "Get", &(interface, name))?;
    reply.body().deserialize()
}

/// Whether the session in front is another person's, as logind tells. Nobody's are those that show who may
/// sign in, as some desktops do while the screen is locked.
fn other_user(bus: &Connection) -> zbus::Result<bool> {
    let get = |path: &str, what: &str, name: &str| {
        let interface = format!("{LOGIN}.{what}");
        property(bus, LOGIN, path, &interface, name).map(Value::from)
    };
    // This program's session, or the one that its person sees where it is in none.
    let own = "/org/freedesktop/login1/session/auto";
    let user = |path: &str| -> zbus::Result<u32> {
        let (id, _) = <(u32, OwnedObjectPath)>::try_from(get(path, "Session", "User")?)?;
        Ok(id)
    };
    let (_, seat) = <(String, OwnedObjectPath)>::try_from(get(own, "Session", "Seat")?)?;
    // A session from afar has no seat; who is at the machine counts for it, too.
    let seat = if seat.as_str() == "/" { SEAT0 } else { seat.as_str() };
    let active = get(seat, "Seat", "ActiveSession")?;
    let (name, active) = <(String, OwnedObjectPath)>::try_from(active)?;
    if name.is_empty() || user(own)? == user(active.as_str())? {
        return Ok(false);
    }
    let class = String::try_from(get(active.as_str(), "Session", "Class")?)?;
    Ok(class.starts_with("user"))
}

/// A bus.
enum Which {
    Session,
    System,
    /// The one of a test.
    #[cfg(test)]
    At(String),
}

/// A service that is asked again and again, and seldom while it does not answer.
struct Service {
    which: Which,
    connection: Option<Connection>,
    /// The pause after the next failure.
    pause: Duration,
    /// Not before then.
    again_at: Option<Instant>,
}

impl Service {
    fn on(which: Which) -> Self {
        Self { which, connection: None, pause: PAUSE_LEAST, again_at: None }
    }

    fn ask<T>(
        &mut self,
        now: Instant,
        question: impl FnOnce(&Connection) -> zbus::Result<T>,
    ) -> Option<T> {
        if self.again_at.is_some_and(|at| now < at) {
            return None;
        }
        let answer = self.connected().and_then(question);
        match answer {
            Ok(answer) => {
                (self.pause, self.again_at) = (PAUSE_LEAST, None);
                Some(answer)
            }
            Err(error) => {
                // A service that says no is there; else the bus may have gone.
                if !matches!(error, zbus::Error::MethodError(..)) {
                    self.connection = None;
                }
                self.again_at = Some(now + self.pause);
                self.pause = (self.pause * 2).min(PAUSE_MOST);
                None
            }
        }
    }

    fn connected(&mut self) -> zbus::Result<&Connection> {
        let connection = if let Some(connection) = self.connection.take() {
            connection
        } else {
            let builder = match &self.which {
                Which::Session => Builder::session(),
                Which::System => Builder::system(),
                #[cfg(test)]
                Which::At(address) => Builder::address(address.as_str()),
            };
            builder?.method_timeout(ANSWER_LIMIT).build()?
        };
        Ok(self.connection.insert(connection))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::private_bus::{self, Daemon};

    /// GNOME's service, which is late with its first answers.
    struct Idle {
        asked: Arc<AtomicU32>,
        late: u32,
    }

    #[zbus::interface(name = "org.gnome.Mutter.IdleMonitor")]
    impl Idle {
        fn get_idletime(&self) -> u64 {
            if self.asked.fetch_add(1, Ordering::Relaxed) < self.late {
                std::thread::sleep(ANSWER_LIMIT + Duration::from_millis(300));
            }
            5_000
        }
    }

    fn gnome(daemon: &Daemon, asked: &Arc<AtomicU32>, late: u32) -> Connection {
        let builder = Builder::address(daemon.address()).unwrap();
        let builder = builder.name("org.gnome.Mutter.IdleMonitor").unwrap();
        let idle = Idle { asked: asked.clone(), late };
        builder.serve_at("/org/gnome/Mutter/IdleMonitor/Core", idle).unwrap().build().unwrap()
    }

    fn asking(address: &str) -> Bus {
        let service = || Service::on(Which::At(address.to_owned()));
        Bus { idle: service(), network: service(), seat: service() }
    }

    /// A session as logind shows it.
    struct Session {
        uid: u32,
        class: &'static str,
    }

    #[zbus::interface(name = "org.freedesktop.login1.Session")]
    impl Session {
        #[zbus(property)]
        fn user(&self) -> (u32, OwnedObjectPath) {
            (self.uid, OwnedObjectPath::try_from("/org/freedesktop/login1/user/_1").unwrap())
        }

        #[zbus(property)]
        fn class(&self) -> &str {
            self.class
        }

        #[zbus(property)]
        #[expect(clippy::unused_self, reason = "a property of an object")]
        fn seat(&self) -> (String, OwnedObjectPath) {
            ("seat0".into(), OwnedObjectPath::try_from(SEAT0).unwrap())
        }
    }

    struct Seat(&'static str);

    #[zbus::interface(name = "org.freedesktop.login1.Seat")]
    impl Seat {
        #[zbus(property)]
        fn active_session(&self) -> (String, OwnedObjectPath) {
            let path = format!("/org/freedesktop/login1/session/{}", self.0);
            (self.0.to_owned(), OwnedObjectPath::try_from(path).unwrap())
        }
    }

    #[test]
    fn another_persons_session_in_front_is_told_and_a_greeter_is_nobody() {
        for (active, expect) in [("own", false), ("child", true), ("greeter", false)] {
            let Some(daemon) = private_bus::start(None) else { return };
            let at = |name: &str| format!("/org/freedesktop/login1/session/{name}");
            let session = |uid, class| Session { uid, class };
            let builder = Builder::address(daemon.address()).unwrap().name(LOGIN).unwrap();
            let _login = builder
                .serve_at(at("auto"), session(1000, "user"))
                .and_then(|b| b.serve_at(at("own"), session(1000, "user")))
                .and_then(|b| b.serve_at(at("child"), session(1001, "user")))
                .and_then(|b| b.serve_at(at("greeter"), session(42, "greeter")))
                .and_then(|b| b.serve_at(SEAT0, Seat(active)))
                .and_then(Builder::build)
                .unwrap();
            let mut bus = asking(daemon.address());
            assert_eq!(bus.other_user(Instant::now()), Some(expect), "{active}");
        }
    }

    #[test]
    fn a_late_answer_is_asked_for_again_after_a_pause() {
        let Some(daemon) = private_bus::start(None) else { return };
        let asked = Arc::new(AtomicU32::default());
        let _served = gnome(&daemon, &asked, 1);
        let (mut bus, begin) = (asking(daemon.address()), Instant::now());
        assert_eq!(bus.idle_secs(begin), None, "too late");
        assert_eq!(bus.idle_secs(begin + PAUSE_LEAST / 2), None, "not asked");
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        // The service is busy with the first question for a moment more.
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(bus.idle_secs(begin + PAUSE_LEAST), Some(5));
        assert_eq!(bus.idle_secs(begin + PAUSE_LEAST), Some(5), "no pause after an answer");
    }

    #[test]
    fn a_bus_and_a_service_that_come_later_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let address = format!("unix:path={}", folder.path().join("bus").display());
        let (mut bus, mut now) = (asking(&address), Instant::now());
        for _ in 0..10 {
            assert_eq!((bus.idle_secs(now), bus.metered(now)), (None, None));
            now += PAUSE_MOST;
        }
        let Some(daemon) = private_bus::start(Some(&address)) else { return };
        assert_eq!(bus.idle_secs(now), None, "the bus is there, the service is not");
        let _served = gnome(&daemon, &Arc::default(), 0);
        assert_eq!(bus.idle_secs(now + PAUSE_MOST), Some(5));
    }
}
