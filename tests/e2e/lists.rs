//! The network's lists, read in the real window: what they vouch for is among the models, the rest is named.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use crate::desk::in_the_window_of;
use crate::page::Page;

const SOON: Duration = Duration::from_secs(10);
const SUM: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

/// A web server that tells of every file that it has 2 GB.
fn sizes() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2000000000\r\n\r\n";
            let _ = stream.write_all(head.as_bytes());
        }
    });
    url
}

#[test]
fn lists_are_read_and_what_they_name_is_told() {
    let url = sizes();
    let prepare = move |home: &Path| {
        let listed = |name: &str, sum: &str| {
            serde_json::json!({
                "name": name, "type": "sd15", "file_url": format!("{url}/{name}"),
                "checksum": sum, "defaults": { "num_inference_steps": 50 },
            })
        };
        let language = serde_json::json!({ "name": "hermes-3-llama3.1-8b", "type": "llm8b" });
        let models = serde_json::json!([listed("Dreamer", SUM), listed("bare", ""), language]);
        std::fs::write(home.join("models.json"), models.to_string()).unwrap();
        std::fs::write(home.join("page.html"), "<!doctype html>").unwrap();
    };
    in_the_window_of("lists", prepare, async move |page: Page| {
        let place = |name: &str| page.desk.home().join(name).display().to_string();
        page.go_to("models").await;
        page.picture("before").await;
        page.press("lists-open").await;
        page.wait_for("lists-models", SOON).await;
        page.replace("lists-models", &place("page.html")).await;
        page.press("lists-go").await;
        let dialog = async || page.read("lists-dialog").await;
        page.until("it is refused", SOON, async |_| dialog().await.contains("not a list")).await;
        page.picture("refused").await;
        page.replace("lists-models", &place("models.json")).await;
        page.press("lists-go").await;
        page.wait_for("lists-report", SOON).await;
        page.picture("report").await;
        let report = page.read("lists-report").await;
        for words in
            ["One model was added", "Dreamer", "steps 50 becomes 35", "2 entries were left"]
        {
            assert!(report.contains(words), "{report}");
        }
        page.press("lists-done").await;
        page.until("its row", SOON, async |page| {
            page.script("return document.body.textContent.includes('Dreamer')").await == true
        })
        .await;
        let line = page.read("catalogue").await;
        assert!(line.contains("looks for no newer catalogue"), "{line}");
        page.resize(720, 640).await;
        page.choose_theme("dark").await;
        page.go_to("models").await;
        page.picture("narrow").await;
        // The reading is told on the page, too, and the report opens again from there.
        page.press("task-more").await;
        page.wait_for("lists-report", SOON).await;
        page.picture("narrow report").await;
    });
}
