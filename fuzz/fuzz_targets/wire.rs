//! Wire messages of arbitrary bytes: refused or read, and what was read survives a round trip.
#![no_main]

use libfuzzer_sys::fuzz_target;
use neurino_protocol::app::Command;
use neurino_protocol::node::{CoordinatorMessage, NodeMessage};

fn round_trip<T>(data: &[u8])
where
    T: serde::de::DeserializeOwned + serde::Serialize + PartialEq + std::fmt::Debug,
{
    if let Ok(message) = serde_json::from_slice::<T>(data) {
        let text = serde_json::to_vec(&message).expect("a message that was read can be written");
        let again: T = serde_json::from_slice(&text).expect("and read again");
        assert_eq!(message, again);
    }
}

fuzz_target!(|data: &[u8]| {
    round_trip::<NodeMessage>(data);
    round_trip::<CoordinatorMessage>(data);
    round_trip::<Command>(data);
});
