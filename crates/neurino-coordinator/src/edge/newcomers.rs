//! How many sessions an address of the internet may open.
//!
//! Keys cost nothing, so a limit by key alone stops nobody from taking all the room that there is. Who
//! connects from this machine or its private network is not counted: there is the proxy that encrypts for
//! all of them, unless it says in a header that whoever runs the network named whom it speaks for.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::HeaderMap;
use neurino_protocol::{ErrorBody, ErrorCode};
use tokio::time::Instant;

/// The time in which so many may come.
const WINDOW: Duration = Duration::from_mins(1);
/// Addresses that are remembered at once. With more of them in a minute, all share what is left.
const ADDRESSES_MAX: usize = 65_536;

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// The sessions that addresses opened in the last minute, or what else of theirs is counted.
#[derive(Default)]
pub(crate) struct Newcomers(Mutex<HashMap<IpAddr, (Instant, u32)>>);

impl Newcomers {
    /// Counts one more session of an address.
    ///
    /// # Errors
    /// `RateLimited`.
    pub(crate) fn enter(&self, from: Option<IpAddr>, most: u32) -> Result<(), ErrorBody> {
        self.count(from, most, "this address opened many sessions in the last minute")
    }

    /// Counts one more of whatever is counted here. `words` say of what there were too many.
    ///
    /// # Errors
    /// `RateLimited`.
    pub(crate) fn count(
        &self,
        from: Option<IpAddr>,
        most: u32,
        words: &str,
    ) -> Result<(), ErrorBody> {
        let Some(from) = from.filter(|from| !from.is_loopback()) else { return Ok(()) };
        let now = Instant::now();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= ADDRESSES_MAX {
            all.retain(|_, (since, _)| now.duration_since(*since) < WINDOW);
        }
        let known = all.len() < ADDRESSES_MAX || all.contains_key(&from);
        let place = if known { from } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
        let (since, count) = all.entry(place).or_insert((now, 0));
        if now.duration_since(*since) >= WINDOW {
            (*since, *count) = (now, 0);
        }
        if *count >= most {
            return Err(too_many(words));
        }
        *count += 1;
        Ok(())
    }

    /// Whether one more would be too many.
    ///
    /// # Errors
    /// `RateLimited`.
    pub(crate) fn check(
        &self,
        from: Option<IpAddr>,
        most: u32,
        words: &str,
    ) -> Result<(), ErrorBody> {
        let Some(from) = from.filter(|from| !from.is_loopback()) else { return Ok(()) };
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |place: &IpAddr| {
            let counted = all.get(place);
            counted.is_some_and(|(since, count)| since.elapsed() < WINDOW && *count >= most)
        };
        // One that is not remembered for itself shares a place.
        let shared = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let is_full = full(&from) || (!all.contains_key(&from) && full(&shared));
        if is_full { Err(too_many(words)) } else { Ok(()) }
    }
}

fn too_many(words: &str) -> ErrorBody {
    ErrorBody::new(ErrorCode::RateLimited, words).with_hint("try again in a minute")
}

/// The address that a request comes from: the connection's, or if that is a proxy on this machine or in
/// its private network, what the trusted header says last, which is what the proxy itself saw. `None` for
/// such a proxy that does not say it.
pub(crate) fn address_of(
    peer: Option<Peer>,
    headers: &HeaderMap,
    trusted: Option<&str>,
) -> Option<IpAddr> {
    let Peer(peer) = peer?;
    let near = is_near(peer);
    let said = trusted.filter(|_| near).and_then(|name| {
        let last = headers.get_all(name).iter().next_back()?.to_str().ok()?;
        last.rsplit(',').next()?.trim().parse::<IpAddr>().ok()
    });
    if near && said.is_none() {
        // A proxy that does not say for whom it asks: counted as one, all of them would share a limit.
        return None;
    }
    Some(network_of(said.unwrap_or(peer)))
}

/// Whether an address is of this machine or of a private network.
fn is_near(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(four) => four.is_loopback() || four.is_private(),
        IpAddr::V6(six) => six.is_loopback() || six.is_unique_local(),
    }
}

fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        // Whoever has one address of such a network has all of them.
        IpAddr::V6(six) if !six.is_loopback() => {
            IpAddr::V6(Ipv6Addr::from_bits(six.to_bits() & !u128::from(u64::MAX)))
        }
        other => other,
    }
}

/// What an address of the internet is counted as; none for one of this machine or of its private network.
pub(super) fn far_network(address: IpAddr) -> Option<IpAddr> {
    (!is_near(address)).then(|| network_of(address))
}

/// What machines of one line, one house or one rented rack have in common: the first 24 bits of an address,
/// of a longer one 48.
pub(crate) fn neighbourhood_of(network: IpAddr) -> IpAddr {
    match network.to_canonical() {
        IpAddr::V4(four) => IpAddr::V4(Ipv4Addr::from_bits(four.to_bits() & !0xff)),
        IpAddr::V6(six) => IpAddr::V6(Ipv6Addr::from_bits(six.to_bits() & !(u128::MAX >> 48))),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn an_address_opens_so_many_sessions_a_minute_and_others_are_not_hindered() {
        let newcomers = Newcomers::default();
        let of = |from: &str| newcomers.enter(Some(from.parse().unwrap()), 10).map_err(|e| e.code);
        for _ in 0..10 {
            assert_eq!(of("203.0.113.7"), Ok(()));
        }
        assert_eq!(of("203.0.113.7"), Err(ErrorCode::RateLimited));
        assert_eq!(of("203.0.113.8"), Ok(()));
        for _ in 0..100 {
            assert_eq!(of("127.0.0.1"), Ok(()), "this machine");
            assert!(newcomers.enter(None, 10).is_ok(), "in process");
        }
    }

    #[test]
    fn only_a_near_proxy_is_believed_and_only_its_own_word() {
        let seen = |peer: &str, said: &[&str], trusted: Option<&str>| {
            let mut headers = HeaderMap::new();
            for said in said {
                headers.append("x-forwarded-for", said.parse().unwrap());
            }
            let seen = address_of(Some(Peer(peer.parse().unwrap())), &headers, trusted);
            seen.map_or_else(|| "nobody".to_owned(), |seen| seen.to_string())
        };
        let named = Some("x-forwarded-for");
        assert_eq!(seen("127.0.0.1", &["203.0.113.7"], named), "203.0.113.7");
        assert_eq!(seen("127.0.0.1", &["1.2.3.4, 203.0.113.7"], named), "203.0.113.7");
        assert_eq!(seen("10.0.0.2", &["1.2.3.4", "203.0.113.7"], named), "203.0.113.7");
        assert_eq!(seen("198.51.100.1", &["203.0.113.7"], named), "198.51.100.1", "not near");
        assert_eq!(seen("127.0.0.1", &["203.0.113.7"], None), "nobody", "not named");
        assert_eq!(seen("172.17.0.1", &["203.0.113.7"], None), "nobody", "a proxy in a container");
        assert_eq!(seen("172.17.0.1", &[], named), "nobody", "it says nothing");
        assert_eq!(seen("127.0.0.1", &["nonsense"], named), "nobody");
        assert_eq!(seen("2001:db8:1:2:3:4:5:6", &[], None), "2001:db8:1:2::");
        assert_eq!(seen("::ffff:203.0.113.7", &[], None), "203.0.113.7");
    }
}
