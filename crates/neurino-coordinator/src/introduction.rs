//! Whether a hello is from whom it says, and meant for here: what was signed names where the node
//! connected to, and tokens stand in for the identity key for a while.

use std::net::IpAddr;

use hmac::{Hmac, Mac};
use neurino_core::NodeId;
use neurino_protocol::node::{Hello, LOCAL_ORIGIN, SessionToken};
use neurino_protocol::{ErrorBody, ErrorCode};
use neurino_wallet::{IdentityKey, verify};
use sha2::{Digest as _, Sha256};

/// How long a token is good, in milliseconds.
const TOKEN_LIFE_MS: i64 = 3600 * 1000;

/// Makes tokens, and reads them; the same after a restart and in every process with the key.
pub(crate) struct Tokens([u8; 32]);

impl Tokens {
    pub(crate) fn of(key: &IdentityKey, network: &str) -> Self {
        let signature = key.sign(&format!("neurino session tokens v1\nnetwork: {network}"));
        Self(Sha256::digest(signature).into())
    }

    /// For a hello that the identity key signed.
    pub(crate) fn issue(&self, hello: &Hello, now_ms: i64) -> SessionToken {
        let until_ms = now_ms.saturating_add(TOKEN_LIFE_MS);
        let mark = self.mac(&hello.node, &hello.device, until_ms).finalize().into_bytes();
        let token = format!("{until_ms}.{}", hex::encode(mark));
        SessionToken { token, secs: TOKEN_LIFE_MS.unsigned_abs() / 1000 }
    }

    /// Whether a token is good for a hello's node and device.
    fn check(&self, hello: &Hello, token: &str, now_ms: i64) -> Result<(), ErrorBody> {
        let refused = |message: &str| {
            ErrorBody::new(ErrorCode::Unauthorized, message)
                .with_hint("send a hello that the identity key signs")
        };
        let read = token
            .split_once('.')
            .and_then(|(until, mark)| Some((until.parse::<i64>().ok()?, hex::decode(mark).ok()?)));
        let Some((until_ms, mark)) = read else {
            return Err(refused("the session's token is malformed"));
        };
        let mac = self.mac(&hello.node, &hello.device, until_ms);
        if mac.verify_slice(&mark).is_err() {
            return Err(refused("the session's token is not of this node and device"));
        }
        if until_ms <= now_ms {
            return Err(refused("the session's token is over"));
        }
        Ok(())
    }

    fn mac(&self, node: &NodeId, device: &str, until_ms: i64) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("a key of any length fits");
        mac.update(format!("{node}\n{device}\n{until_ms}").as_bytes());
        mac
    }
}

/// Refuses a hello whose device did not sign it, or whose node did not unless it has a token. `address`
/// is the one that the node's id starts with.
pub(crate) fn check_signatures(
    network: &str,
    hello: &Hello,
    address: &str,
) -> Result<(), ErrorBody> {
    let message = hello.message(network);
    let refused = |whose: &str| ErrorBody::new(ErrorCode::BadSignature, whose);
    verify(&message, &hello.device_signature, &hello.device)
        .map_err(|_| refused("the hello is not signed by the device's key that it names"))?;
    if hello.token.is_none() {
        verify(&message, &hello.signature, address)
            .map_err(|_| refused("the hello is not signed by the key that the node id names"))?;
    }
    Ok(())
}

/// Refuses a token that is not of this network, node and device, or is over.
pub(crate) fn check_token(tokens: &Tokens, hello: &Hello, now_ms: i64) -> Result<(), ErrorBody> {
    hello.token.as_deref().map_or(Ok(()), |token| tokens.check(hello, token, now_ms))
}

/// Refuses a hello that was signed for another coordinator, which passed this one's challenge on.
/// `own` is the address of this one's key, `names` are the origins it goes by besides those of this
/// machine. A gateway holds no key, so a hello through one names none.
pub(crate) fn check_meant_for(
    hello: &Hello,
    own: &str,
    names: &[String],
    through_gateway: bool,
) -> Result<(), ErrorBody> {
    let keyless = through_gateway && hello.coordinator.is_empty();
    if !keyless && hello.coordinator != own {
        let message = "the hello is signed for a coordinator with another key";
        return Err(ErrorBody::new(ErrorCode::BadSignature, message)
            .with_hint("ask for a challenge here and sign what it names"));
    }
    let origin = hello.origin.as_str();
    if is_here(origin) || names.iter().any(|name| name == origin) {
        return Ok(());
    }
    let shown: String = origin.chars().filter(|c| !c.is_control()).take(200).collect();
    let message =
        format!("the hello is signed for `{shown}`, and this coordinator has another name");
    Err(ErrorBody::new(ErrorCode::BadSignature, message).with_hint(
        "connect under its own address; whoever runs it tells it that with `--known-as`",
    ))
}

/// Whether an origin is on the machine that wrote it. Nobody elsewhere has a node connect to it.
fn is_here(origin: &str) -> bool {
    if origin == LOCAL_ORIGIN {
        return true;
    }
    let rest = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    let Some(rest) = rest else { return false };
    let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (host, port),
        None => rest.split_at(rest.find(':').unwrap_or(rest.len())),
    };
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    if !port.is_empty() && !port.strip_prefix(':').is_some_and(is_port) {
        return false;
    }
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// An origin as nodes sign it: scheme, host, and the port unless it is the usual one.
///
/// # Errors
/// What is wrong with it.
pub fn check_known_as(origin: &str) -> Result<(), &'static str> {
    let host = origin.strip_prefix("https://").ok_or("it must start with https://")?;
    if host.is_empty() || host.contains(['/', '?', '#', '@', ' ']) {
        return Err("it must end with its host or port, without `/`");
    }
    if host.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("it must be in small letters");
    }
    if host.ends_with(":443") {
        return Err("the port 443 must be left out");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use neurino_protocol::node::{Capabilities, PROTOCOL_VERSION};

    use super::*;

    fn hello(origin: &str, node: &IdentityKey, device: &IdentityKey) -> Hello {
        let capabilities =
            Capabilities { device: "t".into(), memory_bytes: 0, gpu: false, referred_by: None };
        let mut hello = Hello {
            version: PROTOCOL_VERSION,
            origin: origin.into(),
            coordinator: "0xaa".into(),
            device: device.address(),
            device_signature: String::new(),
            token: None,
            node: NodeId::new(node.address()).expect("an address is an id"),
            nonce: "n".into(),
            signature: String::new(),
            agent: "t".into(),
            capabilities,
        };
        let message = hello.message("net");
        hello.signature = node.sign(&message);
        hello.device_signature = device.sign(&message);
        hello
    }

    fn key() -> IdentityKey {
        IdentityKey::generate(&mut rand::rng())
    }

    #[test]
    fn a_hello_is_good_where_it_was_meant_for() {
        let (node, device) = (key(), key());
        let names = ["https://pool.example".to_owned(), "https://pool.example:8443".to_owned()];
        let meant = |origin: &str, own: &str, gateway: bool| {
            check_meant_for(&hello(origin, &node, &device), own, &names, gateway).is_ok()
        };
        let here = ["local", "http://127.0.0.1:80", "http://[::1]:1", "http://localhost"];
        for good in here.iter().chain(&["https://pool.example", "https://pool.example:8443"]) {
            assert!(meant(good, "0xaa", false), "{good}");
            assert!(!meant(good, "0xbb", false), "{good}: another key");
        }
        for bad in [
            "",
            "https://hostile.example",
            "http://pool.example",
            "https://pool.example:1",
            "https://pool.example.hostile.example",
            "http://127.0.0.1.hostile.example",
            "http://localhost.hostile.example",
            "Local",
            // What follows would be read as other lines of what was signed.
            "http://localhost:1\norigin: https://hostile.example",
            "http://localhost:",
            "http://[::1]x",
            "http://[::1]:1:2",
        ] {
            assert!(!meant(bad, "0xaa", false), "{bad}");
            assert!(!meant(bad, "0xaa", true), "{bad}");
        }
        let keyless = Hello { coordinator: String::new(), ..hello("local", &node, &device) };
        assert!(check_meant_for(&keyless, "0xaa", &names, true).is_ok());
        assert!(check_meant_for(&keyless, "0xaa", &names, false).is_err());
    }

    #[test]
    fn what_was_signed_cannot_be_said_elsewhere() {
        let (node, device) = (key(), key());
        let good = hello("https://a.example", &node, &device);
        let check = |hello: &Hello| check_signatures("net", hello, &node.address());
        assert!(check(&good).is_ok());
        assert!(check_signatures("other", &good, &node.address()).is_err());
        let moved = "https://b.example".to_owned();
        assert!(check(&Hello { origin: moved, ..good.clone() }).is_err());
        assert!(check(&Hello { coordinator: "0xbb".into(), ..good.clone() }).is_err());
        assert!(check(&Hello { device: key().address(), ..good.clone() }).is_err());
        assert!(check(&Hello { nonce: "m".into(), ..good.clone() }).is_err());
        assert!(check(&Hello { device_signature: String::new(), ..good.clone() }).is_err());
        assert!(check(&Hello { signature: String::new(), ..good }).is_err());
    }

    #[test]
    fn a_token_is_of_one_node_and_device_for_an_hour() {
        let (node, device) = (key(), key());
        let tokens = Tokens::of(&key(), "net");
        let mut hello = hello("local", &node, &device);
        hello.token = Some(tokens.issue(&hello, 1_000).token);
        let code = |hello: &Hello, now_ms| check_token(&tokens, hello, now_ms).map_err(|e| e.code);
        assert_eq!(code(&hello, 1_000), Ok(()));
        assert_eq!(code(&hello, 999 + TOKEN_LIFE_MS), Ok(()));
        assert_eq!(code(&hello, 1_000 + TOKEN_LIFE_MS), Err(ErrorCode::Unauthorized));
        let other = Hello { device: key().address(), ..hello.clone() };
        assert_eq!(code(&other, 1_000), Err(ErrorCode::Unauthorized));
        let node = NodeId::new(key().address()).expect("valid");
        assert_eq!(code(&Hello { node, ..hello.clone() }, 1_000), Err(ErrorCode::Unauthorized));
        for forged in ["", ".", "9999999999999.", "9999999999999.00", "x.00", "é.é"] {
            let forged = Hello { token: Some(forged.into()), ..hello.clone() };
            assert_eq!(code(&forged, 1_000), Err(ErrorCode::Unauthorized));
        }
    }

    #[test]
    fn names_are_written_as_nodes_sign_them() {
        for good in ["https://pool.example", "https://pool.example:8443", "https://[2001:db8::1]"] {
            assert_eq!(check_known_as(good), Ok(()), "{good}");
        }
        for bad in [
            "pool.example",
            "http://pool.example",
            "https://",
            "https://pool.example/",
            "https://Pool.example",
            "https://pool.example:443",
            "https://me@pool.example",
        ] {
            assert!(check_known_as(bad).is_err(), "{bad}");
        }
    }
}
