//! `neurino models update` and `lists`: more models than those of the build.

use std::fs;

use anyhow::Context as _;
use neurino_model_store::ModelStore;
use neurino_model_store::lists::{self, Entry, Lists};
use neurino_model_store::signed::{SignedCatalog, build_key};
use serde_json::json;

use crate::Setting;
use crate::output::{self, Format};

/// Takes in a signed catalogue.
pub(super) async fn update(
    setting: &Setting,
    store: &ModelStore,
    place: &str,
) -> anyhow::Result<()> {
    let key = build_key().context(
        "this build of Neurino carries no key for catalogue updates; a newer version brings newer models",
    )?;
    let text = lists::text_from(place).await?;
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
    let [models, vae, lora] = places;
    let (models, vae, lora) = (
        lists::text_from(models).await?,
        lists::text_from(vae).await?,
        lists::text_from(lora).await?,
    );
    let folder = store.catalog_folder();
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let (mut added, mut left, mut changed) = (Vec::new(), Vec::new(), Vec::new());
    for entry in Lists::parse(&models, &vae, &lora)?.entries() {
        match entry {
            Entry::Left { name, reason } => left.push((name, reason)),
            Entry::Usable { manifest, .. } if store.catalog().get(&manifest.id).is_some() => {}
            Entry::Usable { manifest, changes } => {
                let name = manifest.id.to_string();
                match lists::with_sizes(*manifest).await {
                    Ok(manifest) => {
                        let (path, text) = lists::written(&folder, &manifest)?;
                        fs::write(&path, text)
                            .with_context(|| format!("cannot write {}", path.display()))?;
                        changed.extend(changes.into_iter().map(|what| (name.clone(), what)));
                        added.push(name);
                    }
                    Err(error) => left.push((name, error.to_string())),
                }
            }
        }
    }
    match setting.format {
        Format::Json => {
            let left: Vec<_> =
                left.iter().map(|(name, why)| json!({ "name": name, "reason": why })).collect();
            let changed: Vec<_> =
                changed.iter().map(|(name, what)| json!({ "name": name, "what": what })).collect();
            output::json(&json!({ "added": added, "left_out": left, "changed": changed }))
        }
        Format::Text => {
            for name in &added {
                output::line(format!("added    {name}"));
            }
            for (name, what) in &changed {
                output::line(format!(
                    "changed  {name}: {what}, which is all that a job may ask for"
                ));
            }
            for (name, reason) in &left {
                output::line(format!("left out {name}: {reason}"));
            }
            output::line("A Neurino that runs knows them in a few seconds.");
            Ok(())
        }
    }
}
