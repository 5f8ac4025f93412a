//! Challenges for hellos, which need no memory until they are answered.
//!
//! Anybody may ask for a challenge, so an open one must not take room from others: it carries its
//! time and a mark that only this coordinator can make. What is remembered are the answered ones,
//! and answering takes a signature.

use std::collections::HashMap;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

/// How long a challenge can be answered.
const LIFE: Duration = Duration::from_mins(5);
/// Answered challenges that are remembered at once.
const ANSWERED_MAX: usize = 65_536;
/// Bytes of a nonce: milliseconds since the start, random ones, the mark.
const TIME: usize = 8;
const SALT: usize = 16;
const MARK: usize = 32;

/// What a challenge was worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answered {
    /// Good, and used up now.
    Once,
    /// Unknown, used before or too old.
    Void,
    /// Too many were answered lately.
    TooMany,
}

/// Makes challenges and knows which were answered.
pub(crate) struct Challenges {
    key: [u8; 32],
    start: Instant,
    /// Answered ones, and when they expire by themselves.
    answered: HashMap<[u8; SALT], Instant>,
}

impl Challenges {
    /// `key` is a secret of this run: challenges of an earlier run are void.
    pub(crate) fn new(key: [u8; 32], start: Instant) -> Self {
        Self { key, start, answered: HashMap::new() }
    }

    /// A fresh nonce, in hexadecimal digits.
    pub(crate) fn issue(&self, salt: [u8; SALT], now: Instant) -> String {
        let age = now.saturating_duration_since(self.start).as_millis();
        let mut nonce = Vec::with_capacity(TIME + SALT + MARK);
        nonce.extend_from_slice(&u64::try_from(age).unwrap_or(u64::MAX).to_be_bytes());
        nonce.extend_from_slice(&salt);
        let mark = self.mark(&nonce);
        nonce.extend_from_slice(&mark);
        hex::encode(nonce)
    }

    /// Whether a nonce can still be answered; changes nothing.
    pub(crate) fn is_open(&self, nonce: &str, now: Instant) -> bool {
        self.read(nonce, now).is_some()
    }

    /// Uses a nonce up. Call it once the signature over it was checked.
    pub(crate) fn answer(&mut self, nonce: &str, now: Instant) -> Answered {
        let Some((salt, expiry)) = self.read(nonce, now) else { return Answered::Void };
        if self.answered.len() >= ANSWERED_MAX {
            return Answered::TooMany;
        }
        self.answered.insert(salt, expiry);
        Answered::Once
    }

    /// Forgets answered challenges that are too old anyway.
    pub(crate) fn expire(&mut self, now: Instant) {
        self.answered.retain(|_, expiry| *expiry > now);
    }

    /// The salt and the expiry of an open nonce.
    fn read(&self, nonce: &str, now: Instant) -> Option<([u8; SALT], Instant)> {
        let mut bytes = [0; TIME + SALT + MARK];
        hex::decode_to_slice(nonce, &mut bytes).ok()?;
        let (head, mark) = bytes.split_at(TIME + SALT);
        // Every byte is compared, so that the time it takes tells nothing.
        let differs = self.mark(head).iter().zip(mark).fold(0, |all, (a, b)| all | (a ^ b));
        let (age, salt) = head.split_at(TIME);
        let age = Duration::from_millis(u64::from_be_bytes(age.try_into().ok()?));
        let salt = salt.try_into().ok()?;
        if differs != 0 || self.answered.contains_key(&salt) {
            return None;
        }
        let expiry = self.start.checked_add(age)? + LIFE;
        (expiry > now).then_some((salt, expiry))
    }

    /// A keyed digest; the text has one length only, so plain SHA-256 does.
    fn mark(&self, head: &[u8]) -> [u8; MARK] {
        Sha256::new().chain_update(self.key).chain_update(head).finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(challenges: &mut Challenges, nonce: &str, now: Instant, expect: Answered) {
        assert_eq!(challenges.is_open(nonce, now), expect == Answered::Once, "{nonce}");
        assert_eq!(challenges.answer(nonce, now), expect, "{nonce}");
    }

    #[test]
    fn a_challenge_is_good_once_for_five_minutes_and_cannot_be_made_up() {
        let start = Instant::now();
        let mut ours = Challenges::new([7; 32], start);
        let later = start + Duration::from_secs(100);
        let nonce = ours.issue([1; SALT], later);
        check(&mut ours, &nonce, later + LIFE, Answered::Void);
        check(&mut ours, &nonce, later + LIFE - Duration::from_millis(1), Answered::Once);
        check(&mut ours, &nonce, later, Answered::Void);

        let theirs = Challenges::new([8; 32], start).issue([2; SALT], later);
        check(&mut ours, &theirs, later, Answered::Void);
        let good = ours.issue([3; SALT], later);
        let newer = format!("ff{}", &good[2..]);
        for bad in ["", "zz", &good[2..], &format!("{good}00"), &newer, "made up", "é"] {
            check(&mut ours, bad, later, Answered::Void);
        }
        check(&mut ours, &good, later, Answered::Once);
    }

    #[test]
    fn only_answers_take_room_and_give_it_back() {
        let start = Instant::now();
        let mut challenges = Challenges::new([7; 32], start);
        let salt = |n: usize| (n as u128).to_be_bytes();
        for n in 0..ANSWERED_MAX {
            let nonce = challenges.issue(salt(n), start);
            assert_eq!(challenges.answer(&nonce, start), Answered::Once);
        }
        let late = start + LIFE;
        let one_more = challenges.issue(salt(ANSWERED_MAX), late);
        assert_eq!(challenges.answer(&one_more, late), Answered::TooMany);
        challenges.expire(late);
        assert_eq!(challenges.answer(&one_more, late), Answered::Once);
    }
}
