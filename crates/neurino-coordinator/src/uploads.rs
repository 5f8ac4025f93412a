//! Pictures that miners of the original protocol have uploaded and not handed in yet, and the
//! credentials that allow it. In memory: a lease of a picture lives for seconds.
//!
//! Credentials are derived from the lease and a key of the coordinator, so none are stored; they are
//! good for one key, one lease and its time.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use neurino_core::{ImageJob, LeaseId, NodeId};
use sha2::Sha256;
use uuid::Uuid;

/// The bucket that the original miner uploads to.
pub(crate) const BUCKET: &str = "heurist-images";
/// Begins every access key, so that one of ours is known from afar.
const ACCESS_PREFIX: &str = "NRNU";
/// Largest file of a picture, in bytes.
const FILE_BYTES_MAX: usize = 12 << 20;
/// All uploads together, in bytes.
const ALL_BYTES_MAX: usize = 512 << 20;

/// Uploaded files by lease.
#[derive(Default)]
pub(crate) struct Uploads(Mutex<HashMap<LeaseId, Vec<u8>>>);

impl Uploads {
    fn files(&self) -> MutexGuard<'_, HashMap<LeaseId, Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a lease's file instead of an earlier one; `false` when there is no room.
    pub(crate) fn put(&self, lease: LeaseId, file: Vec<u8>) -> bool {
        let mut files = self.files();
        let others = files.iter().filter(|(id, _)| **id != lease).map(|(_, file)| file.len());
        if others.sum::<usize>() + file.len() > ALL_BYTES_MAX {
            return false;
        }
        files.insert(lease, file);
        true
    }

    pub(crate) fn get(&self, lease: LeaseId) -> Option<Vec<u8>> {
        self.files().get(&lease).cloned()
    }

    pub(crate) fn remove(&self, lease: LeaseId) {
        self.files().remove(&lease);
    }

    /// Forgets the files of leases that are over.
    pub(crate) fn keep(&self, held: &[LeaseId]) {
        let mut files = self.files();
        if !files.is_empty() {
            let held: HashSet<&LeaseId> = held.iter().collect();
            files.retain(|lease, _| held.contains(lease));
        }
    }
}

/// Largest file that a job's picture can be: its pixels unpacked, and what surrounds them.
pub(crate) fn bytes_max(job: &ImageJob) -> usize {
    let row = 1 + 3 * job.width as usize;
    (row * job.height as usize / 10 * 11 + (64 << 10)).min(FILE_BYTES_MAX)
}

/// The key of a lease's picture in the bucket.
pub(crate) fn object_key(lease: LeaseId, node: &NodeId) -> String {
    format!("{lease}-{node}.png")
}

/// The lease that an access key was made for.
pub(crate) fn lease_of(access_key: &str) -> Option<LeaseId> {
    let digits = access_key.strip_prefix(ACCESS_PREFIX)?;
    (digits.len() == 32).then(|| Uuid::try_parse(digits).ok().map(LeaseId)).flatten()
}

/// Access key, secret key, session token. No `Debug`: two of them are secrets.
pub(crate) struct Credentials {
    pub(crate) access_key: String,
    pub(crate) secret_key: String,
    pub(crate) token: String,
}

impl Credentials {
    /// Those of a lease.
    pub(crate) fn of(key: &[u8; 32], lease: LeaseId, node: &NodeId) -> Self {
        let derive = |what: &str| {
            let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length fits");
            mac.update(format!("{what}\n{lease}\n{node}").as_bytes());
            mac.finalize().into_bytes()
        };
        Self {
            access_key: format!("{ACCESS_PREFIX}{}", lease.0.simple().to_string().to_uppercase()),
            secret_key: STANDARD.encode(&derive("secret")[..30]),
            token: hex::encode(derive("token")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_of_one_lease_and_one_miner() {
        let (lease, other) = (LeaseId(Uuid::now_v7()), LeaseId(Uuid::now_v7()));
        let node = |tag: &str| NodeId::new(format!("0x{}-{tag}", "ab".repeat(20))).expect("valid");
        let of = |lease, tag| Credentials::of(&[1; 32], lease, &node(tag));
        assert_eq!(lease_of(&of(lease, "a").access_key), Some(lease));
        assert_eq!(of(lease, "a").secret_key, of(lease, "a").secret_key);
        assert_ne!(of(lease, "a").secret_key, of(lease, "b").secret_key);
        assert_ne!(of(lease, "a").secret_key, of(other, "a").secret_key);
        assert_ne!(of(lease, "a").token, of(lease, "b").token);
        for bad in ["", "AKIAIOSFODNN7EXAMPLE", "NRNU", "NRNUzz", &format!("NRNU{lease}")] {
            assert_eq!(lease_of(bad), None, "{bad}");
        }
    }

    #[test]
    fn room_is_bounded_and_comes_back() {
        let uploads = Uploads::default();
        let lease = |n: u128| LeaseId(Uuid::from_u128(n));
        let file = || vec![0; ALL_BYTES_MAX / 4];
        for n in 0..4 {
            assert!(uploads.put(lease(n), file()));
        }
        assert!(uploads.put(lease(3), file()), "a repeated upload takes the place of the first");
        assert!(!uploads.put(lease(9), vec![0]));
        uploads.keep(&[lease(1)]);
        assert!(uploads.put(lease(9), vec![0]));
        assert!(uploads.get(lease(0)).is_none() && uploads.get(lease(1)).is_some());
        uploads.remove(lease(1));
        assert!(uploads.get(lease(1)).is_none());
    }
}
