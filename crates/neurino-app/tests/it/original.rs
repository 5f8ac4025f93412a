//! Our miner on a coordinator that speaks only the original protocol: ours, with nothing else used
//! of it, behind its real edge.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use neurino_client::{OriginalCoordinator, OriginalOptions};
use neurino_coordinator::{Coordinator, CoordinatorConfig, JobUpdate, Limits, PayerId};
use neurino_core::{
    ChatMessage, ImageDefaults, JobId, JobOutput, JobSpec, ModelId, NodeId, Receipt, Role, TextJob,
};
use neurino_engine::ModelRef;
use neurino_miner::{
    ContentFilter, Miner, MinerConfig, MinerHandle, MinerState, MinerStatus, ReceiptLog,
};
use neurino_protocol::ErrorCode;
use neurino_protocol::node::Capabilities;
use neurino_testkit::{Script, ScriptedEngine};
use neurino_wallet::IdentityKey;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const TEXT: &str = "smollm2-135m-instruct";
const PAINTER: &str = "dreamshaper-8";
const SOON: Duration = Duration::from_secs(30);

fn id(name: &str) -> ModelId {
    ModelId::new(name).unwrap()
}

fn usual() -> ImageDefaults {
    ImageDefaults {
        width: 64,
        height: 64,
        steps: 3,
        guidance: 5.0,
        side_multiple: 8,
        negative_prompt: String::new(),
        sampler: None,
    }
}

/// A network with its listener.
struct Net {
    _folder: TempDir,
    coordinator: Arc<Coordinator>,
    url: String,
    stop: CancellationToken,
}

impl Net {
    async fn new(limits: Limits) -> Self {
        Self::with(|config| config.limits = limits).await
    }

    /// One that prices only what its rules list.
    async fn club() -> Self {
        Self::with(|config| {
            (config.rule_set, config.network) = ("club1".into(), "club".into());
            config.practice = false;
        })
        .await
    }

    async fn with(change: impl FnOnce(&mut CoordinatorConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = Arc::new(IdentityKey::generate(&mut rand::rng()));
        let mut config = CoordinatorConfig::practice(folder.path().join("books.sqlite"), key);
        config.original = true;
        config.image_models = BTreeMap::from([(id(PAINTER), usual())]);
        change(&mut config);
        let coordinator = Coordinator::open(config).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let (serving, stopping) = (Arc::clone(&coordinator), stop.clone());
        tokio::spawn(async move { serving.serve(listener, stopping).await });
        Self { _folder: folder, coordinator, url, stop }
    }

    async fn ask(&self, spec: JobSpec) -> JobId {
        self.coordinator.submit_job(PayerId::local(), None, spec).await.unwrap()
    }

    /// Waits for a job's end: its text as it was streamed, its result, its receipt.
    async fn end_of(&self, job: JobId) -> (String, JobOutput, Receipt) {
        let mut watch = self.coordinator.watch_job(job).await.unwrap();
        let mut text = String::new();
        let following = async {
            loop {
                match watch.next().await.unwrap() {
                    JobUpdate::Delta(delta) => text.push_str(&delta.text),
                    JobUpdate::Queued => text.clear(),
                    JobUpdate::Finished { output, receipt } => return (output, *receipt),
                    JobUpdate::Failed(error) => panic!("the job failed: {error}"),
                    _ => {}
                }
            }
        };
        let (output, receipt) = tokio::time::timeout(SOON, following).await.expect("it ends");
        (text, output, receipt)
    }

    async fn end(self) {
        self.stop.cancel();
        assert!(self.coordinator.ledger_check().await.unwrap().holds());
        self.coordinator.shutdown().await;
    }
}

fn text() -> JobSpec {
    let messages = vec![ChatMessage::new(Role::User, "Say something")];
    JobSpec::Text(TextJob::new(id(TEXT), messages, 64))
}

/// A machine that mines for a network.
struct Machine {
    folder: TempDir,
    key: Arc<IdentityKey>,
    reward: Option<String>,
}

impl Machine {
    fn new() -> Self {
        let key = Arc::new(IdentityKey::generate(&mut rand::rng()));
        Self { folder: tempfile::tempdir().unwrap(), key, reward: None }
    }

    fn start(&self, net: &Net, model: &str, script: Script) -> MinerHandle {
        let options =
            OriginalOptions { reward: self.reward.clone(), ..OriginalOptions::at(&net.url) };
        let coordinator = Arc::new(OriginalCoordinator::new(&options).unwrap());
        let receipts = ReceiptLog::open(&self.folder.path().join("receipts.jsonl")).unwrap();
        let painter = (model == PAINTER).then(|| (id(PAINTER), usual()));
        let config = MinerConfig {
            filter: ContentFilter::default(),
            follow_advice: true,
            files: None,
            needs: BTreeMap::new(),
            node: NodeId::new(format!("{}-rig1", self.key.address())).unwrap(),
            capabilities: Capabilities {
                device: "test".into(),
                memory_bytes: 1,
                gpu: false,
                referred_by: None,
            },
            models: vec![ModelRef::new(id(model), "/nowhere")],
            image_models: painter.into_iter().collect(),
            outbox_dir: self.folder.path().join("outbox"),
            receipts: Arc::new(receipts),
        };
        let engine = Arc::new(ScriptedEngine::new(script));
        Miner::start(config, coordinator, engine, Arc::clone(&self.key)).unwrap()
    }
}

async fn until(
    miner: &MinerHandle,
    what: &str,
    wanted: impl FnMut(&MinerStatus) -> bool,
) -> MinerStatus {
    let mut status = miner.status();
    let Ok(found) = tokio::time::timeout(SOON, status.wait_for(wanted)).await else {
        panic!("never {what}; the status stayed {:?}", miner.status().borrow())
    };
    found.unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_are_mined_whole_first_and_then_as_they_grow() {
    let net = Net::new(Limits::default()).await;
    let machine = Machine::new();
    let words = "The lighthouse keeper counts the waves, one by one.";
    let miner = machine.start(&net, TEXT, Script::answer(words).paced(Duration::from_millis(100)));
    let (told, output, receipt) = net.end_of(net.ask(text()).await).await;
    let JobOutput::Text(answer) = &output else { panic!("a text") };
    assert_eq!((answer.text(), told.as_str()), (words, words));
    assert_eq!(receipt.node.as_str(), format!("{}-rig1", machine.key.address()));
    until(&miner, "taken", |s| s.counters.accepted == 1 && s.unsettled == 0).await;

    // Now the key is bound, and who follows the job sees it grow.
    let second = net.ask(text()).await;
    let mut watch = net.coordinator.watch_job(second).await.unwrap();
    let mut pieces = 0;
    let following = async {
        loop {
            match watch.next().await.unwrap() {
                JobUpdate::Delta(_) => pieces += 1,
                JobUpdate::Finished { output, .. } => return output,
                JobUpdate::Failed(error) => panic!("{error}"),
                _ => {}
            }
        }
    };
    let output = tokio::time::timeout(SOON, following).await.expect("it ends");
    let JobOutput::Text(answer) = output else { panic!("a text") };
    assert_eq!(answer.text(), words);
    assert!(pieces > 1, "{pieces} pieces");
    until(&miner, "taken", |s| s.counters.accepted == 2 && s.unsettled == 0).await;
    miner.stop_now().await;
    net.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_is_uploaded_and_handed_in() {
    let net = Net::new(Limits::default()).await;
    let machine = Machine::new();
    let miner = machine.start(&net, PAINTER, Script::answer(""));
    let job = net.ask(JobSpec::Image(usual().job(id(PAINTER), "a lighthouse"))).await;
    let (_, output, receipt) = net.end_of(job).await;
    let JobOutput::Image(picture) = output else { panic!("a picture") };
    assert_eq!((picture.width, picture.height), (64, 64));
    assert!(receipt.quote.amount_micro.0 > 0);
    until(&miner, "taken", |s| s.counters.accepted == 1 && s.unsettled == 0).await;
    miner.stop_now().await;
    net.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_miner_is_stopped_goes_to_another_one() {
    let net = Net::new(Limits { text_budget_ms: 1_000, ..Limits::default() }).await;
    let slow = Machine::new();
    let paced = Script::answer("never ever finished").paced(Duration::from_secs(20));
    let miner = slow.start(&net, TEXT, paced);
    let job = net.ask(text()).await;
    until(&miner, "at work", |s| s.state == MinerState::Working).await;
    miner.stop_now().await;
    let quick = Machine::new();
    let other = quick.start(&net, TEXT, Script::answer("done"));
    let (_, _, receipt) = net.end_of(job).await;
    assert!(receipt.node.as_str().starts_with(&quick.key.address()));
    other.stop_now().await;
    net.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_result_is_refused_and_the_miner_goes_on() {
    let net = Net::new(Limits { text_budget_ms: 500, ..Limits::default() }).await;
    let machine = Machine::new();
    let paced = Script::answer("too late").paced(Duration::from_millis(1_500));
    let miner = machine.start(&net, TEXT, paced);
    net.ask(text()).await;
    let status = until(&miner, "refused", |s| s.counters.rejected == 1).await;
    assert_eq!((status.problem.unwrap().code, status.unsettled), (ErrorCode::StaleLease, 0));
    assert_eq!(net.coordinator.ledger_check().await.unwrap().receipts, 0);
    miner.stop_now().await;
    net.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_key_than_the_bound_one_is_refused_and_the_person_told() {
    let net = Net::new(Limits::default()).await;
    let owner = Machine::new();
    let miner = owner.start(&net, TEXT, Script::answer("mine"));
    net.end_of(net.ask(text()).await).await;
    until(&miner, "taken", |s| s.counters.accepted == 1).await;
    miner.stop_now().await;

    let thief = Machine { reward: Some(owner.key.address()), ..Machine::new() };
    let miner = thief.start(&net, TEXT, Script::answer("stolen"));
    net.ask(text()).await;
    let status = until(&miner, "refused", |s| s.counters.rejected == 1).await;
    let problem = status.problem.unwrap();
    assert!(problem.message.contains("identity wallet"), "{problem}");
    miner.stop_now().await;
    net.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn warnings_reach_the_person() {
    let club = Net::club().await;
    let other = Machine::new();
    let warned = other.start(&club, "no-such-model", Script::answer("x"));
    let status = until(&warned, "warned", |s| s.problem.is_some()).await;
    let problem = status.problem.unwrap();
    assert!(problem.message.starts_with("the network says: this network has no work"), "{problem}");
    warned.stop_now().await;
    club.end().await;
}
