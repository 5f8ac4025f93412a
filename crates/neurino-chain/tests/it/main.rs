//! Questions to a node on this machine, which answers well or misbehaves.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod node;

use std::time::{Duration, Instant};

use neurino_chain::{
    Address, ChainError, Contract, Contracts, Limits, Rpc, RpcUrl, U256, bound_identity, nft_count,
    shown_amount, staked,
};
use node::{Answer, Node};
use serde_json::json;

const WAIT: Duration = Duration::from_millis(400);
const HOLDER: Address = Address::new([0xab; 20]);

fn rpc(node: &Node) -> Rpc {
    let url = RpcUrl::read(&format!("{}/v3/secret-key", node.url)).map_err(|e| e.to_string());
    Rpc::new(url.unwrap(), Limits { wait: WAIT, bytes: 4096 }).map_err(|e| e.to_string()).unwrap()
}

fn word(n: u64) -> String {
    format!("0x{n:064x}")
}

fn contract(chain_id: u64) -> (Contract, Address) {
    let known = Contracts::built_in().binding;
    let at = known.address.unwrap();
    (Contract { chain_id, ..known }, at)
}

/// Asks a node that gives these answers in turn; the first question is always for the chain.
async fn bound(answers: Vec<Answer>) -> Result<Option<Address>, ChainError> {
    let node = Node::start(answers).await;
    let (contract, at) = contract(300);
    bound_identity(&rpc(&node), &contract, at, HOLDER).await
}

fn result(value: impl Into<serde_json::Value>) -> Answer {
    Answer::Json(json!({ "jsonrpc": "2.0", "id": 1, "result": value.into() }))
}

#[tokio::test]
async fn a_binding_is_read_and_nobody_is_bound_at_zero() {
    let chain = || result("0x12c");
    assert_eq!(bound(vec![chain(), result(word(0))]).await.unwrap(), None);
    let other = format!("0x{}{}", "0".repeat(24), "cd".repeat(20));
    let found = bound(vec![chain(), result(other)]).await.unwrap();
    assert_eq!(found, Some(Address::new([0xcd; 20])));
}

#[tokio::test]
async fn the_question_is_the_literal_one() {
    let node = Node::start(vec![result("0x1"), result(word(7))]).await;
    let (contract, at) = contract(1);
    assert_eq!(nft_count(&rpc(&node), &contract, at, HOLDER).await.unwrap(), 7);
    let asked = node.asked();
    assert_eq!(asked[0]["method"], "eth_chainId");
    let data = format!("0x70a08231{}{}", "0".repeat(24), "ab".repeat(20));
    let to = "0x7798de1ae119b76037299f9b063e39760d530c10";
    assert_eq!(asked[1]["method"], "eth_call");
    assert_eq!(asked[1]["params"], json!([{ "to": to, "data": data }, "latest"]));
}

#[tokio::test]
async fn a_stake_has_amount_decimals_and_rate() {
    let (chain, e18) = (|| result("0x2105"), 1_000_000_000_000_000_000_u64);
    let node = Node::start(vec![
        chain(),
        result(word(2 * e18 + e18 / 2)),
        chain(),
        result(word(18)),
        chain(),
        result(word(e18 + e18 / 10)),
    ])
    .await;
    let (contract, at) = contract(8453);
    let found = staked(&rpc(&node), &contract, at, HOLDER).await.unwrap();
    assert_eq!(shown_amount(found.amount, found.decimals), "2.5");
    assert_eq!(found.exchange_rate, U256::from(1_100_000_000_000_000_000_u64));
}

#[tokio::test]
async fn every_misbehaviour_has_its_error_and_none_tells_the_key() {
    let chain = || result("0x12c");
    let error = |code: i64, message: &str| {
        Answer::Json(
            json!({ "jsonrpc": "2.0", "id": 1, "error": { "code": code, "message": message } }),
        )
    };
    let long = "x".repeat(3000);
    for (answers, words) in [
        (vec![result("0x1")], "chain 1, and chain 300"),
        (vec![result("banana")], "no number"),
        (vec![result(300)], "no number"),
        (vec![error(-32005, "daily limit\u{7} reached")], "daily limit reached (code -32005)"),
        (vec![chain(), error(3, "execution reverted")], "execution reverted"),
        (vec![chain(), result("0x")], "no such contract"),
        (vec![chain(), result("0x01")], "not one word"),
        (vec![chain(), result(format!("0x{}", "f".repeat(64)))], "no address"),
        (vec![chain(), result(json!({ "a": 1 }))], "no text"),
        (vec![chain(), Answer::Json(json!({ "id": 1, "result": null }))], "empty"),
        (vec![chain(), Answer::Json(json!({ "id": 2, "result": word(0) }))], "another question"),
        (vec![Answer::Text("<html>sign in</html>")], "not JSON"),
        (vec![Answer::Status(404)], "HTTP status 404"),
        (vec![Answer::Redirect], "HTTP status 302"),
        (vec![Answer::Huge], "more than 4096 bytes"),
        (vec![Answer::Silence], "within 400 ms"),
        (vec![Answer::Trickle], "within 400 ms"),
        (vec![Answer::HangUp], "cannot be reached"),
        (vec![error(1, &long)], "says: xxx"),
    ] {
        let begun = Instant::now();
        let refused = bound(answers).await.unwrap_err();
        let told = format!("{refused} {refused:?}");
        assert!(told.contains(words), "{words}: {told}");
        assert!(!told.contains("secret-key") && told.len() < 1500, "{told}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{words}");
    }
}

#[tokio::test]
async fn counts_and_decimals_beyond_reason_are_refused() {
    let node = Node::start(vec![result("0x1"), result(format!("0x{}", "f".repeat(64)))]).await;
    let (contract, at) = contract(1);
    let told = nft_count(&rpc(&node), &contract, at, HOLDER).await.unwrap_err();
    assert!(matches!(told, ChainError::BadAnswer { .. }), "{told}");
    let chain = || result("0x1");
    let node = Node::start(vec![
        chain(),
        result(word(1)),
        chain(),
        result(word(78)),
        chain(),
        result(word(1)),
    ])
    .await;
    let told = staked(&rpc(&node), &contract, at, HOLDER).await.unwrap_err();
    assert!(told.to_string().contains("decimals"), "{told}");
}

#[tokio::test]
async fn a_node_that_is_not_there_is_told_by_its_host_alone() {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let url = RpcUrl::read(&format!("http://{address}/v3/secret-key")).map_err(|e| e.to_string());
    let rpc = Rpc::new(url.unwrap(), Limits::default()).map_err(|e| e.to_string()).unwrap();
    let refused = rpc.chain_id().await.unwrap_err();
    assert!(matches!(refused, ChainError::Unreachable { .. }));
    let told = format!("{refused} {refused:?}");
    assert!(told.contains(&address.to_string()) && !told.contains("secret-key"), "{told}");
}

/// Asks a real node with real contracts, where the environment names them.
#[tokio::test]
async fn a_real_node_answers() {
    let Ok(named) = std::env::var("NEURINO_TEST_CHAIN") else { return };
    // `url chain registry collection holder count identity`
    let named: Vec<&str> = named.split(' ').collect();
    let [url, chain, registry, collection, holder, count, identity] = named[..] else {
        panic!("seven words");
    };
    let url = RpcUrl::read(url).map_err(|e| e.to_string()).unwrap();
    let rpc = Rpc::new(url, Limits::default()).map_err(|e| e.to_string()).unwrap();
    let (contract, _) = contract(chain.parse().unwrap());
    let (registry, collection) = (registry.parse().unwrap(), collection.parse().unwrap());
    let holder: Address = holder.parse().unwrap();
    let held = nft_count(&rpc, &contract, collection, holder).await.unwrap();
    assert_eq!(held, count.parse::<u32>().unwrap());
    let bound = bound_identity(&rpc, &contract, registry, holder).await.unwrap();
    assert_eq!(bound, Some(identity.parse().unwrap()));
    let nobody = bound_identity(&rpc, &contract, registry, registry).await.unwrap();
    assert_eq!(nobody, None);
    let missing = nft_count(&rpc, &contract, Address::new([9; 20]), holder).await.unwrap_err();
    assert!(matches!(missing, ChainError::NoContract { .. }), "{missing}");
}
