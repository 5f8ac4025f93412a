//! The Playground.

use std::time::Duration;

use neurino_app::AppOptions;
use neurino_coordinator::Limits;
use neurino_core::ModelId;
use neurino_protocol::ErrorCode;
use neurino_protocol::app::{ChatUpdate, Command, MiningState};

use crate::mining::hanging;
use crate::world::{Viewer, World, code, question_of};

async fn waiting_at_most_ms(world: &World, chat_no_node_wait_ms: u64) -> Viewer {
    let limits = Limits { chat_no_node_wait_ms, ..Limits::default() };
    Viewer::start(AppOptions { limits, ..world.options() }).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn while_nobody_mines_a_question_waits_and_then_says_why() {
    let world = World::answering("unused");
    let mut viewer = waiting_at_most_ms(&world, 400).await;
    viewer.ask("c").await.unwrap();
    assert_eq!(viewer.update("c").await, ChatUpdate::Queued, "the person hears at once");
    let error = viewer.answer("c").await.unwrap_err();
    assert_eq!(error.code, ErrorCode::NoNodeAvailable);
    assert!(error.message.contains("start mining"), "{}", error.message);
    // The name is free again.
    viewer.ask("c").await.unwrap();
    viewer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_within_the_wait_answers_the_question() {
    let world = World::answering("worth the wait");
    let mut viewer = waiting_at_most_ms(&world, 30_000).await;
    viewer.ask("c").await.unwrap();
    assert_eq!(viewer.update("c").await, ChatUpdate::Queued);
    tokio::time::sleep(Duration::from_millis(200)).await;
    viewer.mine().await;
    assert_eq!(viewer.answer("c").await.unwrap().text, "worth the wait");
    viewer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_question_frees_the_machine() {
    let world = World::answering("the next one");
    world.engine.queue(hanging());
    let mut viewer = world.start().await;
    viewer.mine_until_ready().await;
    viewer.ask("c").await.unwrap();
    viewer.until_state(MiningState::Working).await;
    viewer.command(Command::ChatCancel { chat: "c".into() }).await.unwrap();
    assert_eq!(viewer.answer("c").await.unwrap_err().code, ErrorCode::Cancelled);
    viewer.until_ready().await;
    viewer.ask("c").await.unwrap();
    assert_eq!(viewer.answer("c").await.unwrap().text, "the next one");
    // Nothing is left to cancel, and that is fine.
    viewer.command(Command::ChatCancel { chat: "c".into() }).await.unwrap();
    viewer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conversations_have_their_own_names_and_a_limit() {
    let world = World::answering("unused");
    let mut viewer = waiting_at_most_ms(&world, 30_000).await;
    for n in 0..16 {
        viewer.ask(&format!("c{n}")).await.unwrap();
    }
    assert_eq!(code(viewer.ask("c3").await), ErrorCode::InvalidRequest);
    assert_eq!(code(viewer.ask("one more").await), ErrorCode::Overloaded);
    viewer.command(Command::ChatCancel { chat: "c3".into() }).await.unwrap();
    assert_eq!(viewer.answer("c3").await.unwrap_err().code, ErrorCode::Cancelled);
    viewer.ask("one more").await.unwrap();
    viewer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_the_network_does_not_know_is_named() {
    let world = World::answering("unused");
    let mut viewer = world.start().await;
    viewer.command(question_of("c", ModelId::new("gpt-9").unwrap())).await.unwrap();
    let error = viewer.answer("c").await.unwrap_err();
    assert_eq!(error.code, ErrorCode::UnknownModel);
    assert!(error.message.contains("gpt-9"), "{}", error.message);
    viewer.end().await;
}
