//! The process that reads pictures, alone, as the tests of this crate start it. With `faulty` as its
//! argument it fails at pictures of certain widths, as a reader with a hole might.

use std::process::ExitCode;
use std::time::Duration;

/// Blocks of memory that are asked for at once, in bytes, and how many: far more than it may have.
const BLOCK: usize = 16 << 20;
const BLOCKS: usize = 256;

fn main() -> ExitCode {
    // A coordinator's environment has its secrets. (Windows starts no program without its own folder.)
    if std::env::vars_os().any(|(name, _)| name != "SystemRoot") {
        return ExitCode::from(3);
    }
    let faulty = std::env::args().nth(1).as_deref() == Some("faulty");
    let ended = neurino_coordinator::decoder::child::run_with(|width| {
        match width {
            72 if faulty => std::process::abort(),
            80 if faulty => std::thread::sleep(Duration::from_hours(1)),
            88 if faulty => {
                let all: Vec<Vec<u8>> = (0..BLOCKS).map(|n| vec![n as u8 | 1; BLOCK]).collect();
                assert_eq!(all.len(), BLOCKS);
            }
            96 if faulty => panic!("a hole"),
            // Nothing but the pipes can be opened any more.
            104 if faulty && std::fs::File::open("/dev/null").is_err() => std::process::abort(),
            _ => {}
        }
    });
    if ended.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
