//! What services on D-Bus tell: GNOME's idle time, and NetworkManager's metered networks.

use std::cell::OnceCell;
use std::time::Duration;

use zbus::blocking::Connection;
use zbus::blocking::connection::Builder;
use zbus::zvariant::OwnedValue;

/// A service that does not answer by then does not know.
const ANSWER_LIMIT: Duration = Duration::from_millis(400);

/// Connections to the two buses, made when first needed; a bus that is not there is not asked
/// again.
#[derive(Default)]
pub(crate) struct Bus {
    session: OnceCell<Option<Connection>>,
    system: OnceCell<Option<Connection>>,
    /// GNOME's service is not there.
    no_idle: bool,
}

impl Bus {
    /// Seconds since the last input, where GNOME's compositor runs.
    pub(crate) fn idle_secs(&mut self) -> Option<u32> {
        if self.no_idle {
            return None;
        }
        let session = self.session.get_or_init(|| connect(Builder::session()));
        let idle_ms = session.as_ref().and_then(|bus| {
            let service = Some("org.gnome.Mutter.IdleMonitor");
            let reply = bus.call_method(
                service,
                "/org/gnome/Mutter/IdleMonitor/Core",
                service,
                "GetIdletime",
                &(),
            );
            reply.ok()?.body().deserialize::<u64>().ok()
        });
        self.no_idle = idle_ms.is_none();
        u32::try_from(idle_ms? / 1000).ok()
    }

    /// Whether the network is metered: 1 and 3 mean yes and probably yes, 2 and 4 no.
    pub(crate) fn metered(&mut self) -> Option<bool> {
        let system = self.system.get_or_init(|| connect(Builder::system())).as_ref()?;
        let service = "org.freedesktop.NetworkManager";
        let reply = system.call_method(
            Some(service),
            "/org/freedesktop/NetworkManager",
            Some("org.freedesktop.DBus.Properties"),
            "Get",
            &(service, "Metered"),
        );
        let value: OwnedValue = reply.ok()?.body().deserialize().ok()?;
        match u32::try_from(value).ok()? {
            1 | 3 => Some(true),
            2 | 4 => Some(false),
            _ => None,
        }
    }
}

fn connect(builder: zbus::Result<Builder<'_>>) -> Option<Connection> {
    builder.ok()?.method_timeout(ANSWER_LIMIT).build().ok()
}
