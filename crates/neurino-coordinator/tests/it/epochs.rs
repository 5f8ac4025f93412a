//! Epochs from outside: made from real jobs, read by HTTP, computed again.

use axum::http::{Method, StatusCode};
use neurino_coordinator::epochs::{self, Binding, Holdings, Owner};
use neurino_coordinator::{CoordinatorError, Database, KeyTerms, PayerId, admin};
use neurino_core::{JobId, MicroCredits, NodeId, PointsKind};
use neurino_ledger::epoch::{
    Address, EPOCH_MS, Entry, EpochFile, Holder, Snapshot, Source, Tokens, check_against,
    check_entries, epoch_of, read_entries,
};
use serde_json::{Value, json};

use crate::node::{Identity, Node, output};
use crate::world::{MODEL, World, chat_body, code};

/// A time at which this week's epoch is due: its pay can no longer be called back.
fn next_week_ms() -> i64 {
    now_ms() + 2 * EPOCH_MS + 2 * 3600 * 1000
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

fn address(node: &NodeId) -> Address {
    node.as_str()[..42].parse().unwrap()
}

async fn key(world: &World, payer: &str, prepaid: bool) -> String {
    let payer = PayerId::new(payer).unwrap();
    let terms = KeyTerms { payer: Some(payer), prepaid, ..KeyTerms::default() };
    world.coordinator.create_api_key_with("k", terms).await.unwrap().expose_secret().to_owned()
}

/// One answered chat of 1000 tokens.
async fn chat(world: &World, node: &mut Node, key: &str) {
    let body = chat_body(|body| body["max_tokens"] = json!(990)).to_string();
    let asked = world.send(Method::POST, "/v1/chat/completions", Some(key), &[], body);
    let served = async {
        let lease = node.lease().await;
        node.submit(&lease, output(&"hello ".repeat(990), 990)).await;
        node.settled().await
    };
    let ((status, body), _) = tokio::join!(asked, served);
    assert_eq!(status, StatusCode::OK, "{body}");
}

async fn text(world: &World, path: &str) -> String {
    let response = world.raw(Method::GET, path, None, &[], "").await;
    assert_eq!(response.status(), StatusCode::OK, "{path}");
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 24).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn file(world: &World, epoch: i64) -> EpochFile {
    let body = text(world, &format!("/v1/epochs/{epoch}")).await;
    let file: EpochFile = serde_json::from_str(&body).unwrap();
    assert_eq!(file.canonical().unwrap(), body, "served as it was signed");
    file.verify().unwrap();
    let message = file.message().unwrap();
    neurino_wallet::verify(&message, &file.signature, &world.coordinator.address()).unwrap();
    check_entries(&file, &entries(world, epoch).await).unwrap();
    file
}

async fn entries(world: &World, epoch: i64) -> Vec<Entry> {
    read_entries(&text(world, &format!("/v1/epochs/{epoch}/entries")).await).unwrap()
}

fn points(file: &EpochFile, node: &NodeId) -> i64 {
    let own = file.inputs.nodes.iter().find(|own| own.node == *node).unwrap();
    own.points.of(PointsKind::Llama).earned_micro
}

#[tokio::test]
async fn a_week_of_work_becomes_a_file_that_anybody_computes_again() {
    let world = World::new().await;
    let database = world.config().database;
    let mut node = Node::ready(&world.coordinator).await;
    let id = node.identity.id.clone();
    let (paying, free, own) = (
        key(&world, "lab", true).await,
        key(&world, "guests", false).await,
        key(&world, "rig-owner", true).await,
    );
    for payer in ["lab", "rig-owner"] {
        let payer = PayerId::new(payer).unwrap();
        admin::deposit(&database, &payer, MicroCredits(1_000_000), "1").await.unwrap();
    }
    let holdings = Holdings {
        snapshot: Snapshot { chain_id: 1, block: 7, taken_at_ms: now_ms() },
        holders: vec![Holder { reward: Address([5; 20]), nfts: 1, stake: Tokens(0) }],
        bindings: vec![Binding { identity: address(&id), reward: Address([5; 20]) }],
        payers: vec![Owner { payer: "rig-owner".into(), owner: Address([5; 20]) }],
    };
    epochs::keep_holdings(&database, holdings.clone()).await.unwrap();
    epochs::keep_holdings(&database, holdings.clone()).await.unwrap();
    let mut other = holdings.clone();
    other.holders.clear();
    assert!(epochs::keep_holdings(&database, other.clone()).await.is_err(), "of that very time");
    other.bindings.push(other.bindings[0]);
    assert!(epochs::keep_holdings(&database, other).await.is_err(), "twice");
    for key in [&paying, &paying, &free, &own] {
        chat(&world, &mut node, key).await;
    }

    assert!(world.coordinator.make_epochs(now_ms()).await.unwrap().is_empty(), "not over");
    let epoch = epoch_of(now_ms());
    assert_eq!(world.coordinator.make_epochs(next_week_ms()).await.unwrap(), [epoch]);
    let file = file(&world, epoch).await;
    assert_eq!(points(&file, &id), 4_000_000);
    // Ten micro-credits each were paid for two of them, and 400 stand for a point. The guests paid nothing.
    let demand = &file.inputs.demand.llama;
    assert_eq!((demand.raw_micro, demand.paid_micro), (4_000_000, 2_000_000));
    assert_eq!((demand.free_micro, demand.own_micro), (1_000_000, 1_000_000));
    assert_eq!((demand.organic_micro, demand.fees_micro), (50_000, 20));
    assert_eq!(file.result.accounts.len(), 1);
    assert_eq!(file.result.accounts[0].reward, Address([5; 20]), "whom the key is bound to");
    assert_eq!(file.result.nodes[0].nft_ppm.llama, 1_100_000);
    assert_eq!(file.result.pools.llama.base.paid, file.result.pools.llama.base.amount);
    file.proof(Address([5; 20])).unwrap().check().unwrap();
    let sources: Vec<Source> = entries(&world, epoch).await.iter().map(|e| e.source).collect();
    assert_eq!(sources, [Source::Paid, Source::Paid, Source::Free, Source::Own]);
    // Whoever has the books finds there who a payer is; of another network's jobs they know nothing.
    let jobs: Vec<JobId> = entries(&world, epoch).await.iter().map(|entry| entry.job).collect();
    let stranger = JobId(uuid::Uuid::nil());
    let asked = [jobs[0], jobs[2], stranger];
    let who = epochs::payers_beside(&database, &asked).await.unwrap();
    let name = |job: &JobId| who.get(job).map(PayerId::as_str);
    assert_eq!(asked.each_ref().map(name), [Some("lab"), Some("guests"), None]);
    let page = text(&world, "/demand").await;
    assert!(page.contains("<td>4.000</td><td>2.000</td><td>1.000</td><td>1.000</td>"), "{page}");
    assert!(page.contains("<td>0.050</td><td>1.2 %</td>"), "raw and organic: {page}");
    assert!(page.contains(MODEL) && !page.contains("<script"), "{page}");
    let lines = text(&world, &format!("/v1/epochs/{epoch}/entries")).await;
    assert!(!lines.contains("lab") && !lines.contains("guests"), "payers are not named");
    assert_eq!(
        text(&world, &format!("/v1/epochs/{epoch}/entries?from=3")).await.lines().count(),
        1
    );

    let (status, list) = world.send(Method::GET, "/v1/epochs", None, &[], "").await;
    assert_eq!((status, &list["epochs"][0]["epoch"]), (StatusCode::OK, &json!(epoch)));
    assert_eq!(list["epochs"][0]["root"], json!(file.result.root));
    assert_eq!(list["epochs"][0]["pools"]["llama"]["demand"]["raw_micro"], 4_000_000);
    assert_eq!(list["current"]["epoch"], json!(epoch));
    world.assert_books_hold().await;
}

#[tokio::test]
async fn what_comes_late_is_in_the_next_epoch_and_the_past_stays() {
    let mut world = World::new().await;
    let mut node = Node::ready(&world.coordinator).await;
    let free = key(&world, "guests", false).await;
    chat(&world, &mut node, &free).await;
    let epoch = epoch_of(now_ms());
    world.coordinator.make_epochs(next_week_ms()).await.unwrap();
    let published = text(&world, &format!("/v1/epochs/{epoch}")).await;
    // As seen from then, this result was settled in a week that is published.
    chat(&world, &mut node, &free).await;
    drop(node);
    world.restart().await;
    assert!(world.coordinator.make_epochs(next_week_ms()).await.unwrap().is_empty());
    let later_ms = next_week_ms() + EPOCH_MS;
    assert_eq!(world.coordinator.make_epochs(later_ms).await.unwrap(), [epoch + 1]);
    assert!(world.coordinator.make_epochs(later_ms).await.unwrap().is_empty(), "only once");
    assert_eq!(text(&world, &format!("/v1/epochs/{epoch}")).await, published);
    let (first, second) = (file(&world, epoch).await, file(&world, epoch + 1).await);
    check_against(&second, &first).unwrap();
    let counts = |file: &EpochFile| file.inputs.demand.llama.jobs;
    assert_eq!((counts(&first), counts(&second)), (1, 1));
    let cumulative = |file: &EpochFile| file.result.accounts[0].cumulative.0;
    assert_eq!(cumulative(&second), 2 * cumulative(&first));
}

/// Rows as the audits write them; the audits themselves have tests of their own.
async fn convict(world: &World, node: &NodeId, at_ms: i64) {
    use sqlx::Connection as _;
    // By hand, so into a file alone.
    let Database::Sqlite(path) = world.config().database else { return };
    let mut books = sqlx::SqliteConnection::connect(path.to_str().unwrap()).await.unwrap();
    for statement in [
        "INSERT INTO conviction (id, node, at_ms, since_ms, evidence) VALUES (1, $1, $2, 0, '{}')",
        "INSERT INTO clawback (lease, node, conviction, at_ms) \
         SELECT lease, node, 1, $2 FROM receipt WHERE node = $1",
    ] {
        let done = sqlx::query(statement).bind(node.as_str()).bind(at_ms).execute(&mut books);
        done.await.unwrap();
    }
    books.close().await.unwrap();
}

#[tokio::test]
async fn pay_that_is_called_back_is_owed_in_the_next_epoch() {
    let world = World::new().await;
    let free = key(&world, "guests", false).await;
    let mut cheat = Identity::new("rig1").connect(&world.coordinator).await;
    cheat.announce(&[MODEL], 1).await;
    chat(&world, &mut cheat, &free).await;
    let epoch = epoch_of(now_ms());
    world.coordinator.make_epochs(next_week_ms()).await.unwrap();
    let id = cheat.identity.id.clone();
    if !matches!(world.config().database, Database::Sqlite(_)) {
        return;
    }
    convict(&world, &id, now_ms()).await;
    world.coordinator.make_epochs(next_week_ms() + EPOCH_MS).await.unwrap();
    let (first, second) = (file(&world, epoch).await, file(&world, epoch + 1).await);
    check_against(&second, &first).unwrap();
    assert_eq!(second.inputs.nodes[0].points.llama.called_back_micro, 1_000_000);
    assert_eq!(second.result.nodes[0].carried_micro.llama, -1_000_000);
    assert_eq!(second.result.paid, Tokens::ZERO);
    assert_eq!(second.result.root, first.result.root, "nothing new to claim");
}

#[tokio::test]
async fn a_cheat_that_is_convicted_in_the_week_after_has_nothing_to_claim() {
    use sqlx::Connection as _;
    let world = World::new().await;
    let free = key(&world, "guests", false).await;
    let mut cheat = Identity::new("rig1").connect(&world.coordinator).await;
    cheat.announce(&[MODEL], 1).await;
    chat(&world, &mut cheat, &free).await;
    let epoch = epoch_of(now_ms());
    let id = cheat.identity.id.clone();
    let Database::Sqlite(path) = world.config().database else { return };
    let over_ms = (epoch + 1) * EPOCH_MS;
    assert!(
        world.coordinator.make_epochs(over_ms + EPOCH_MS / 2).await.unwrap().is_empty(),
        "its pay can still be called back"
    );
    convict(&world, &id, over_ms + EPOCH_MS / 2).await;
    world.coordinator.make_epochs(next_week_ms()).await.unwrap();
    let first = file(&world, epoch).await;
    assert_eq!(first.inputs.nodes[0].points.llama.called_back_micro, 1_000_000);
    assert_eq!((first.result.paid, first.result.nodes[0].carried_micro.llama), (Tokens::ZERO, 0));
    // An appeal that is granted once the file is out: what is owed is in a later one.
    let mut books = sqlx::SqliteConnection::connect(path.to_str().unwrap()).await.unwrap();
    let restored = sqlx::query("UPDATE clawback SET restored_at_ms = $1").bind(next_week_ms());
    restored.execute(&mut books).await.unwrap();
    books.close().await.unwrap();
    let later_ms = next_week_ms() + 2 * EPOCH_MS;
    let [second] = world.coordinator.make_epochs(later_ms).await.unwrap()[..] else {
        panic!("one more epoch")
    };
    let second = file(&world, second).await;
    check_against(&second, &first).unwrap();
    assert_eq!(second.inputs.nodes[0].points.llama.given_back_micro, 1_000_000);
    assert!(second.result.paid > Tokens::ZERO);
}

#[tokio::test]
async fn two_makers_publish_one_epoch() {
    let world = World::new().await;
    let mut node = Node::ready(&world.coordinator).await;
    let free = key(&world, "guests", false).await;
    chat(&world, &mut node, &free).await;
    let config = world.config();
    let beside = epochs::make_beside(&config.database, "weekly1", &config.key, next_week_ms());
    let here = world.coordinator.make_epochs(next_week_ms());
    let (beside, here) = tokio::join!(beside, here);
    let made = [beside.unwrap_or_default(), here.unwrap_or_default()].concat();
    assert_eq!(made, [epoch_of(now_ms())], "one of them");
    file(&world, made[0]).await;
    let other = neurino_wallet::IdentityKey::generate(&mut rand::rng());
    let refused = epochs::make_beside(&config.database, "weekly1", &other, next_week_ms()).await;
    assert!(matches!(refused, Err(CoordinatorError::OtherCoordinator { .. })), "{refused:?}");
    assert!(epochs::make_beside(&config.database, "season9", &config.key, 0).await.is_err());
    let nowhere = Database::Sqlite("/nowhere/books.sqlite".into());
    assert!(epochs::make_beside(&nowhere, "weekly1", &config.key, 0).await.is_err());
}

#[tokio::test]
async fn a_published_epoch_cannot_be_changed_in_the_books() {
    use sqlx::Connection as _;
    let world = World::new().await;
    let mut node = Node::ready(&world.coordinator).await;
    let free = key(&world, "guests", false).await;
    chat(&world, &mut node, &free).await;
    world.coordinator.make_epochs(next_week_ms()).await.unwrap();
    // By hand, so into a file alone.
    let Database::Sqlite(path) = world.config().database else { return };
    let mut books = sqlx::SqliteConnection::connect(path.to_str().unwrap()).await.unwrap();
    for statement in [
        "UPDATE epoch_file SET body = '{}'",
        "DELETE FROM epoch_file",
        "UPDATE epoch_entry SET organic_micro = 1",
        "DELETE FROM epoch_entry",
        "INSERT INTO epoch_entry SELECT lease, movement, epoch, 9, 0, '' FROM epoch_entry",
    ] {
        assert!(sqlx::query(statement).execute(&mut books).await.is_err(), "{statement}");
    }
    books.close().await.unwrap();
}

#[tokio::test]
async fn who_asks_for_no_epoch_is_told() {
    let world = World::new().await;
    let ask = async |path: &str| world.send(Method::GET, path, None, &[], "").await;
    for path in
        ["/v1/epochs/x", "/v1/epochs/9999999999999999999", "/v1/epochs/-", "/v1/epochs?before=x"]
    {
        let (status, body) = ask(path).await;
        assert_eq!((status, code(&body)), (StatusCode::BAD_REQUEST, "invalid_request"), "{path}");
    }
    for from in ["-1", "x", "4294967296"] {
        let (status, _) = ask(&format!("/v1/epochs/1/entries?from={from}")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{from}");
    }
    let (status, body) = ask("/v1/epochs/12").await;
    assert_eq!((status, code(&body)), (StatusCode::NOT_FOUND, "not_found"));
    let (status, list): (_, Value) = ask("/v1/epochs?before=-5").await;
    assert_eq!((status, &list["epochs"]), (StatusCode::OK, &json!([])));
    assert_eq!(text(&world, "/v1/epochs/1/entries").await, "");
}
