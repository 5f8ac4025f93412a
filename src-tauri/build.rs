//! Prepares the window's resources when the `desktop` feature is on.
fn main() {
    #[cfg(feature = "desktop")]
    tauri_build::build();
}
