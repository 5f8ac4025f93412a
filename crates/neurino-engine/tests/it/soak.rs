//! Half a minute of the soak that `cargo xtask soak` runs for longer.

use std::sync::Arc;

use neurino_engine::soak::{SoakOptions, soak};
use neurino_engine::{Engine, ProcessEngine};
use neurino_hardware::resident_memory_bytes_of;

use crate::model;
use crate::process::config;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mixed_requests_keep_to_their_streams_and_leave_nothing_behind() {
    let engine = Arc::new(ProcessEngine::start(config()));
    let options = SoakOptions { seconds: 16, requests: 32, longest_tokens: 400 };
    let memory = {
        let engine = Arc::clone(&engine);
        move || {
            let bytes = engine.process_id().and_then(resident_memory_bytes_of);
            bytes.map(|bytes| ("engine", bytes)).into_iter().collect()
        }
    };
    let shared: Arc<dyn Engine> = Arc::clone(&engine) as Arc<dyn Engine>;
    let report = soak(shared, &model(), options, &memory, &|_| {}).await.unwrap();
    engine.shutdown().await;
    assert_eq!(report.faults, Vec::<String>::new());
    assert!(report.answered >= 40 && report.cancelled >= 5 && report.pauses >= 3, "{report:?}");
}
