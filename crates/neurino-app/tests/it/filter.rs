//! The content filter, and what a saved picture tells.

use neurino_config::Settings;
use neurino_core::{ImageJob, ModelId, Png};
use neurino_protocol::ErrorCode;
use neurino_protocol::app::{Command, Reply};
use neurino_protocol::filter::{FilterCommand, FilterView};

use crate::world::{Viewer, World, code, question_of};

fn set(on: bool, words: &[&str]) -> Command {
    let words = words.iter().map(|word| (*word).to_owned()).collect();
    Command::Filter(FilterCommand::Set { filter: FilterView { on, words } })
}

async fn finding(viewer: &Viewer) -> String {
    let Ok(Reply::Doctor(checks)) = viewer.command(Command::Doctor).await else {
        panic!("no checks")
    };
    checks.into_iter().find(|check| check.name == "Content filter").unwrap().finding
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_is_switched_while_mining_and_outlives_the_program() {
    let world = World::answering("fine");
    let mut viewer = world.start().await;
    let look = Command::Filter(FilterCommand::Look);
    let off = FilterView::default();
    assert_eq!(viewer.command(look.clone()).await, Ok(Reply::Filter(off)), "off by default");
    assert!(finding(&viewer).await.starts_with("Off"));
    viewer.mine_until_ready().await;
    viewer.earn("before").await;

    let Command::ChatSend { messages, .. } = question_of("c", ModelId::new("m").unwrap()) else {
        panic!("a question")
    };
    let word = messages.last().unwrap().content.split_whitespace().next().unwrap().to_owned();
    assert!(viewer.command(set(true, &[&word, " "])).await.is_ok());
    viewer.ask("c").await.unwrap();
    assert_eq!(viewer.answer("c").await.unwrap_err().code, ErrorCode::Declined);
    assert!(finding(&viewer).await.starts_with("On"), "the one that counts now");
    let refused = viewer.command(set(false, &["!"])).await;
    assert_eq!(code(refused), ErrorCode::InvalidRequest);
    let kept = FilterView { on: true, words: vec![word.clone()] };
    assert_eq!(viewer.command(look).await, Ok(Reply::Filter(kept)), "as it was");
    assert!(Settings::read(&world.dirs()).unwrap().jobs.refuses());

    assert!(viewer.command(set(false, &[&word])).await.is_ok());
    viewer.until_ready().await;
    viewer.earn("after").await;
    assert!(finding(&viewer).await.starts_with("Off"));
    let jobs = Settings::read(&world.dirs()).unwrap().jobs;
    assert_eq!((jobs.refuses(), jobs.refuse_words), (false, vec![word]), "words are kept");
    viewer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saved_picture_tells_what_it_was_made_with_only_if_that_is_wished() {
    let world = World::answering("unused");
    let viewer = world.start().await;
    // A header and an end are enough of a picture here.
    let mut file = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".to_vec();
    file.extend([0, 0, 0, 1, 0, 0, 0, 1, 8, 2, 0, 0, 0, 0x90, 0x77, 0x53, 0xde]);
    file.extend(b"\0\0\0\0IEND\xae\x42\x60\x82");
    let job = ImageJob::new(ModelId::new("neurino-toybox-64").unwrap(), "a red house", 64);
    let save = async |png: &[u8], settings: Option<ImageJob>| {
        let png = Png(png.to_vec());
        match viewer.command(Command::PictureSave { png, settings }).await {
            Ok(Reply::Saved { path }) => Ok(std::fs::read(path).unwrap()),
            other => Err(code(other)),
        }
    };
    assert_eq!(save(&file, None).await.as_ref(), Ok(&file));
    let told = save(&file, Some(job.clone())).await.unwrap();
    let text = String::from_utf8_lossy(&told).into_owned();
    assert!(text.contains("iTXtparameters") && text.contains("a red house"), "{text}");
    assert_eq!((&told[..33], &told[told.len() - 12..]), (&file[..33], &file[33..]));
    let broken = save(&file[..20], Some(job)).await;
    assert_eq!(broken, Err(ErrorCode::InvalidRequest));
    viewer.end().await;
}
