//! Nodes that are asked to show a model's files, and what becomes of those that cannot.

use std::sync::Arc;
use std::time::Duration;

use neurino_coordinator::{Coordinator, CoordinatorConfig, FileRoot, Limits, admin};
use neurino_core::ModelId;
use neurino_core::file_tree::{FileBytes, LEAF_BYTES, ShownLeaf, leaf_hashes, path_of, root_of};
use neurino_protocol::ErrorCode;
use neurino_protocol::node::files::{FileChallenge, FileProof, LEAVES_MAX};
use neurino_protocol::node::{CoordinatorMessage, ModelOffer, NodeMessage, Ready, SkipReason};

use crate::audits::report;
use crate::node::{Identity, Node, output};
use crate::world::{MODEL, World, eventually, short_limits};

fn id() -> ModelId {
    ModelId::new(MODEL).unwrap()
}

fn file() -> Vec<u8> {
    (0..60 * LEAF_BYTES - 9).map(|n| (n % 251) as u8 ^ (n >> 14) as u8).collect()
}

fn limits() -> Limits {
    Limits {
        files_round_ms: 30,
        files_every_ms: 3_600_000,
        files_retry_ms: 60,
        files_within_ms: 2_000,
        silence_ms: 60_000,
        ..short_limits()
    }
}

async fn world(limits: Limits) -> World {
    let world = World::with(limits).await;
    let file = file();
    let root = FileRoot {
        model: id(),
        file: "weights.gguf".into(),
        size_bytes: file.len() as u64,
        sha256: "ab".repeat(32),
        root: root_of(&leaf_hashes(&file)).unwrap(),
    };
    let database = world.config().database;
    let set = admin::set_file_roots(&database, &id(), std::slice::from_ref(&root)).await.unwrap();
    assert_eq!((set, admin::file_roots(&database).await.unwrap()), (0, vec![root]));
    world
}

async fn node(coordinator: &Arc<Coordinator>, who: &Identity) -> Node {
    let node = who.connect(coordinator).await;
    let models = vec![ModelOffer::text(id())];
    let ready = Ready { shows_files: true, ..Ready::new(models, 2) };
    node.say(NodeMessage::Ready(ready)).await;
    node
}

async fn asked(node: &mut Node) -> FileChallenge {
    loop {
        if let CoordinatorMessage::ShowFile(challenge) = node.hear().await {
            return challenge;
        }
    }
}

fn shown(challenge: &FileChallenge, file: &[u8]) -> FileProof {
    let tree = leaf_hashes(file);
    let leaves = challenge.leaves.iter().map(|index| {
        let at = usize::try_from(*index).unwrap();
        let bytes = file.chunks(LEAF_BYTES).nth(at).unwrap().to_vec();
        ShownLeaf { index: *index, bytes: FileBytes(bytes), path: path_of(&tree, at).unwrap() }
    });
    FileProof { nonce: challenge.nonce.clone(), leaves: leaves.collect(), refused: None }
}

async fn files_of(world: &World, who: &Identity) -> serde_json::Value {
    report(world, &who.id).await["files"][0].clone()
}

#[tokio::test]
async fn who_has_the_file_shows_it_in_half_a_megabyte_and_is_left_in_peace() {
    let world = world(limits()).await;
    let who = Identity::new("rig1");
    let mut node = node(&world.coordinator, &who).await;
    let challenge = asked(&mut node).await;
    assert_eq!((&challenge.model, challenge.file.as_str()), (&id(), "weights.gguf"));
    assert_eq!(challenge.leaves.len(), LEAVES_MAX);
    let proof = NodeMessage::FileShown(shown(&challenge, &file()));
    assert!(serde_json::to_string(&proof).unwrap().len() < 512 << 10);
    node.say(proof).await;
    eventually("it is noted", async || files_of(&world, &who).await["shown_at_ms"].is_i64()).await;
    assert!(node.hears_nothing(200).await, "it is not asked again");
    world.submit("and gets jobs").await;
    node.lease().await;
    let metrics = world.coordinator.metrics_text();
    assert!(metrics.contains("neurino_files_shown_total{verdict=\"shown\"} 1"), "{metrics}");
}

#[tokio::test]
async fn who_has_another_file_gets_no_jobs_for_the_model_until_it_shows_the_right_one() {
    let world = world(limits()).await;
    let who = Identity::new("rig1");
    let mut node = node(&world.coordinator, &who).await;
    let mut other = file();
    for byte in &mut other {
        *byte ^= 1;
    }
    let first = asked(&mut node).await;
    node.say(NodeMessage::FileShown(shown(&first, &other))).await;
    eventually("it is withheld", async || files_of(&world, &who).await["withheld"] == true).await;
    world.submit("nobody serves this now").await;
    let why = loop {
        match node.hear_anything().await {
            CoordinatorMessage::NoJob(why) if why.waiting > 0 => break why,
            CoordinatorMessage::Assign(_) => panic!("it could not show the files"),
            CoordinatorMessage::ShowFile(challenge) => {
                node.say(NodeMessage::FileShown(shown(&challenge, &other))).await;
            }
            _ => node.heartbeat(&[]).await,
        }
        node.heartbeat(&[]).await;
    };
    assert_eq!(why.reasons[0].reason, SkipReason::Files { model: id() });
    assert!(why.to_string().contains("whose files could not be shown"), "{why}");
    // An answer to an earlier question, though it would be right, says nothing.
    node.say(NodeMessage::FileShown(shown(&first, &file()))).await;
    let challenge = asked(&mut node).await;
    assert_eq!(files_of(&world, &who).await["withheld"], true);
    node.say(NodeMessage::FileShown(shown(&challenge, &file()))).await;
    let lease = node.lease().await;
    node.submit(&lease, output("hello", 2)).await;
    eventually("all is well again", async || {
        let files = files_of(&world, &who).await;
        files["withheld"] == false && files["failures"] == 0
    })
    .await;
}

#[tokio::test]
async fn no_answer_a_refusal_and_going_away_count_as_wrong_ones_and_mark_the_owner() {
    let limits = Limits { files_within_ms: 1_500, audit_round_ms: 40, ..limits() };
    let world = world(limits).await;
    let who = Identity::new("rig1");
    let mut silent = node(&world.coordinator, &who).await;
    asked(&mut silent).await;
    let failures = async || files_of(&world, &who).await["failures"].as_u64().unwrap_or(0);
    eventually("silence counts", async || failures().await >= 1).await;
    let next = asked(&mut silent).await;
    let refused = Some(ErrorCode::ModelUnreadable);
    let refusal = FileProof { nonce: next.nonce, leaves: Vec::new(), refused };
    silent.say(NodeMessage::FileShown(refusal)).await;
    eventually("a refusal counts", async || failures().await >= 2).await;
    drop(silent);
    // Another machine of the owner, which shows its files: its results are looked at all the same.
    let second = Identity {
        key: Arc::clone(&who.key),
        id: neurino_core::NodeId::new(who.id.as_str().replace("rig1", "rig2")).unwrap(),
    };
    let mut marked = node(&world.coordinator, &second).await;
    let challenge = asked(&mut marked).await;
    marked.say(NodeMessage::FileShown(shown(&challenge, &file()))).await;
    world.submit("looked at").await;
    let lease = marked.lease().await;
    marked.submit(&lease, output("hello", 2)).await;
    eventually("it is audited for that", async || {
        let audits = admin::audits(&world.config().database, 10).await.unwrap();
        let suspicion = |audit: &neurino_coordinator::StoredAudit| audit.suspicion.clone();
        let words = "its owner could not show a model's files";
        audits.newest.iter().any(|audit| suspicion(audit).as_deref() == Some(words))
    })
    .await;
}

#[tokio::test]
async fn going_away_whenever_one_is_asked_is_no_answer() {
    let world = world(limits()).await;
    let who = Identity::new("rig1");
    for _ in 0..3 {
        let mut node = node(&world.coordinator, &who).await;
        asked(&mut node).await;
        drop(node);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    eventually("it counts", async || files_of(&world, &who).await["failures"] == 1).await;
}

#[tokio::test]
async fn older_programs_and_busy_ones_are_not_asked() {
    let mut world = world(limits()).await;
    let mut old = Node::ready(&world.coordinator).await;
    assert!(old.hears_nothing(200).await);
    drop(old);
    // One that has a job is asked once it has none.
    world.coordinator.shutdown().await;
    let slow = Limits { files_round_ms: 300, ..limits() };
    let config = CoordinatorConfig { limits: slow, ..world.config() };
    world.coordinator = Coordinator::open(config).await.unwrap();
    let who = Identity::new("rig1");
    let mut node = node(&world.coordinator, &who).await;
    world.submit("first").await;
    let lease = node.lease().await;
    assert!(node.hears_nothing(700).await, "not while it computes");
    node.submit(&lease, output("hello", 2)).await;
    asked(&mut node).await;
}
