//! Sealing bytes with a key, for one place: XChaCha20-Poly1305 with a nonce drawn for each, which stands
//! before what is sealed. The place is bound in: what was sealed for one does not open at another.

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

/// Bytes of a key.
pub(crate) const KEY: usize = 32;
/// Bytes of the nonce.
const NONCE: usize = 24;
/// Bytes that sealing adds.
pub(crate) const SEAL: usize = NONCE + 16;

/// A key. Has no `Debug`: it is a secret.
pub(crate) type Key = Zeroizing<[u8; KEY]>;

/// Seals bytes for a place.
pub(crate) fn seal(key: &Key, place: &[u8], plain: &[u8]) -> Vec<u8> {
    let nonce: [u8; NONCE] = rand::random();
    let payload = Payload { msg: plain, aad: place };
    let sealed = cipher(key).encrypt(XNonce::from_slice(&nonce), payload);
    let sealed = sealed.expect("a message is shorter than the cipher's limit of 256 GB");
    [nonce.as_slice(), &sealed].concat()
}

/// What was sealed for a place; `None` if it was not, or not with this key.
pub(crate) fn open(key: &Key, place: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, sealed) = sealed.split_at_checked(NONCE)?;
    let payload = Payload { msg: sealed, aad: place };
    cipher(key).decrypt(XNonce::from_slice(nonce), payload).ok()
}

fn cipher(key: &Key) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(key.as_slice().into())
}
