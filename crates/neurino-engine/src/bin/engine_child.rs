//! The engine process alone, as the tests of this crate start it. With `noisy` as its argument it
//! prints to standard output all the time, as a careless library would.

use std::process::ExitCode;
use std::time::Duration;

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "what this program is for")]
fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("noisy") {
        std::thread::spawn(|| {
            // Not at once: until the process has taken its output, there is nobody to print.
            std::thread::sleep(Duration::from_millis(300));
            loop {
                println!("a careless line");
                std::thread::sleep(Duration::from_millis(5));
            }
        });
    }
    match neurino_engine::child::run_child() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
