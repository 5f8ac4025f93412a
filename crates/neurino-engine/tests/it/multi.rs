//! Two engines as one: two models at the same time, and a third in place of the older.

use std::sync::Arc;

use neurino_core::{JobSpec, ModelId};
use neurino_engine::{
    DeviceChoice, Engine, EngineErrorCode, EngineStatus, LocalEngine, ModelRef, MultiEngine,
    PlaceCard, PlaceCards,
};
use tokio_util::sync::CancellationToken;

use crate::{ending, job, model, rest};

fn named(name: &str) -> ModelRef {
    ModelRef { id: ModelId::new(name).unwrap(), ..model() }
}

fn job_of(name: &str) -> JobSpec {
    let JobSpec::Text(mut text) = job(5) else { unreachable!("a text job") };
    text.model = named(name).id;
    JobSpec::Text(text)
}

#[tokio::test]
async fn two_engines_hold_two_models_and_the_older_one_gives_way() {
    let engine = || Arc::new(LocalEngine::start(DeviceChoice::Cpu).unwrap()) as Arc<dyn Engine>;
    let both = MultiEngine::new(vec![engine(), engine()]);
    both.load(&named("one")).await.unwrap();
    both.load(&named("two")).await.unwrap();
    let held = |both: &MultiEngine| {
        let names = both.statuses().into_iter().map(|status| match status {
            EngineStatus::Ready(facts) => facts.id.to_string(),
            other => format!("{other:?}"),
        });
        names.collect::<Vec<_>>()
    };
    assert_eq!(held(&both), ["one", "two"]);
    let mut streams = Vec::new();
    for name in ["one", "two", "one"] {
        streams.push(both.run(&job_of(name), CancellationToken::new()).await.unwrap());
    }
    for stream in streams {
        assert_eq!(ending(&rest(stream).await), Ok(5));
    }
    both.load(&named("three")).await.unwrap();
    assert_eq!(held(&both), ["one", "three"], "`two` was not asked for the longest");
    let error = both.run(&job_of("two"), CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.code, EngineErrorCode::ModelNotLoaded);
    both.unload().await.unwrap();
    assert!(both.statuses().iter().all(|status| *status == EngineStatus::Idle));
    assert_eq!(*both.status().borrow(), EngineStatus::Idle);
}

#[tokio::test]
async fn a_model_goes_to_the_place_that_is_named_and_may_be_in_both() {
    let engine = || Arc::new(LocalEngine::start(DeviceChoice::Cpu).unwrap()) as Arc<dyn Engine>;
    let card = |number| PlaceCard { number, name: "Card".into(), memory_bytes: 0, instance: false };
    let cards = vec![PlaceCards(vec![card(0), card(1)]), PlaceCards(vec![card(1)])];
    let both = MultiEngine::new(vec![engine(), engine()]);
    assert_eq!(both.place_cards().len(), 0, "nobody said");
    let both = both.on_cards(cards.clone());
    assert_eq!(both.place_cards(), cards);
    for place in [1, 0] {
        both.load_at(place, &named("one")).await.unwrap();
        let stream = both.run_at(place, &job_of("one"), CancellationToken::new()).await.unwrap();
        assert_eq!(ending(&rest(stream).await), Ok(5));
    }
    assert!(both.statuses().iter().all(|status| matches!(status, EngineStatus::Ready(_))));
    both.load_at(1, &named("two")).await.unwrap();
    let error = both.run_at(1, &job_of("one"), CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.code, EngineErrorCode::ModelNotLoaded, "it is on the other card now");
    both.unload_at(1).await.unwrap();
    assert_eq!(both.statuses()[1], EngineStatus::Idle);
    assert!(matches!(both.statuses()[0], EngineStatus::Ready(_)), "that one stays");
    let error = both.load_at(7, &named("one")).await.unwrap_err();
    assert_eq!(error.code, EngineErrorCode::NoSuchDevice);
}
