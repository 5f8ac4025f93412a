//! The log of what was done to a network: who, what, when, with what result, and that it holds together.

use neurino_coordinator::{
    Coordinator, CoordinatorConfig, Database, FileRoot, PayerId, admin, epochs, in_the_name_of,
    vouchers::{self, VoucherTerms},
};
use neurino_core::file_tree::{leaf_hashes, root_of};
use neurino_core::{MicroCredits, ModelId, NodeId};
use serde_json::{Value, json};

use crate::world::{MODEL, World};

async fn lines(database: &Database) -> Vec<Value> {
    let lines = admin::log_lines(database, 0, 100).await.unwrap();
    lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn who_did_what_is_written_down_without_secrets() {
    let world = World::new().await;
    let database = world.config().database;
    let payer = PayerId::new("lab").unwrap();
    let secret = in_the_name_of("ada", async {
        let key = admin::create_api_key(&database, "lab").await.unwrap();
        admin::deposit(&database, &payer, MicroCredits(70), "invoice 1").await.unwrap();
        assert!(admin::deposit(&database, &payer, MicroCredits(-71), "back").await.is_err());
        let rotated = admin::rotate_api_key(&database, &key.info.id, 0).await.unwrap();
        admin::revoke_api_key(&database, &key.info.id).await.unwrap();
        assert!(admin::revoke_api_key(&database, &key.info.id).await.is_err());
        [key.expose_secret().to_owned(), rotated.expose_secret().to_owned()]
    })
    .await;
    let lines = lines(&database).await;
    let told: Vec<(&str, &str)> =
        lines.iter().map(|l| (l["who"].as_str().unwrap(), l["what"].as_str().unwrap())).collect();
    assert_eq!(
        told,
        [
            // The world makes itself one.
            ("this program", "key made"),
            ("ada", "key made"),
            ("ada", "credits booked"),
            ("ada", "credits booked"),
            ("ada", "key rotated"),
            ("ada", "key revoked"),
            ("ada", "key revoked"),
        ]
    );
    let results: Vec<&str> = lines.iter().map(|l| l["result"].as_str().unwrap()).collect();
    assert_eq!(results[2], "done");
    assert!(
        results[3].starts_with("refused: ") && results[3].contains("fewer credits"),
        "{results:?}"
    );
    assert!(results[6].starts_with("refused: "), "{results:?}");
    let about = json!({ "payer": "lab", "amount_micro": 70, "reference": "invoice 1" });
    assert_eq!(lines[2]["about"], about);
    assert!(lines.iter().all(|line| line["at_ms"].as_i64().unwrap() > 0));
    let all = json!(lines).to_string();
    assert!(secret.iter().chain([&world.api_key]).all(|secret| !all.contains(secret)), "{all}");
    let check = admin::log_check(&database).await.unwrap();
    assert!(check.holds() && check.lines == 7, "{check:?}");
    assert_eq!(admin::log_lines(&database, 5, 1).await.unwrap().len(), 1, "in pages");
    world.assert_books_hold().await;
}

#[tokio::test]
async fn files_that_were_never_asked_for_are_not_said_to_be_set() {
    let world = World::new().await;
    let database = world.config().database;
    let model = ModelId::new(MODEL).unwrap();
    let file = FileRoot {
        model: model.clone(),
        file: "weights.gguf".into(),
        size_bytes: 1,
        sha256: "ab".repeat(32),
        root: root_of(&leaf_hashes(b"x")).unwrap(),
    };
    for (files, before) in [(&[][..], 0), (&[file][..], 0), (&[][..], 1), (&[][..], 0)] {
        assert_eq!(admin::set_file_roots(&database, &model, files).await.unwrap(), before);
    }
    let told = lines(&database).await;
    let told: Vec<&str> = told.iter().skip(1).map(|line| line["what"].as_str().unwrap()).collect();
    let nothing = "no file roots to forget";
    assert_eq!(told, [nothing, "file roots set", "file roots forgotten", nothing]);
}

#[tokio::test]
async fn a_network_writes_down_when_it_starts_and_stops() {
    let world = World::new().await;
    world.coordinator.shutdown().await;
    let config = CoordinatorConfig { practice: false, ..world.config() };
    let database = config.database.clone();
    let coordinator = Coordinator::open(config).await.unwrap();
    coordinator.shutdown().await;
    let told = lines(&database).await;
    let told: Vec<&str> = told.iter().map(|line| line["what"].as_str().unwrap()).collect();
    assert_eq!(told, ["key made", "started", "stopped"], "the practice network's come and go");
}

#[tokio::test]
async fn the_log_cannot_be_changed_and_a_forgery_shows() {
    use sqlx::Connection as _;
    let world = World::new().await;
    let database = world.config().database;
    admin::create_api_key(&database, "one").await.unwrap();
    admin::create_api_key(&database, "two").await.unwrap();
    // By hand, so into a file alone.
    let Database::Sqlite(path) = &database else { return };
    let mut books = sqlx::SqliteConnection::connect(path.to_str().unwrap()).await.unwrap();
    for statement in ["UPDATE admin_log SET line = '{}'", "DELETE FROM admin_log"] {
        assert!(sqlx::query(statement).execute(&mut books).await.is_err(), "{statement}");
    }
    // Who owns the file can take the rules out; the chain still tells.
    for statement in [
        "DROP TRIGGER admin_log_never_changes",
        "UPDATE admin_log SET line = replace(line, 'one', 'won') WHERE number = 2",
    ] {
        sqlx::query(statement).execute(&mut books).await.unwrap();
    }
    books.close().await.unwrap();
    let check = admin::log_check(&database).await.unwrap();
    assert_eq!((check.holds(), check.lines, check.broken_at), (false, 2, Some(3)), "{check:?}");
}

#[tokio::test]
async fn vouchers_and_holdings_are_acts_too() {
    let world = World::new().await;
    let database = world.config().database;
    let address = |digit: &str| format!("0x{}", digit.repeat(40)).parse().unwrap();
    let terms = VoucherTerms {
        chain_id: 1,
        contract: address("a"),
        gateway: address("b"),
        units_per_micro: 1,
    };
    vouchers::set_terms(&database, &terms).await.unwrap();
    vouchers::open_channel(&database, address("c"), MicroCredits(50)).await.unwrap();
    vouchers::close_channel(&database, address("c")).await.unwrap();
    assert!(vouchers::close_channel(&database, address("c")).await.is_err());
    let holdings = |nfts: u32| {
        let snapshot = json!({ "chain_id": 1, "block": 5, "taken_at_ms": 7 });
        let holder =
            json!({ "reward": format!("0x{}", "d".repeat(40)), "nfts": nfts, "stake": "0" });
        let all =
            json!({ "snapshot": snapshot, "holders": [holder], "bindings": [], "payers": [] });
        serde_json::from_value(all).unwrap()
    };
    epochs::keep_holdings(&database, holdings(1)).await.unwrap();
    assert!(epochs::keep_holdings(&database, holdings(2)).await.is_err());
    let lines = lines(&database).await;
    let told: Vec<(&str, bool)> =
        lines.iter().map(|l| (l["what"].as_str().unwrap(), l["result"] == "done")).collect();
    assert_eq!(
        told[1..],
        [
            ("voucher terms set", true),
            ("voucher channel opened", true),
            ("voucher channel closed", true),
            ("voucher channel closed", false),
            ("holdings kept", true),
            ("holdings kept", false),
        ]
    );
    assert_eq!(lines[2]["about"]["deposit_micro"], 50);
    assert!(admin::log_check(&database).await.unwrap().holds());
}

#[tokio::test]
async fn an_act_whose_line_cannot_be_written_is_not_done() {
    use sqlx::Connection as _;
    let world = World::new().await;
    let database = world.config().database;
    let Database::Sqlite(path) = &database else { return };
    let mut books = sqlx::SqliteConnection::connect(path.to_str().unwrap()).await.unwrap();
    let full = "CREATE TRIGGER full BEFORE INSERT ON admin_log \
                BEGIN SELECT RAISE(ABORT, 'the disk is full'); END";
    sqlx::query(full).execute(&mut books).await.unwrap();
    let key = admin::api_keys(&database).await.unwrap()[0].id.clone();
    let payer = PayerId::new("lab").unwrap();
    let booked = admin::deposit(&database, &payer, MicroCredits(70), "invoice 1").await;
    assert!(booked.is_err());
    let judge = NodeId::new(format!("0x{}", "e".repeat(40))).unwrap();
    assert!(admin::set_validator(&database, &judge, true).await.is_err());
    let revoked = admin::revoke_api_key(&database, &key).await;
    assert!(revoked.is_err());
    sqlx::query("DROP TRIGGER full").execute(&mut books).await.unwrap();
    books.close().await.unwrap();
    assert!(admin::credits(&database).await.unwrap().payers.is_empty());
    assert!(admin::audits(&database, 1).await.unwrap().validators.is_empty());
    assert!(admin::revoke_api_key(&database, &key).await.is_ok());
}
