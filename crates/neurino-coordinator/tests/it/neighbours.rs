//! Who comes from one line is probably one person, and does not check its own results while others can.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use neurino_coordinator::{Coordinator, CoordinatorConfig};
use neurino_core::{JobSpec, ModelId};
use neurino_protocol::node::{
    CoordinatorMessage, Exchange, ExchangeReply, ModelOffer, NodeMessage, Ready, SessionOpened,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::audits::limits;
use crate::node::{Identity, output};
use crate::world::{MODEL, World, eventually};

/// The networks that computed each prompt, in their order.
type Computed = Arc<Mutex<BTreeMap<String, Vec<&'static str>>>>;

/// A node on a long poll that comes from an address, as a proxy says.
struct Poller {
    client: reqwest::Client,
    url: String,
    from: &'static str,
}

impl Poller {
    async fn post<T: DeserializeOwned>(&self, path: &str, key: Option<&str>, body: Value) -> T {
        let request = self.client.post(format!("{}{path}", self.url)).json(&body);
        let request = request.header("x-forwarded-for", self.from);
        let request = match key {
            Some(key) => request.bearer_auth(key),
            None => request,
        };
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 200, "{path}");
        answer.json().await.unwrap()
    }

    /// Opens a session and answers every job, in the same words as everybody.
    async fn work(self, computed: Computed) {
        let identity = Identity::new("rig");
        let challenge = self.post("/v1/node/challenge", None, json!({})).await;
        let CoordinatorMessage::Challenge { network, coordinator, nonce, .. } = challenge else {
            panic!("no challenge")
        };
        let hello = NodeMessage::Hello(identity.hello(&network, &coordinator, &nonce));
        let opened: SessionOpened = self.post("/v1/node/session", None, json!(hello)).await;
        let offer = ModelOffer::text(ModelId::new(MODEL).unwrap());
        let mut messages = vec![NodeMessage::Ready(Ready::new(vec![offer], 4))];
        loop {
            let body = json!(Exchange { messages: std::mem::take(&mut messages), wait_ms: 200 });
            let heard: ExchangeReply =
                self.post("/v1/node/exchange", Some(&opened.token), body).await;
            for message in heard.messages {
                let CoordinatorMessage::Assign(lease) = message else { continue };
                let JobSpec::Text(job) = &lease.spec else { panic!("no text") };
                let prompt = format!("{:?}", job.messages);
                computed.lock().unwrap().entry(prompt).or_default().push(self.from);
                let answer = output("the right words", 4);
                messages.push(NodeMessage::Submit(identity.submission(&lease, answer)));
            }
        }
    }
}

/// Those that work for a coordinator, and what they computed.
struct Street {
    world: World,
    coordinator: Arc<Coordinator>,
    working: Vec<JoinHandle<()>>,
    computed: Computed,
    stop: CancellationToken,
}

impl Street {
    async fn of(addresses: &[&'static str]) -> Self {
        let world = World::with(limits()).await;
        world.coordinator.shutdown().await;
        let client_address_header = Some("x-forwarded-for".into());
        let config = CoordinatorConfig { client_address_header, ..world.config() };
        let coordinator = Coordinator::open(config).await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (stop, computed) = (CancellationToken::new(), Computed::default());
        let (serving, stopping) = (Arc::clone(&coordinator), stop.clone());
        let mut working = vec![tokio::spawn(async move {
            serving.serve(listener, stopping).await.unwrap();
        })];
        for from in addresses {
            let poller = Poller { client: reqwest::Client::new(), url: url.clone(), from };
            working.push(tokio::spawn(poller.work(Arc::clone(&computed))));
        }
        let (all, street) = (addresses.len(), Self { world, coordinator, working, computed, stop });
        eventually("all of them are ready", async || {
            street.coordinator.jobs_overview().models.values().any(|nodes| *nodes == all)
        })
        .await;
        street
    }

    /// Asks until so many answers have been computed a second time, and returns by whom each was.
    async fn checked(&self, enough: usize) -> Vec<Vec<&'static str>> {
        let checked = || {
            let computed = self.computed.lock().unwrap();
            computed.values().filter(|by| by.len() > 1).cloned().collect::<Vec<_>>()
        };
        for n in 0..60 {
            let spec = crate::world::spec(MODEL, &format!("question {n}"));
            let payer = neurino_coordinator::PayerId::local();
            let job = self.coordinator.submit_job(payer, None, spec).await.unwrap();
            self.coordinator.watch_job(job).await.unwrap().finished().await.unwrap();
            if checked().len() >= enough {
                break;
            }
        }
        eventually("some are checked", async || checked().len() >= enough.min(6)).await;
        checked()
    }

    async fn end(self) {
        for task in &self.working[1..] {
            task.abort();
        }
        self.stop.cancel();
        self.coordinator.shutdown().await;
        drop(self.world);
    }
}

#[tokio::test]
async fn a_neighbour_checks_nothing_while_somebody_else_can() {
    let (one, other, far) = ("203.0.113.7", "203.0.113.200", "198.51.100.9");
    let street = Street::of(&[one, other, far]).await;
    let checked = street.checked(20).await;
    assert!(checked.iter().any(|by| by[0] != far), "one of the neighbours is checked: {checked:?}");
    for by in &checked {
        assert!(by.contains(&far), "neighbours checked each other: {by:?} in {checked:?}");
    }
    street.end().await;
}

#[tokio::test]
async fn neighbours_among_themselves_check_each_other() {
    let street = Street::of(&["203.0.113.7", "203.0.113.8"]).await;
    assert!(!street.checked(6).await.is_empty());
    street.end().await;
}
