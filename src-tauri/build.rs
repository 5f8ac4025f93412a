//! Prepares the window's resources when the `desktop` feature is on.
fn main() {
    #[cfg(feature = "desktop")]
    {
        // Naming the commands closes every other one: without this list Tauri opens each
        // application command to every page. `capabilities/main.json` opens these two again.
        let commands = tauri_build::AppManifest::new().commands(&["rpc", "subscribe"]);
        let attributes = tauri_build::Attributes::new().app_manifest(commands);
        tauri_build::try_build(attributes).expect("the window's resources can be prepared");
    }
}
