//! A club's coordinator on an encrypted listener, with a certificate that only its members believe.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::program::{Server, command, free_port, home_with_model};

/// A certificate for this machine, and its key.
fn certificate(folder: &Path) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
}

#[tokio::test]
async fn a_club_needs_no_proxy() {
    let Some(node_home) = home_with_model() else { return };
    let club = tempfile::tempdir().unwrap();
    certificate(club.path());
    let (certificate, key) = (club.path().join("cert.pem"), club.path().join("key.pem"));
    let port = free_port();
    let url = format!("https://localhost:{port}");

    let mut starting = command(club.path());
    starting.args(["coordinator", "--json", "--known-as", &url]);
    starting.args(["--listen", &format!("127.0.0.1:{port}")]);
    let mut mixed_up = command(club.path());
    mixed_up.args(["coordinator", "--tls-cert"]).arg(&key).arg("--tls-key").arg(&certificate);
    starting.arg("--tls-cert").arg(&certificate).arg("--tls-key").arg(&key);
    let refused = mixed_up.output().await.unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("mixed up"), "{said}");
    let mut coordinator = Server::start(starting).await;
    assert_eq!(coordinator.ready["gateway_url"], format!("{url}/v1"));

    let mut making = command(club.path());
    let made = making.args(["coordinator", "--json", "key", "friend"]).output().await.unwrap();
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    let api_key = made["api_key"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned();

    // Somebody who does not believe the certificate says nothing to the club.
    let stranger = reqwest::Client::new().get(format!("{url}/healthz")).send().await;
    assert!(stranger.is_err());
    let mut looking = command(club.path());
    let looked = looking.env("NEURINO_NETWORK", &url).args(["doctor", "--json"]).output();
    let checks: Value = serde_json::from_slice(&looked.await.unwrap().stdout).unwrap();
    let network = checks.as_array().unwrap().iter().find(|check| check["name"] == "Network");
    let network = network.unwrap_or_else(|| panic!("{checks}"));
    let finding = network["finding"].as_str().unwrap();
    assert!(finding.contains("is not trusted"), "not told as a network that fails: {network}");
    let pem = std::fs::read(&certificate).unwrap();
    let believed = reqwest::Certificate::from_pem(&pem).unwrap();
    let http = reqwest::Client::builder().add_root_certificate(believed).build().unwrap();
    let plain = reqwest::Client::new().get(format!("http://localhost:{port}/healthz")).send();
    assert!(plain.await.is_err(), "nothing is said unencrypted");

    let mut mining = command(node_home.path());
    mining.env("SSL_CERT_FILE", &certificate).args(["node", "--json", "--coordinator", &url]);
    let mut node = Server::start(mining).await;
    let body = json!({
        "model": "smollm2-135m-instruct", "max_tokens": 4,
        "messages": [{ "role": "user", "content": "Say hello." }],
    });
    let answer = http
        .post(format!("{url}/v1/chat/completions"))
        .bearer_auth(api_key)
        .timeout(Duration::from_mins(2))
        .json(&body)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200, "{:?}", answer.text().await);
    node.kill().await;
    coordinator.kill().await;
}
