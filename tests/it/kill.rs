//! Power cuts: the program is killed at random moments, two hundred times, in one process and in
//! two. No accepted job may be lost and none paid twice.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::program::{Server, command, free_port, home_with_model};

/// Rounds of each arrangement; `NEURINO_KILL_ROUNDS` overrides it.
const ROUNDS: u32 = 100;
/// Longest life of a process in a round, in milliseconds, counted from its start.
const LIFE_MS_MAX: u64 = 1_500;

fn rounds() -> u32 {
    std::env::var("NEURINO_KILL_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(ROUNDS)
}

/// A payer that knows which of its requests were accepted.
struct Payer {
    http: reqwest::Client,
    base_url: String,
    api_key: String,
    /// Idempotency key to job id.
    accepted: BTreeMap<String, String>,
    sent: u32,
}

impl Payer {
    fn new(base_url: String, api_key: String) -> Self {
        let http = reqwest::Client::builder().timeout(Duration::from_secs(5)).build().unwrap();
        Self { http, base_url, api_key, accepted: BTreeMap::new(), sent: 0 }
    }

    /// Sends one job; whatever happens to the connection is part of the test.
    async fn send(&mut self) {
        self.sent += 1;
        let key = format!("job-{}", self.sent);
        self.send_as(&key).await;
    }

    async fn send_as(&mut self, key: &str) {
        let spec = json!({
            "kind": "text",
            "model": "smollm2-135m-instruct",
            "messages": [{ "role": "user", "content": "Say hello." }],
            "sampling": { "temperature": 0.0, "top_p": 1.0, "top_k": 0, "seed": 1 },
            "max_tokens": 6,
        });
        let answer = self
            .http
            .post(format!("{}/jobs", self.base_url))
            .bearer_auth(&self.api_key)
            .header("Idempotency-Key", key)
            .json(&spec)
            .send()
            .await;
        let Ok(answer) = answer else { return };
        if answer.status() != 202 {
            return;
        }
        let Ok(body) = answer.json::<Value>().await else { return };
        let id = body["id"].as_str().unwrap().to_owned();
        let before = self.accepted.insert(key.to_owned(), id.clone());
        assert!(before.is_none_or(|b| b == id), "a repeated request is the same job");
    }

    async fn job(&self, id: &str) -> Option<Value> {
        let url = format!("{}/jobs/{id}", self.base_url);
        let answer = self.http.get(url).bearer_auth(&self.api_key).send().await.ok()?;
        assert_eq!(answer.status(), 200, "an accepted job is known for ever");
        answer.json().await.ok()
    }

    /// Waits until every accepted job has ended; returns each one's last state and receipt.
    async fn settle(&self) -> Vec<Value> {
        let deadline = Instant::now() + Duration::from_mins(10);
        let mut ended = Vec::new();
        for id in self.accepted.values() {
            loop {
                assert!(Instant::now() < deadline, "job {id} never ends");
                if let Some(job) = self.job(id).await
                    && matches!(job["state"].as_str(), Some("succeeded" | "failed" | "cancelled"))
                {
                    ended.push(job);
                    break;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        ended
    }
}

/// Checks the end state and prints the counts.
async fn judge(name: &str, payer: &Payer, kills: u32, ledger_home: &Path, final_run: Vec<Server>) {
    let ended = payer.settle().await;
    for mut server in final_run {
        server.kill().await;
    }
    let succeeded = ended.iter().filter(|j| j["state"] == "succeeded").count();
    let receipts: Vec<&str> = ended.iter().filter_map(|j| j["receipt"]["event"].as_str()).collect();
    let mut distinct = receipts.clone();
    distinct.sort_unstable();
    distinct.dedup();
    let output =
        command(ledger_home).args(["coordinator", "--json", "ledger"]).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let ledger: Value = serde_json::from_slice(&output.stdout).unwrap();
    #[expect(clippy::print_stdout, reason = "the test tells its counts")]
    {
        println!(
            "{name}: {kills} kills, {} sent, {} accepted, {succeeded} succeeded, {} receipts, \
             {} paid jobs in the ledger, {} paid twice, postings sum {}",
            payer.sent,
            payer.accepted.len(),
            receipts.len(),
            ledger["jobs_paid"],
            ledger["jobs_paid_twice"],
            ledger["postings_sum_micro"],
        );
    }
    assert!(payer.accepted.len() as u32 > kills / 4, "enough jobs were accepted to mean something");
    let lost: Vec<_> = ended.iter().filter(|j| j["state"] != "succeeded").collect();
    assert!(lost.is_empty(), "no accepted job is lost: {lost:?}");
    assert_eq!(distinct.len(), succeeded, "each has one receipt of its own");
    assert_eq!(ledger["jobs_paid_twice"], 0);
    let sums = ledger["postings_sum_micro"].as_object().unwrap();
    assert!(!sums.is_empty() && sums.values().all(|sum| *sum == 0), "{sums:?}");
    assert_eq!(ledger["receipts_sum_micro"], ledger["paid_to_nodes_micro"]);
}

#[tokio::test]
async fn one_process_survives_power_cuts() {
    let Some(home) = home_with_model() else { return };
    let mut rng = StdRng::seed_from_u64(7);
    let port = free_port();
    let start = || {
        let mut c = command(home.path());
        c.args(["practice", "--serve", "--json", "--port", &port.to_string()]);
        Server::start(c)
    };
    let first = start().await;
    let url = first.ready["gateway_url"].as_str().unwrap().to_owned();
    let key = first.ready["api_key"].as_str().unwrap().to_owned();
    let mut payer = Payer::new(url, key);
    let mut server = first;
    let kills = rounds();
    for _ in 0..kills {
        let life = Duration::from_millis(rng.random_range(0..LIFE_MS_MAX));
        let end = Instant::now() + life;
        payer.send().await;
        if rng.random_bool(0.3) {
            // The payer is unsure whether an earlier request arrived, and repeats it.
            let earlier = format!("job-{}", rng.random_range(1..=payer.sent));
            payer.send_as(&earlier).await;
        }
        tokio::time::sleep_until(end.into()).await;
        server.kill().await;
        server = start().await;
    }
    judge("one process", &payer, kills, home.path(), vec![server]).await;
}

#[tokio::test]
async fn two_processes_survive_power_cuts() {
    let Some(node_home) = home_with_model() else { return };
    let pool_home = tempfile::tempdir().unwrap();
    let mut rng = StdRng::seed_from_u64(11);
    let port = free_port();
    let start_pool = || {
        let mut c = command(pool_home.path());
        c.args(["coordinator", "--json", "--network", "test", "--rules", "practice1"]);
        c.args(["--listen", &format!("127.0.0.1:{port}")]);
        Server::start(c)
    };
    let start_node = || {
        let mut c = command(node_home.path());
        c.args(["node", "--json", "--coordinator", &format!("http://127.0.0.1:{port}")]);
        Server::start(c)
    };
    let key = command(pool_home.path())
        .args([
            "coordinator",
            "--json",
            "--network",
            "test",
            "--rules",
            "practice1",
            "key",
            "payer",
        ])
        .output()
        .await
        .unwrap();
    let key: Value = serde_json::from_slice(&key.stdout).unwrap();
    let mut pool = start_pool().await;
    let mut node = start_node().await;
    let url = pool.ready["gateway_url"].as_str().unwrap().to_owned();
    let mut payer = Payer::new(url, key["api_key"].as_str().unwrap().to_owned());
    let kills = rounds();
    for _ in 0..kills {
        let life = Duration::from_millis(rng.random_range(0..LIFE_MS_MAX));
        let end = Instant::now() + life;
        payer.send().await;
        tokio::time::sleep_until(end.into()).await;
        match rng.random_range(0..3) {
            0 => {
                node.kill().await;
                node = start_node().await;
            }
            1 => {
                pool.kill().await;
                pool = start_pool().await;
            }
            _ => {
                pool.kill().await;
                node.kill().await;
                pool = start_pool().await;
                node = start_node().await;
            }
        }
    }
    judge("two processes", &payer, kills, pool_home.path(), vec![pool, node]).await;
}
