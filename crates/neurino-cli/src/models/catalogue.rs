//! `neurino models update` and `lists`: more models than those of the build.

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use neurino_model_store::lists::{self, Places, Taken};
use neurino_model_store::signed::{SignedCatalog, build_key};
use neurino_model_store::{ListKind, ModelStore};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::output::{self, Format};
use crate::{Setting, interrupted};

/// Takes in a signed catalogue.
pub(super) async fn update(
    setting: &Setting,
    store: &ModelStore,
    place: &str,
) -> anyhow::Result<()> {
    let key = build_key().context(
        "this build of Neurino carries no key for catalogue updates; a newer version brings newer models",
    )?;
    let text = lists::text_of(ListKind::Signed, place).await?;
    let update = SignedCatalog::accept(&store.catalog_folder(), &text, &key)?;
    let count = update.models.len();
    match setting.format {
        Format::Json => output::json(&json!({ "version": update.version, "models": count })),
        Format::Text => {
            output::line(format!("Version {} with {count} models.", update.version));
            output::line("A Neurino that runs knows it in a few seconds.");
            Ok(())
        }
    }
}

/// Takes in what the network's lists vouch for. What is known already stays as it is.
pub(super) async fn lists(
    setting: &Setting,
    store: &ModelStore,
    places: [&str; 3],
) -> anyhow::Result<()> {
    let [models, vae, lora] = places.map(str::to_owned);
    let bar = match setting.format {
        Format::Json => ProgressBar::hidden(),
        Format::Text => ProgressBar::new(0),
    };
    let style = "asking for sizes {bar:32} {pos}/{len}";
    bar.set_style(ProgressStyle::with_template(style).context("the progress line's form")?);
    let tell = |done: usize, total: usize| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    };
    let (cancel, places) = (CancellationToken::new(), Places { models, vae, lora });
    let taking = store.take_lists(&places, tell, cancel.clone());
    tokio::pin!(taking);
    let taken = tokio::select! {
        taken = &mut taking => taken,
        () = interrupted() => {
            cancel.cancel();
            taking.await
        }
    };
    bar.finish_and_clear();
    report(setting, &taken?)
}

fn report(setting: &Setting, taken: &Taken) -> anyhow::Result<()> {
    let Taken { added, changed, left, known: _ } = taken;
    match setting.format {
        Format::Json => {
            let left: Vec<_> =
                left.iter().map(|(name, why)| json!({ "name": name, "reason": why })).collect();
            let changed: Vec<_> =
                changed.iter().map(|(name, what)| json!({ "name": name, "what": what })).collect();
            output::json(&json!({ "added": added, "left_out": left, "changed": changed }))
        }
        Format::Text => {
            for name in added {
                output::line(format!("added    {name}"));
            }
            for (name, what) in changed {
                output::line(format!(
                    "changed  {name}: {what}, which is all that a job may ask for"
                ));
            }
            for (name, reason) in left {
                output::line(format!("left out {name}: {reason}"));
            }
            output::line("A Neurino that runs knows them in a few seconds.");
            Ok(())
        }
    }
}
