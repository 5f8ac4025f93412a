//! Requests that are paid with vouchers, and those that are not.

use std::sync::Arc;

use axum::http::{Method, StatusCode};
use neurino_coordinator::vouchers::{self, VoucherTerms};
use neurino_coordinator::{Account, Coordinator, CoordinatorConfig, Limits, PayerId, Unit};
use neurino_core::MicroCredits;
use neurino_ledger::epoch::{Address, epoch_of};
use neurino_wallet::{IdentityKey, SignedVoucher, Voucher};
use serde_json::{Value, json};

use crate::node::{Node, output};
use crate::world::{World, chat_body, code, eventually, short_limits};

const CHAT: &str = "/v1/chat/completions";

struct Payer {
    key: IdentityKey,
    terms: VoucherTerms,
}

fn bytes(address: &str) -> [u8; 20] {
    address.parse::<Address>().unwrap().0
}

impl Payer {
    async fn with_deposit(world: &World, deposit: i64) -> Self {
        Self::with_units(world, deposit, 1).await
    }

    async fn with_units(world: &World, deposit: i64, units_per_micro: u64) -> Self {
        let terms = VoucherTerms {
            chain_id: 31_337,
            contract: Address([7; 20]),
            gateway: world.coordinator.address().parse().unwrap(),
            units_per_micro,
        };
        let payer = Self { key: IdentityKey::generate(&mut rand::rng()), terms };
        let database = world.config().database;
        vouchers::set_terms(&database, &terms).await.unwrap();
        let deposit = MicroCredits(deposit);
        vouchers::open_channel(&database, payer.address(), deposit).await.unwrap();
        eventually("the terms are known", async || {
            let (_, shown) = world.send(Method::GET, "/v1/vouchers", None, &[], "").await;
            shown["terms"]["chain_id"] == 31_337
        })
        .await;
        payer
    }

    fn address(&self) -> Address {
        self.key.address().parse().unwrap()
    }

    fn id(&self) -> PayerId {
        PayerId::new(self.key.address()).unwrap()
    }

    fn voucher(&self, cumulative: u128) -> Voucher {
        Voucher {
            payer: self.address().0,
            gateway: self.terms.gateway.0,
            cumulative: cumulative.try_into().unwrap(),
            epoch: u64::try_from(this_epoch() + 3).unwrap(),
        }
    }

    fn signed(&self, voucher: Voucher) -> String {
        self.terms.escrow().sign(&self.key, voucher).map_err(|e| e.to_string()).unwrap().to_string()
    }

    fn promise(&self, cumulative: u128) -> String {
        self.signed(self.voucher(cumulative))
    }
}

fn this_epoch() -> i64 {
    epoch_of(jiff::Timestamp::now().as_millisecond())
}

async fn credits_of(world: &World, account: Account) -> i64 {
    let check = world.coordinator.ledger_check().await.unwrap();
    let own = check.balances.iter().find(|b| b.account == account && b.points == Unit::Credit);
    own.map_or(0, |balance| balance.balance_micro.0)
}

/// A chat of at most 3990 tokens, which may cost 43 micro-credits with its prompt at most.
async fn ask(world: &World, headers: &[(&str, &str)]) -> (StatusCode, Value) {
    let body = chat_body(|body| body["max_tokens"] = json!(3990)).to_string();
    world.send(Method::POST, CHAT, None, headers, body).await
}

/// The same, answered in full.
async fn served(world: &World, node: &mut Node, headers: &[(&str, &str)]) -> Value {
    let answering = async {
        let lease = node.lease().await;
        node.submit(&lease, output(&"hello ".repeat(3990), 3990)).await;
        node.settled().await
    };
    let ((status, body), _) = tokio::join!(ask(world, headers), answering);
    assert_eq!(status, StatusCode::OK, "{body}");
    body
}

async fn refused(world: &World, voucher: &str, name: &str) -> (StatusCode, Value) {
    let (status, body) = ask(world, &[("neurino-voucher", voucher)]).await;
    assert_eq!(code(&body), name, "{voucher}: {body}");
    (status, body)
}

#[tokio::test]
async fn a_voucher_pays_and_what_it_leaves_over_stays() {
    let world = World::new().await;
    let payer = Payer::with_deposit(&world, 1_000).await;
    let mut node = Node::ready(&world.coordinator).await;
    served(&world, &mut node, &[("neurino-voucher", &payer.promise(100))]).await;
    // 10 tokens in at 5, 3990 out at 10 micro-credits a thousand.
    let balance = || credits_of(&world, Account::Payer(payer.id()));
    assert_eq!(balance().await, 100 - 40);
    let again = payer.promise(100);
    let (status, body) = refused(&world, &again, "voucher_used").await;
    assert_eq!(status, StatusCode::PAYMENT_REQUIRED);
    assert_eq!(body["error"]["type"], "payment_required");
    let required = world
        .raw(
            Method::POST,
            CHAT,
            None,
            &[("neurino-voucher", &again)],
            chat_body(|_| {}).to_string(),
        )
        .await;
    assert_eq!(required.headers()["neurino-voucher-required"], "101", "one more is enough");
    served(&world, &mut node, &[("neurino-voucher", &payer.promise(101))]).await;
    assert_eq!(balance().await, 101 - 80);
    world.assert_books_hold().await;
    let path = format!("/v1/vouchers/{}", payer.address());
    let (_, shown) = world.send(Method::GET, &path, None, &[], "").await;
    assert_eq!((&shown["spent_micro"], &shown["available_micro"]), (&json!(80), &json!(21)));
    assert_eq!((&shown["cumulative_micro"], shown.get("signature")), (&json!(101), None));
    let (_, all) = vouchers::channels(&world.config().database).await.unwrap();
    let kept: SignedVoucher = payer.promise(101).parse().unwrap();
    assert_eq!(all[0].signature.as_ref(), Some(&kept.signature), "it can be collected");
}

#[tokio::test]
async fn what_does_not_pay_is_refused_and_books_nothing() {
    let world = World::new().await;
    let payer = Payer::with_deposit(&world, 1_000).await;
    let (status, _) = refused(&world, &payer.promise(1), "voucher_too_low").await;
    assert_eq!(status, StatusCode::PAYMENT_REQUIRED);
    refused(&world, &payer.promise(1_001), "deposit_too_low").await;
    refused(&world, &payer.promise(u128::MAX), "invalid_value").await;
    refused(&world, &payer.promise(0), "voucher_used").await;
    let voucher = payer.voucher(500);
    let now = u64::try_from(this_epoch()).unwrap();
    for epoch in [0, now - 1, now + 60, u64::MAX] {
        let signed = payer.signed(Voucher { epoch, ..voucher });
        let (status, body) = refused(&world, &signed, "voucher_expired").await;
        assert_eq!(status, StatusCode::PAYMENT_REQUIRED);
        let words = body["error"]["message"].as_str().unwrap();
        assert!(words.contains(&format!("it is epoch {now} now")), "{words}");
    }
    for epoch in [now, now + 1] {
        let signed = payer.signed(Voucher { epoch, ..voucher });
        let (status, body) = refused(&world, &signed, "voucher_ends_early").await;
        assert_eq!(status, StatusCode::PAYMENT_REQUIRED);
        let words = body["error"]["message"].as_str().unwrap();
        assert!(words.contains(&format!("sign one for epoch {} or later", now + 2)), "{words}");
    }
    let elsewhere = payer.signed(Voucher { gateway: [9; 20], ..voucher });
    refused(&world, &elsewhere, "invalid_request").await;
    let stranger = Payer { key: IdentityKey::generate(&mut rand::rng()), terms: payer.terms };
    refused(&world, &stranger.promise(500), "voucher_channel_unknown").await;
    for text in ["", "x", "payer=0x; gateway=1", &"a".repeat(5_000)] {
        refused(&world, text, "invalid_request").await;
    }
    let both = [("neurino-voucher", &*payer.promise(500)), ("authorization", "Bearer nrn-x")];
    let (status, _) = ask(&world, &both).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "who pays?");
    assert_eq!(credits_of(&world, Account::Payer(payer.id())).await, 0);
    assert_eq!(credits_of(&world, Account::Issuance).await, 0);
}

#[tokio::test]
async fn a_long_promise_is_not_replaced_by_a_shorter_one() {
    let world = World::new().await;
    let payer = Payer::with_deposit(&world, 1_000).await;
    let mut node = Node::ready(&world.coordinator).await;
    let long = payer.voucher(100);
    let soon = u64::try_from(this_epoch() + 2).unwrap();
    assert!(soon < long.epoch);
    served(&world, &mut node, &[("neurino-voucher", &payer.signed(long))]).await;
    let shorter = payer.signed(Voucher { epoch: soon, ..payer.voucher(200) });
    let (_, body) = refused(&world, &shorter, "voucher_ends_early").await;
    let words = body["error"]["message"].as_str().unwrap();
    assert!(words.contains(&format!("until epoch {}", long.epoch)), "{words}");
    let (_, all) = vouchers::channels(&world.config().database).await.unwrap();
    let kept: SignedVoucher = payer.signed(long).parse().unwrap();
    assert_eq!(all[0].signature.as_ref(), Some(&kept.signature), "the long one can be collected");
    assert_eq!((all[0].cumulative.0, all[0].epoch), (100, i64::try_from(long.epoch).unwrap()));
}

#[tokio::test]
async fn what_the_payer_did_not_sign_is_refused() {
    let world = World::new().await;
    let payer = Payer::with_deposit(&world, 1_000).await;
    let good: SignedVoucher = payer.promise(500).parse().unwrap();
    let forged = |voucher: Voucher| SignedVoucher { voucher, ..good.clone() }.to_string();
    let mut other = payer.terms;
    other.chain_id = 1;
    let of_other_chain = other.escrow().sign(&payer.key, payer.voucher(500)).ok().unwrap();
    let mut flipped = good.signature.clone().into_bytes();
    flipped[20] = if flipped[20] == b'0' { b'1' } else { b'0' };
    let flipped = String::from_utf8(flipped).unwrap();
    for voucher in [
        forged(payer.voucher(900)),
        forged(Voucher { epoch: good.voucher.epoch - 1, ..good.voucher }),
        of_other_chain.to_string(),
        SignedVoucher { signature: flipped, ..good.clone() }.to_string(),
        SignedVoucher { signature: format!("0x{}", "00".repeat(65)), ..good.clone() }.to_string(),
    ] {
        let (status, _) = refused(&world, &voucher, "bad_signature").await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
    }
    // Somebody else's channel, signed by oneself.
    let thief = IdentityKey::generate(&mut rand::rng());
    let own = Voucher { payer: bytes(&thief.address()), ..payer.voucher(500) };
    let stolen = payer.terms.escrow().sign(&thief, own).ok().unwrap();
    let stolen = SignedVoucher { voucher: payer.voucher(500), ..stolen };
    refused(&world, &stolen.to_string(), "bad_signature").await;
    assert_eq!(credits_of(&world, Account::Issuance).await, 0, "nothing was booked");
}

#[tokio::test]
async fn one_voucher_is_taken_once_however_often_it_comes() {
    let world = World::new().await;
    let payer = Payer::with_deposit(&world, 1_000_000).await;
    let promise = payer.promise(900);
    let headers = [("neurino-voucher", &*promise)];
    let all = futures::future::join_all((0..12).map(|_| async {
        let body = serde_json::to_value(crate::world::spec(crate::world::MODEL, "hi")).unwrap();
        world.send(Method::POST, "/v1/jobs", None, &headers, body.to_string()).await.0
    }));
    let taken = all.await.into_iter().filter(|status| *status == StatusCode::ACCEPTED).count();
    assert_eq!(taken, 1);
    assert_eq!(credits_of(&world, Account::Issuance).await, -900);
    world.assert_books_hold().await;
}

#[tokio::test]
async fn a_repeat_under_its_key_needs_no_further_promise() {
    let mut world = World::new().await;
    let payer = Payer::with_deposit(&world, 1_000).await;
    let promise = payer.promise(100);
    let headers = [("neurino-voucher", &*promise), ("idempotency-key", "one")];
    let first = {
        let mut node = Node::ready(&world.coordinator).await;
        served(&world, &mut node, &headers).await
    };
    world.restart().await;
    let (status, again) = ask(&world, &headers).await;
    assert_eq!((status, &again["id"]), (StatusCode::OK, &first["id"]));
    let other = [("neurino-voucher", &*promise), ("idempotency-key", "two")];
    let (status, _) = ask(&world, &other).await;
    assert_eq!(status, StatusCode::PAYMENT_REQUIRED, "a caught voucher buys nothing new");
    assert_eq!(credits_of(&world, Account::Issuance).await, -100);
}

#[tokio::test]
async fn an_operator_opens_and_closes_channels_without_losing_promises() {
    let world = World::new().await;
    let payer = Payer::with_units(&world, 1_000, 1_000_000_000_000).await;
    let database = world.config().database;
    let mut node = Node::ready(&world.coordinator).await;
    refused(&world, &payer.promise(100_000_000_000_001), "invalid_value").await;
    served(&world, &mut node, &[("neurino-voucher", &payer.promise(100_000_000_000_000))]).await;
    let open = |micro| vouchers::open_channel(&database, payer.address(), MicroCredits(micro));
    assert!(open(99).await.is_err(), "less than was promised");
    assert!(open(0).await.is_err() && open(-1).await.is_err());
    open(2_000).await.unwrap();
    let elsewhere = VoucherTerms { contract: Address([8; 20]), ..payer.terms };
    assert!(vouchers::set_terms(&database, &elsewhere).await.is_err(), "promises are kept");
    let nothing = VoucherTerms { units_per_micro: 0, ..payer.terms };
    assert!(vouchers::set_terms(&database, &nothing).await.is_err());
    vouchers::close_channel(&database, payer.address()).await.unwrap();
    assert!(vouchers::close_channel(&database, payer.address()).await.is_err(), "closed already");
    let more = payer.promise(300_000_000_000_000);
    refused(&world, &more, "voucher_channel_unknown").await;
    let (_, all) = vouchers::channels(&database).await.unwrap();
    assert_eq!((all[0].cumulative.0, all[0].spent.0, all[0].is_open), (100, 40, false));
}

#[tokio::test]
async fn without_terms_no_voucher_is_taken() {
    let world = World::new().await;
    let (_, shown) = world.send(Method::GET, "/v1/vouchers", None, &[], "").await;
    assert_eq!(shown["terms"], Value::Null);
    let (status, _) = ask(&world, &[("neurino-voucher", "x")]).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let key = Arc::new(IdentityKey::generate(&mut rand::rng()));
    let path = format!("/v1/vouchers/{}", key.address());
    assert_eq!(world.send(Method::GET, &path, None, &[], "").await.0, StatusCode::NOT_FOUND);
    assert_eq!(
        world.send(Method::GET, "/v1/vouchers/x", None, &[], "").await.0,
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn a_forged_voucher_does_not_tell_whether_there_is_a_deposit() {
    let world = World::new().await;
    let payer = Payer::with_deposit(&world, 1_000).await;
    // Nobody's: the books are not even asked.
    let stranger = Payer { key: IdentityKey::generate(&mut rand::rng()), terms: payer.terms };
    let good: SignedVoucher = payer.promise(500).parse().unwrap();
    let forged = SignedVoucher { voucher: stranger.voucher(500), ..good };
    let (status, _) = refused(&world, &forged.to_string(), "bad_signature").await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn one_address_has_few_channels_and_bad_vouchers_looked_up_and_others_are_not_hindered() {
    let limits = Limits { voucher_lookups_per_min: 3, ..short_limits() };
    let world = World::with(limits.clone()).await;
    let payer = Payer::with_deposit(&world, 1_000).await;
    world.coordinator.shutdown().await;
    let config = world.config();
    let config =
        CoordinatorConfig { client_address_header: Some("x-forwarded-for".into()), ..config };
    let coordinator = Coordinator::open(config).await.unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let stop = tokio_util::sync::CancellationToken::new();
    let (serving, stopping) = (Arc::clone(&coordinator), stop.clone());
    let server = tokio::spawn(async move { serving.serve(listener, stopping).await });
    let client = reqwest::Client::new();
    let get = async |from: &str, path: &str, voucher: Option<String>| {
        let mut request = client.get(format!("{url}{path}")).header("x-forwarded-for", from);
        if let Some(voucher) = voucher {
            request = request.header("neurino-voucher", voucher);
        }
        request.send().await.unwrap().status().as_u16()
    };
    let path = format!("/v1/vouchers/{}", payer.address());
    assert_eq!(get("203.0.113.7", &path, None).await, 200);
    let stranger = Payer { key: IdentityKey::generate(&mut rand::rng()), terms: payer.terms };
    for _ in 0..2 {
        assert_eq!(get("203.0.113.7", "/v1/models", Some(stranger.promise(9))).await, 402);
    }
    assert_eq!(get("203.0.113.7", "/v1/models", Some(stranger.promise(9))).await, 429);
    assert_eq!(get("203.0.113.7", &path, None).await, 429);
    assert_eq!(get("203.0.113.8", &path, None).await, 200, "another address");
    for _ in 0..5 {
        assert_eq!(get("203.0.113.9", "/v1/models", Some(payer.promise(9))).await, 200, "it pays");
    }
    stop.cancel();
    server.await.unwrap().unwrap();
    coordinator.shutdown().await;
}

#[tokio::test]
async fn a_payer_of_vouchers_asks_so_often_in_a_minute() {
    let world = World::with(Limits { voucher_requests_per_min: 2, ..short_limits() }).await;
    let payer = Payer::with_deposit(&world, 1_000).await;
    let (promise, mut limited) = (payer.promise(9), 0);
    for _ in 0..6 {
        let headers = [("neurino-voucher", &*promise)];
        let (status, body) = world.send(Method::GET, "/v1/models", None, &headers, "").await;
        if status != StatusCode::OK {
            assert_eq!((status.as_u16(), code(&body)), (429, "rate_limit_exceeded"), "{body}");
            limited += 1;
        }
    }
    assert!(limited >= 3, "{limited}");
}
