//! The way to NATS: encrypted unless it stays on this machine, for ever reconnecting, and with
//! subjects of the network's own.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use super::FabricError;

/// Messages that may wait for the program; beyond that NATS's client drops some, which is noticed.
const WAITING: usize = 65_536;
/// Longest wait between two attempts to reach NATS.
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Where NATS is, and what it asks for. Shown, it tells no password.
#[derive(Clone)]
pub struct FabricAddress {
    /// One or more addresses; they may hold passwords.
    servers: Arc<Vec<SecretString>>,
    login: Login,
    /// Hosts and ports alone.
    shown: String,
    credentials: Option<PathBuf>,
    encrypted: bool,
}

/// What the addresses hold before the host. NATS's client does not read it by itself.
#[derive(Clone)]
enum Login {
    None,
    Token(SecretString),
    Password(String, SecretString),
}

impl Login {
    fn of(server: &ServerAddr) -> Option<Self> {
        let user = plain(server.username()?);
        Some(match server.password() {
            Some(password) => Self::Password(user, plain(password).into()),
            None => Self::Token(user.into()),
        })
    }
}

/// Text of an address, in which `%40` is an at sign.
fn plain(encoded: &str) -> String {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.first_chunk::<2>().filter(|_| *first == b'%');
        let byte = digits.and_then(|digits| hex::decode(digits).ok()?.first().copied());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl FabricAddress {
    /// One or more `nats://…` or `tls://…` addresses with commas between them, and the file of
    /// credentials that NATS's own tools make, if it wants one.
    ///
    /// # Errors
    /// `Address`: it makes no sense, or leads off this machine without encryption.
    pub fn new(addresses: &str, credentials: Option<PathBuf>) -> Result<Self, FabricError> {
        let refused = FabricError::Address;
        let (mut servers, mut shown, mut encrypted) = (Vec::new(), Vec::new(), false);
        let mut login = Login::None;
        for address in addresses.split(',').map(str::trim) {
            let scheme = address.split_once("://").map(|(scheme, _)| scheme);
            if !matches!(scheme, Some("nats" | "tls")) {
                return Err(refused("it must begin with `nats://` or `tls://`"));
            }
            // The cause quotes the address, which may hold a password.
            let server: ServerAddr =
                address.parse().map_err(|_| refused("`tls://HOST:PORT` is expected"))?;
            if server.host().is_empty() {
                return Err(refused("it names no host: `tls://HOST:PORT` is expected"));
            }
            if scheme == Some("tls") {
                encrypted = true;
            } else if !stays_here(server.host()) {
                return Err(refused(
                    "the server is another machine and the way there would not be encrypted; write \
                     `tls://` instead of `nats://`",
                ));
            }
            if let Some(found) = Login::of(&server) {
                login = found;
            }
            shown.push(format!("{}:{}", server.host(), server.port()));
            servers.push(SecretString::from(address));
        }
        let shown = shown.join(", ");
        Ok(Self { servers: Arc::new(servers), login, shown, credentials, encrypted })
    }
}

/// Whether the way to a host does not leave this machine.
fn stays_here(host: &str) -> bool {
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl fmt::Display for FabricAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for FabricAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FabricAddress({self})")
    }
}

/// A connection that comes back by itself.
pub(super) struct Connection {
    pub(super) client: Client,
    /// Rises whenever messages may have been lost on the way: NATS was away, or this program slow.
    pub(super) losses: watch::Receiver<u64>,
}

impl Connection {
    /// Begins to connect, and returns at once.
    pub(super) async fn open(address: &FabricAddress, name: &str) -> Result<Self, FabricError> {
        let (lost, losses) = watch::channel(0);
        let met = AtomicBool::new(false);
        let shown = address.shown.clone();
        let mut options = ConnectOptions::new()
            .name(name)
            .require_tls(address.encrypted)
            .retry_on_initial_connect()
            .subscription_capacity(WAITING)
            // Other servers of a cluster might be told to us without encryption.
            .ignore_discovered_servers()
            .ping_interval(Duration::from_secs(5))
            .connection_timeout(Duration::from_secs(5))
            .reconnect_delay_callback(|tries| {
                let wait = 50u64.saturating_mul(1 << tries.min(10));
                Duration::from_millis(wait).min(BACKOFF_MAX)
            })
            .event_callback(move |event| {
                match &event {
                    Event::Connected => tracing::info!("NATS at {shown} is there"),
                    Event::Disconnected => tracing::warn!("NATS at {shown} is away"),
                    Event::SlowConsumer(_) => {
                        tracing::warn!("messages came faster than they were read");
                    }
                    Event::ServerError(_) | Event::ClientError(_) => {
                        tracing::warn!("NATS at {shown} refuses: {event}");
                    }
                    other => tracing::debug!("NATS: {other}"),
                }
                // Before the first meeting nothing can have been lost: what was said waits for it.
                let lossy = match event {
                    Event::Connected => met.swap(true, Ordering::Relaxed),
                    Event::SlowConsumer(_) => true,
                    _ => false,
                };
                if lossy {
                    lost.send_modify(|n| *n += 1);
                }
                async {}
            });
        options = match &address.login {
            Login::None => options,
            Login::Token(token) => options.token(token.expose_secret().to_owned()),
            Login::Password(user, password) => {
                options.user_and_password(user.clone(), password.expose_secret().to_owned())
            }
        };
        if let Some(path) = &address.credentials {
            let unusable = |source| FabricError::Credentials { path: path.clone(), source };
            let words = std::fs::read_to_string(path).map(SecretString::from).map_err(unusable)?;
            options = options.credentials(words.expose_secret()).map_err(unusable)?;
        }
        let servers: Vec<ServerAddr> =
            address.servers.iter().filter_map(|s| s.expose_secret().parse().ok()).collect();
        let client = options.connect(servers).await.map_err(|error| {
            tracing::debug!(?error, "NATS");
            FabricError::Nats(format!("{} refuses; check address and credentials", address.shown))
        })?;
        Ok(Self { client, losses })
    }
}

/// The subjects of a network.
#[derive(Debug, Clone)]
pub(super) struct Subjects {
    prefix: String,
    /// The coordinator tells who it is.
    pub(super) owner: String,
    /// What gateways tell the coordinator.
    pub(super) link: String,
    /// Requests that make jobs.
    pub(super) submit: String,
    /// The stream that keeps them.
    pub(super) stream: String,
}

impl Subjects {
    /// Any name makes a token of its own.
    pub(super) fn of(network: &str) -> Self {
        let plain = !network.is_empty()
            && network.len() <= 64
            && network.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let token = if plain {
            network.to_owned()
        } else {
            format!("x_{}", hex::encode(&Sha256::digest(network)[..12]))
        };
        let prefix = format!("neurino.{token}");
        Self {
            owner: format!("{prefix}.owner"),
            link: format!("{prefix}.link"),
            submit: format!("{prefix}.job.submit"),
            stream: format!("neurino_{token}_jobs"),
            prefix,
        }
    }

    /// What the coordinator tells one gateway.
    pub(super) fn gateway(&self, id: &str) -> String {
        format!("{}.gw.{id}", self.prefix)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn off_this_machine_only_with_encryption() {
        let at = |address: &str| FabricAddress::new(address, None);
        for here in ["nats://127.0.0.1:4222", "nats://localhost", "nats://[::1]:4222"] {
            assert!(at(here).is_ok(), "{here}");
        }
        assert!(at("tls://a.example:4222,tls://b.example").unwrap().encrypted);
        for bare in ["nats://10.0.0.1:4222", "nats://nats.example", "nats://localhost,nats://a.b"] {
            assert!(at(bare).unwrap_err().to_string().contains("tls://"), "{bare}");
        }
        for odd in ["", "localhost", "http://localhost", "ws://localhost", "nats://", "nats://a b"]
        {
            assert!(at(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn a_password_is_shown_nowhere() {
        let address = FabricAddress::new("nats://anna:hunter2@127.0.0.1:4222", None).unwrap();
        assert_eq!(address.to_string(), "127.0.0.1:4222");
        assert!(!format!("{address} {address:?}").contains("hunter2"));
        let Login::Password(user, password) = address.login else { panic!("a password") };
        assert_eq!((user.as_str(), password.expose_secret()), ("anna", "hunter2"));
        assert_eq!(plain("a%40b%c3%BC%"), "a@bü%");
        for broken in
            ["nats://anna:hunter2@far.example", "http://anna:hunter2@x", "nats://anna:hunter2@:x"]
        {
            let error = FabricAddress::new(broken, None).expect_err(broken);
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
    }

    #[test]
    fn any_network_has_subjects_of_its_own() {
        assert_eq!(Subjects::of("club").link, "neurino.club.link");
        let odd = ["a.b", "a *", ">", "", "a.c"].map(|name| Subjects::of(name).link);
        for (at, subject) in odd.iter().enumerate() {
            assert_eq!(subject.split('.').count(), 3, "{subject}");
            assert!(!odd[..at].contains(subject), "{subject}");
            assert!(!subject.contains(['*', '>', ' ']), "{subject}");
        }
    }
}
