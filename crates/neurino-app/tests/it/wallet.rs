//! The wallet through the application: secrets go where they are asked to go and nowhere else,
//! changes are safe and survive a restart, chains are asked only when told to.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use neurino_chain::{Address, Contracts};
use neurino_protocol::app::{Command, Reply};
use neurino_protocol::onboarding::{OnboardingCommand, OnboardingStep, OnboardingView};
use neurino_protocol::wallet::{Fact, FoundMiner, WalletCommand, WalletReply, WalletView};
use neurino_protocol::{ErrorBody, ErrorCode, SecretText};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::world::{Viewer, World};

const JUNK: &str = "test test test test test test test test test test test junk";
const JUNK_ADDRESS: &str = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";
const REWARD: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
const OTHER: &str = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC";

async fn ask(viewer: &Viewer, command: WalletCommand) -> Result<WalletReply, ErrorBody> {
    match viewer.command(Command::Wallet(command)).await? {
        Reply::Wallet(reply) => Ok(*reply),
        other => panic!("{other:?}"),
    }
}

async fn view(viewer: &Viewer, command: WalletCommand) -> WalletView {
    match ask(viewer, command).await {
        Ok(WalletReply::View(view)) => *view,
        other => panic!("{other:?}"),
    }
}

async fn refused(viewer: &Viewer, command: WalletCommand) -> String {
    let error = ask(viewer, command).await.expect_err("the command is refused");
    assert_ne!(error.code, ErrorCode::Internal, "{error}");
    error.to_string()
}

async fn words(viewer: &Viewer) -> Vec<String> {
    match ask(viewer, WalletCommand::Reveal).await.unwrap() {
        WalletReply::Words { words } => words.iter().map(|w| w.expose().to_owned()).collect(),
        other => panic!("{other:?}"),
    }
}

fn secret(text: &str) -> SecretText {
    SecretText::new(text)
}

fn set(text: &str, replaces: Option<&str>) -> WalletCommand {
    WalletCommand::RewardSet {
        text: secret(text),
        pasted: None,
        replaces: replaces.map(str::to_owned),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn words_are_shown_on_demand_proven_and_never_elsewhere() {
    let world = World::answering("unused");
    let viewer = world.start().await;
    let before = view(&viewer, WalletCommand::Look).await;
    assert_eq!(before.backed_up_at_ms, None);
    let words = words(&viewer).await;
    assert_eq!(words.len(), 12);

    let told = refused(&viewer, WalletCommand::QuizAnswer { words: vec![] }).await;
    assert!(told.contains("no words were asked for"), "{told}");
    for wrong in [true, false] {
        let places = match ask(&viewer, WalletCommand::Quiz).await.unwrap() {
            WalletReply::Quiz { places } => places,
            other => panic!("{other:?}"),
        };
        assert!(places.len() == 3 && places.is_sorted_by(|a, b| a < b));
        let mut answers: Vec<_> =
            places.iter().map(|&place| secret(&words[place as usize - 1].to_uppercase())).collect();
        if wrong {
            answers[1] = secret("zoo zoo");
            let told = refused(&viewer, WalletCommand::QuizAnswer { words: answers }).await;
            assert!(told.contains("another one") && !told.contains("zoo"), "{told}");
        } else {
            let answer = WalletCommand::QuizAnswer { words: answers };
            assert!(view(&viewer, answer).await.backed_up_at_ms.is_some());
        }
    }

    let view = view(&viewer, WalletCommand::Look).await;
    let phrase = words.join(" ");
    let everything = [
        serde_json::to_string(&view).unwrap(),
        serde_json::to_string(&viewer.snapshot().await).unwrap(),
        format!("{:?}", viewer.command(Command::Wallet(WalletCommand::Reveal)).await),
        read_all(&world.dirs().data),
        read_all(&world.dirs().config),
    ];
    for text in everything {
        let three = words[..3].join(" ");
        assert!(!text.contains(&phrase) && !text.contains(&three), "{text}");
    }
    viewer.end().await;
    let viewer = world.start().await;
    let again = self::view(&viewer, WalletCommand::Look).await;
    assert_eq!(again.backed_up_at_ms, view.backed_up_at_ms);
    viewer.end().await;
}

/// The text of every file below a folder.
fn read_all(folder: &Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            text += &read_all(&path);
        } else if let Ok(bytes) = std::fs::read(&path) {
            text += &String::from_utf8_lossy(&bytes);
        }
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reward_address_changes_safely_and_keeps_its_history() {
    let world = World::answering("unused");
    let viewer = world.start().await;
    for (text, word) in
        [("ada.eth", "name.eth"), ("0x12", "40"), (JUNK, "recovery words"), (&REWARD[..41], "39")]
    {
        let told = refused(&viewer, set(text, None)).await;
        assert!(told.contains(word) && !told.contains("junk"), "{told}");
    }
    let first = view(&viewer, set(&REWARD.to_lowercase(), None)).await;
    let reward = first.reward.unwrap();
    assert_eq!(reward.address, REWARD);
    assert!(reward.qr.unwrap().modules >= 21);

    // Two windows, or a page that is behind.
    assert!(refused(&viewer, set(OTHER, None)).await.contains("meanwhile"));
    // A program that changes what is pasted.
    let swapped = WalletCommand::RewardSet {
        text: secret(OTHER),
        pasted: Some(secret(JUNK_ADDRESS)),
        replaces: Some(REWARD.into()),
    };
    assert!(refused(&viewer, swapped).await.contains("not what was pasted"));
    let mut alike = REWARD.to_lowercase();
    alike.replace_range(10..12, "ff");
    match ask(&viewer, WalletCommand::RewardCheck { text: secret(&alike) }).await.unwrap() {
        WalletReply::Checked(checked) => {
            assert!(!checked.proven && !checked.in_use);
            assert_eq!(checked.looks_like.as_deref(), Some(REWARD));
        }
        other => panic!("{other:?}"),
    }
    view(&viewer, set(OTHER, Some(REWARD))).await;
    viewer.end().await;

    let viewer = world.start().await;
    let now = view(&viewer, WalletCommand::Look).await;
    assert_eq!(now.reward.unwrap().address, OTHER);
    assert_eq!(now.history.len(), 1);
    assert_eq!(now.history[0].address, REWARD);
    let removed = WalletCommand::RewardRemove { replaces: OTHER.into() };
    let now = view(&viewer, removed).await;
    assert!(now.reward.is_none() && now.history.len() == 2);
    viewer.end().await;

    std::fs::write(world.dirs().data.join("wallet.json"), "{").unwrap();
    let viewer = world.start().await;
    let damaged = view(&viewer, WalletCommand::Look).await;
    assert!(damaged.problem.unwrap().message.contains("damaged"));
    assert!(view(&viewer, set(REWARD, None)).await.problem.is_none());
    viewer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_comes_back_from_its_words_and_mines_at_once() {
    let world = World::answering("fine");
    let mut viewer = world.start().await;
    let former = viewer.app.node();
    viewer.mine_until_ready().await;
    let restore =
        || WalletCommand::Restore { words: secret(&format!("  {}", JUNK.to_uppercase())) };
    assert!(refused(&viewer, restore()).await.contains("Stop"));
    viewer.stop(neurino_protocol::app::StopMode::Now).await;
    viewer.until_over().await;
    let bad = WalletCommand::Restore { words: secret(&JUNK.replace("junk", "test")) };
    let told = refused(&viewer, bad).await;
    assert!(told.contains("checksum") && !told.contains("test test"), "{told}");
    let restored = view(&viewer, restore()).await;
    assert_eq!(restored.identity, JUNK_ADDRESS);
    assert!(restored.backed_up_at_ms.is_some(), "whoever typed the words has them");
    assert_eq!(viewer.snapshot().await.identity, JUNK_ADDRESS);
    assert_ne!(viewer.app.node(), former);
    viewer.mine_until_ready().await;
    let receipt = viewer.earn("first").await;
    assert_eq!(receipt.node, viewer.app.node());
    viewer.end().await;

    let viewer = world.start().await;
    assert_eq!(viewer.snapshot().await.identity, JUNK_ADDRESS);
    viewer.end().await;
    // Nothing is lost: the former key lies beside it, and can be gone back to.
    let listed = {
        let viewer = world.start().await;
        let address = view(&viewer, WalletCommand::Look).await.former;
        viewer.end().await;
        address
    };
    assert_eq!(listed.len(), 1);
    let viewer = world.start().await;
    let back = |accept| WalletCommand::FormerBack { address: listed[0].clone(), accept };
    assert!(refused(&viewer, back(false)).await.contains("another identity"));
    let stranger = WalletCommand::FormerBack { address: REWARD.into(), accept: true };
    assert!(refused(&viewer, stranger).await.contains("no key of a former identity"));
    let returned = view(&viewer, back(true)).await;
    assert_eq!(returned.identity, listed[0]);
    assert_eq!(returned.former, [JUNK_ADDRESS], "the other way round");
    assert_eq!(viewer.app.node(), former);
    assert!(returned.backed_up_at_ms.is_none(), "other words were written down");
    viewer.end().await;
    let kept = format!("former-{}.key", &former.to_string()[2..]);
    assert!(world.dirs().data.join(kept).is_file());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_existing_miner_is_found_and_taken_over() {
    let world = World::answering("unused");
    let home = world.home.path().join("old");
    let keys = home.join("keys");
    std::fs::create_dir_all(&keys).unwrap();
    let settings = "[storage]\nkeys_dir = \"keys\"\nbase_dir = \"models\"\n";
    std::fs::write(home.join("config.toml"), settings).unwrap();
    std::fs::write(home.join(".env"), format!("MINER_ID_0={REWARD}-desk\nMINER_ID_1=oops\n"))
        .unwrap();
    let file = keys.join(format!("{}.txt", REWARD.to_lowercase()));
    let lines =
        format!("Seed Phrase: {JUNK}\nIdentity Wallet Address: {}\n", JUNK_ADDRESS.to_lowercase());
    std::fs::write(&file, lines).unwrap();
    std::fs::create_dir_all(home.join("models")).unwrap();
    std::fs::write(home.join("models/a.safetensors"), [0; 64]).unwrap();

    let viewer = world.start().await;
    let look = WalletCommand::MinerLook { folder: home.display().to_string() };
    let found: FoundMiner = match ask(&viewer, look).await.unwrap() {
        WalletReply::Found(found) => found,
        other => panic!("{other:?}"),
    };
    assert_eq!(found.miner_ids, [format!("{}-desk", REWARD.to_lowercase())]);
    assert_eq!(found.rewards, [REWARD]);
    assert!(found.problems.len() == 1 && found.problems[0].starts_with("MINER_ID_1"));
    assert_eq!((found.models_count, found.models_bytes), (1, 64));
    assert_eq!(found.keys[0].identity, JUNK_ADDRESS);
    assert!(!format!("{found:?}").contains("junk"));

    let import = WalletCommand::KeyImport { path: found.keys[0].path.clone(), take_reward: true };
    let view = view(&viewer, import).await;
    assert_eq!(view.identity, JUNK_ADDRESS);
    assert_eq!(view.reward.unwrap().address, REWARD);
    assert_eq!(view.backed_up_at_ms, None);

    let out = world.home.path().join("out");
    let export = |accept| WalletCommand::KeyExport { folder: out.display().to_string(), accept };
    assert!(refused(&viewer, export(false)).await.contains("unencrypted"));
    let path = match ask(&viewer, export(true)).await.unwrap() {
        WalletReply::Exported { path } => path,
        other => panic!("{other:?}"),
    };
    assert_eq!(std::fs::read_to_string(&path).unwrap(), std::fs::read_to_string(&file).unwrap());
    assert!(refused(&viewer, export(true)).await.contains("is there already"));
    for odd in ["", "relative/folder"] {
        let look = WalletCommand::MinerLook { folder: odd.into() };
        assert!(refused(&viewer, look).await.contains("path"));
    }
    viewer.end().await;
}

/// A node of a chain on this machine that knows a few answers, and counts the questions.
async fn node(chain_id: u64, answers: Vec<(&'static str, String)>) -> (String, Arc<AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}/secret-key", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut text = String::new();
            let question: Value = loop {
                let mut piece = [0; 2048];
                let n = stream.read(&mut piece).await.unwrap_or(0);
                text += &String::from_utf8_lossy(&piece[..n]);
                let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
                match serde_json::from_str(body) {
                    Ok(question) => break question,
                    Err(_) if n == 0 => break Value::Null,
                    Err(_) => {}
                }
            };
            count.fetch_add(1, Ordering::Relaxed);
            let data = question["params"][0]["data"].as_str().unwrap_or_default();
            let known = answers.iter().find(|(start, _)| data.starts_with(start));
            let result = match known {
                _ if question["method"] == "eth_chainId" => format!("{chain_id:#x}"),
                Some((_, answer)) => answer.clone(),
                None => "0x".into(),
            };
            let body = json!({ "jsonrpc": "2.0", "id": 1, "result": result }).to_string();
            let head =
                format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}", body.len());
            let _ = stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await;
        }
    });
    (url, asked)
}

fn word(n: u128) -> String {
    format!("0x{n:064x}")
}

#[tokio::test(flavor = "multi_thread")]
async fn chains_are_asked_when_told_to_and_say_what_is_not_known() {
    const E18: u128 = 1_000_000_000_000_000_000;
    let world = World::answering("unused");
    let viewer = world.start().await;
    let own = viewer.app.node().to_string();
    let bound = format!("0x{}{}", "0".repeat(24), &own[2..]);
    let (registry, registry_asked) = node(300, vec![("0x1500c1ed", bound)]).await;
    let stakes = vec![
        ("0x70a08231", word(E18 * 5 / 2)),
        ("0x313ce567", word(18)),
        ("0x3ba0b9a9", word(E18 + E18 / 10)),
    ];
    let (base, _) = node(8453, stakes).await;
    let (ethereum, _) = node(1, vec![("0x70a08231", word(4))]).await;
    let (elsewhere, _) = node(5, vec![]).await;

    let chain = view(&viewer, WalletCommand::Look).await.chain;
    assert_eq!(chain.binding, Fact::NoReward);
    assert!(refused(&viewer, WalletCommand::ChainCheck).await.contains("reward address"));
    view(&viewer, set(REWARD, None)).await;
    assert!(refused(&viewer, WalletCommand::ChainCheck).await.contains("no node"));
    let chain = view(&viewer, WalletCommand::Look).await.chain;
    assert!(matches!(&chain.binding, Fact::NoNode { chain } if chain.contains("ZKsync")));
    assert!(matches!(&chain.nfts, Fact::NotKnown { .. }), "its address was never published");

    let add = |url: &str| WalletCommand::RpcAdd { url: secret(url) };
    for (url, word) in [
        ("http://rpc.example", "https"),
        (elsewhere.as_str(), "chain 5"),
        ("http://127.0.0.1:1/secret-key", "cannot be reached"),
    ] {
        let told = refused(&viewer, add(url)).await;
        assert!(told.contains(word) && !told.contains("secret-key"), "{told}");
    }
    for url in [&registry, &base] {
        view(&viewer, add(url)).await;
    }
    let before = registry_asked.load(Ordering::Relaxed);
    let chain = view(&viewer, WalletCommand::Look).await.chain;
    assert_eq!(chain.binding, Fact::NotChecked);
    assert_eq!(registry_asked.load(Ordering::Relaxed), before, "looking asks nobody");

    let chain = view(&viewer, WalletCommand::ChainCheck).await.chain;
    assert!(chain.checked_at_ms.is_some());
    assert!(matches!(&chain.binding, Fact::Bound { ours: true, .. }), "{:?}", chain.binding);
    assert_eq!(chain.staked, Fact::Staked { amount: "2.5".into(), rate: "1.1".into() });
    assert!(matches!(&chain.nfts, Fact::NotKnown { .. }));
    assert!(!serde_json::to_string(&chain).unwrap().contains("secret-key"));

    // The person knows the contract and a node of its chain.
    let collection = WalletCommand::CollectionSet { address: Some(OTHER.into()) };
    let chain = view(&viewer, collection).await.chain;
    assert!(matches!(&chain.nfts, Fact::NoNode { chain } if chain == "Ethereum"));
    view(&viewer, add(&ethereum)).await;
    let chain = view(&viewer, WalletCommand::ChainCheck).await.chain;
    assert_eq!(chain.nfts, Fact::Pieces { count: 4 });
    assert_eq!(chain.boost.cards_per_nft, 3);
    assert!(chain.boost.note.contains("Neurino's own"));

    // Facts about another address are not this one's.
    let chain = view(&viewer, set(OTHER, Some(REWARD))).await.chain;
    assert_eq!((chain.checked_at_ms, chain.binding), (None, Fact::NotChecked));
    viewer.end().await;

    // A registry that lies elsewhere than the data says answers nothing.
    let mut contracts = Contracts::built_in();
    contracts.binding.chain_id = 8453;
    contracts.binding.address = Some(Address::new([7; 20]));
    let options = neurino_app::AppOptions { contracts, ..world.options() };
    let viewer = Viewer::start(options).await.unwrap();
    let chain = view(&viewer, WalletCommand::ChainCheck).await.chain;
    match chain.binding {
        Fact::Failed { error } => assert!(error.message.contains("no such contract"), "{error}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(chain.nodes.len(), 3, "nodes survive a restart");
    view(&viewer, WalletCommand::RpcRemove { index: 2 }).await;
    assert!(refused(&viewer, WalletCommand::RpcRemove { index: 2 }).await.contains("no such node"));
    viewer.end().await;
}

async fn guide(viewer: &Viewer, command: OnboardingCommand) -> OnboardingView {
    match viewer.command(Command::Onboarding(command)).await {
        Ok(Reply::Onboarding(view)) => view,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guide_goes_on_where_it_was_and_ends_once() {
    let world = World::answering("fine");
    let viewer = world.start().await;
    let first = guide(&viewer, OnboardingCommand::Look).await;
    assert!(first.open && first.step == OnboardingStep::Reward);
    assert!(first.models_folder.ends_with("models") && first.free_bytes.is_some());
    assert_eq!(first.at_login, None, "a scripted engine has no program to start");
    assert_eq!(first.models.len(), 1);
    assert!(!first.models[0].comes_along);
    guide(&viewer, OnboardingCommand::Go { step: OnboardingStep::Models }).await;
    // As a power cut would: nothing is told to the program.
    viewer.app.shutdown().await;
    drop(viewer);
    let viewer = world.start().await;
    let there = guide(&viewer, OnboardingCommand::Look).await;
    assert!(there.open && there.step == OnboardingStep::Models);
    assert!(!guide(&viewer, OnboardingCommand::Finish).await.open);
    viewer.end().await;
    let mut viewer = world.start().await;
    assert!(!guide(&viewer, OnboardingCommand::Look).await.open);
    let again = guide(&viewer, OnboardingCommand::Again).await;
    assert!(again.open && again.step == OnboardingStep::Reward);
    viewer.mine_until_ready().await;
    viewer.earn("first").await;
    viewer.end().await;
    // Somebody who earned before there was a guide is not guided.
    std::fs::remove_file(world.dirs().config.join("onboarding.toml")).unwrap();
    let viewer = world.start().await;
    assert!(!guide(&viewer, OnboardingCommand::Look).await.open);
    viewer.end().await;
}
