//! `neurino audit calibrate`: honest results and cheats by the real engine, compared as a network
//! compares them, and how often the comparison is wrong.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::Context as _;
use neurino_coordinator::compare::{self, Finding, Tolerance};
use neurino_core::audit::bounds::MeasuredShare;
use neurino_core::{ImageDefaults, JobOutput, JobSpec, ModelId};
use neurino_engine::{DeviceChoice, Engine as _, JobEvent, LocalEngine, ModelRef};
use neurino_model_store::ModelStore;
use serde::Serialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::cheats::{self, Manner};
use crate::Setting;
use crate::args::CalibrateArgs;
use crate::output::{self, Format};

/// Confidence of the intervals.
const CONFIDENCE: f64 = 0.95;

/// How often results of a manner were told to be other ones.
#[derive(Debug, Serialize)]
struct Row {
    manner: Manner,
    words: &'static str,
    /// Equal to the last bit is expected: one device, one program.
    exact: MeasuredShare,
    /// What another device's result would have to hold.
    tolerant: MeasuredShare,
    /// Of those, how many said nothing either way.
    unclear: u32,
}

/// All of it.
#[derive(Debug, Serialize)]
struct Report {
    model: ModelId,
    device: String,
    auditor: String,
    /// Whether both are of one numeric class, so that results must be equal.
    same_class: bool,
    jobs: u32,
    confidence: f64,
    tolerance: Tolerance,
    rows: Vec<Row>,
}

/// The model under test.
struct Subject {
    model: ModelRef,
    other: Option<ModelRef>,
    image: Option<ImageDefaults>,
}

pub(super) async fn run(setting: Setting, args: CalibrateArgs) -> anyhow::Result<ExitCode> {
    let device = neurino_app::device_choice(args.device.unwrap_or(setting.settings.engine.device));
    let against = args.against.map_or(device, neurino_app::device_choice);
    let store = setting.library()?;
    let of = args.clone();
    let subject = tokio::task::spawn_blocking(move || subject(&store, &of))
        .await
        .context("the model could not be looked up")??;
    let quiet = setting.format == Format::Json;
    let say = |words: &str| {
        if !quiet {
            output::note(words);
        }
    };
    let work = measure(&subject, [device, against], args.jobs, args.tokens, &say);
    let report = tokio::select! {
        report = work => report?,
        () = crate::interrupted() => anyhow::bail!("the calibration was interrupted"),
    };
    match setting.format {
        Format::Json => output::json(&json!(report))?,
        Format::Text => lines(&report).iter().for_each(output::line),
    }
    Ok(ExitCode::SUCCESS)
}

/// Computes, cheats, computes again and compares; the second device is the auditor's.
async fn measure(
    subject: &Subject,
    [device, against]: [DeviceChoice; 2],
    count: u32,
    tokens: u32,
    say: &impl Fn(&str),
) -> anyhow::Result<Report> {
    let id = &subject.model.id;
    let jobs: Vec<JobSpec> =
        (0..count).map(|n| cheats::job(id, subject.image.as_ref(), n, tokens)).collect();
    say(&format!("{count} jobs, honest and cheated"));
    let (name, results) = handed_in(subject, device, &jobs).await?;
    say("the same jobs again, by an engine of its own");
    let (auditor, second) = computed_again(subject, against, &jobs).await?;
    Ok(Report {
        model: id.clone(),
        same_class: name == auditor,
        device: name,
        auditor,
        jobs: count,
        confidence: CONFIDENCE,
        tolerance: Tolerance::default(),
        rows: compare_all(jobs, results, second, subject.image.is_some()).await?,
    })
}

fn subject(store: &ModelStore, args: &CalibrateArgs) -> anyhow::Result<Subject> {
    let id: ModelId = args.model.parse()?;
    let path = store.verified_blocking(&id)?;
    let image = store.catalog().get(&id).and_then(|manifest| manifest.image.clone());
    let other = args.other.clone().map(|path| ModelRef::new(id.clone(), path));
    Ok(Subject { model: ModelRef::new(id, path), other, image })
}

/// Loads a model into a new engine and says what computes.
async fn engine(choice: DeviceChoice, model: &ModelRef) -> anyhow::Result<(LocalEngine, String)> {
    let engine = LocalEngine::start(choice)?;
    let loaded = engine.load(model).await?;
    Ok((engine, loaded.device))
}

async fn compute(engine: &LocalEngine, spec: &JobSpec) -> anyhow::Result<JobOutput> {
    let mut events = engine.run(spec, CancellationToken::new()).await?;
    while let Some(event) = events.recv().await {
        match event {
            JobEvent::Finished { output } => return Ok(output),
            JobEvent::Failed { error } => return Err(error.into()),
            _ => {}
        }
    }
    anyhow::bail!("the engine ended without a result")
}

type Results = BTreeMap<Manner, Vec<Option<JobOutput>>>;

/// What honest nodes and cheats hand in, job by job.
async fn handed_in(
    subject: &Subject,
    device: DeviceChoice,
    jobs: &[JobSpec],
) -> anyhow::Result<(String, Results)> {
    let (own, name) = engine(device, &subject.model).await?;
    let mut results = Results::new();
    for manner in [Manner::Honest, Manner::WrongSeed, Manner::Less, Manner::Upscaled] {
        let mut made = Vec::with_capacity(jobs.len());
        for spec in jobs {
            made.push(match cheats::instead(spec, manner) {
                Some(instead) if manner == Manner::Honest => Some(compute(&own, &instead).await?),
                // A cheat that the model cannot do, a picture too small for it, is none.
                Some(instead) => match compute(&own, &instead).await {
                    Ok(output) => Some(cheats::dressed(output, spec)?),
                    Err(_) => None,
                },
                None => None,
            });
        }
        results.insert(manner, made);
    }
    // Each job is answered with the honest result of the one before.
    let honest = &results[&Manner::Honest];
    let cached =
        (0..jobs.len()).map(|n| n.checked_sub(1).and_then(|n| honest[n].clone())).collect();
    results.insert(Manner::Cached, cached);
    own.unload().await?;
    drop(own);
    if let Some(other) = &subject.other {
        let (engine, _) = engine(device, other).await?;
        let mut made = Vec::with_capacity(jobs.len());
        for spec in jobs {
            made.push(Some(compute(&engine, spec).await?));
        }
        results.insert(Manner::OtherFile, made);
    }
    Ok((name, results))
}

async fn computed_again(
    subject: &Subject,
    device: DeviceChoice,
    jobs: &[JobSpec],
) -> anyhow::Result<(String, Vec<JobOutput>)> {
    let (engine, name) = engine(device, &subject.model).await?;
    let mut made = Vec::with_capacity(jobs.len());
    for spec in jobs {
        made.push(compute(&engine, &cheats::audited(spec)).await?);
    }
    Ok((name, made))
}

async fn compare_all(
    jobs: Vec<JobSpec>,
    results: Results,
    second: Vec<JobOutput>,
    paints: bool,
) -> anyhow::Result<Vec<Row>> {
    tokio::task::spawn_blocking(move || {
        let row = |(manner, made): (Manner, Vec<Option<JobOutput>>)| {
            let compared = jobs.iter().zip(&made).zip(&second);
            let compared = compared.filter_map(|((spec, first), second)| {
                let first = first.as_ref()?;
                Some([true, false].map(|exact| compare_one(spec, first, second, exact)))
            });
            let found: Vec<[Finding; 2]> = compared.collect();
            let of = u32::try_from(found.len()).unwrap_or(u32::MAX);
            let count = |at: usize, is: fn(&Finding) -> bool| {
                u32::try_from(found.iter().filter(|both| is(&both[at])).count()).unwrap_or(u32::MAX)
            };
            let differs = |finding: &Finding| matches!(finding, Finding::Differs { .. });
            let unclear = |finding: &Finding| matches!(finding, Finding::Unclear { .. });
            Row {
                manner,
                words: manner.words(paints),
                exact: MeasuredShare::of(count(0, differs), of, CONFIDENCE),
                tolerant: MeasuredShare::of(count(1, differs), of, CONFIDENCE),
                unclear: count(1, unclear),
            }
        };
        results.into_iter().map(row).filter(|row| row.exact.of > 0).collect()
    })
    .await
    .context("the results could not be compared")
}

fn compare_one(spec: &JobSpec, first: &JobOutput, second: &JobOutput, exact: bool) -> Finding {
    let tolerance = Tolerance::default();
    let none =
        Finding::Differs { why: compare::Difference::Shape, figures: compare::Figures::default() };
    match (first, second, spec) {
        (JobOutput::Text(a), JobOutput::Text(b), JobSpec::Text(job)) => {
            compare::texts(a, b, job, exact, &tolerance)
        }
        (JobOutput::Image(a), JobOutput::Image(b), _) => {
            compare::pictures(a, b, exact, &tolerance).unwrap_or(none)
        }
        _ => none,
    }
}

fn lines(report: &Report) -> Vec<String> {
    let mut lines = vec![format!(
        "{} on {}, computed again on {}",
        report.model, report.device, report.auditor
    )];
    lines.push(format!(
        "{:<20}{:>6}  {:<30}{}",
        "result", "n", "told apart, exactly", "told apart, across classes"
    ));
    let share = |share: &MeasuredShare| {
        format!(
            "{:>5.1} % ({:.1} to {:.1} %)",
            100.0 * share.share,
            100.0 * share.low,
            100.0 * share.high
        )
    };
    for row in &report.rows {
        let unclear =
            if row.unclear > 0 { format!("{} unclear", row.unclear) } else { String::new() };
        let line = format!(
            "{:<20}{:>6}  {:<30}{:<30}{unclear}",
            row.words,
            row.exact.of,
            share(&row.exact),
            share(&row.tolerant),
        );
        lines.push(line.trim_end().to_owned());
    }
    lines.push(format!(
        "The first line is how often an honest result is wrongly told apart; 100 % less the others is \
         how often a cheat is missed. Intervals hold at {:.0} %.",
        100.0 * report.confidence
    ));
    if report.same_class {
        lines.push(
            "One device cannot show how far another one drifts; `--against` compares two.".into(),
        );
    }
    lines
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::path::Path;

    use super::*;

    /// Our own image model, which lies in the repository: honest pictures are equal to the last bit,
    /// and every cheat is told apart. `NEURINO_CALIBRATE` says how many jobs.
    #[tokio::test]
    async fn real_cheats_with_our_own_model_are_told_apart() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../models/weights/neurino-toybox-64.safetensors");
        let jobs = std::env::var("NEURINO_CALIBRATE").ok().and_then(|n| n.parse().ok());
        let image = ImageDefaults {
            width: 64,
            height: 64,
            steps: if jobs.is_some() { 20 } else { 4 },
            guidance: 3.0,
            side_multiple: 8,
            negative_prompt: String::new(),
        };
        let model = ModelRef::new("neurino-toybox-64".parse().unwrap(), path);
        let subject = Subject { model, other: None, image: Some(image) };
        let cpu = [DeviceChoice::Cpu; 2];
        let report = measure(&subject, cpu, jobs.unwrap_or(3), 16, &|_| {}).await.unwrap();
        let table = lines(&report).join("\n");
        if jobs.is_some() {
            output::line(&table);
        }
        let [honest, cheats @ ..] = &report.rows[..] else { panic!("{table}") };
        assert_eq!((honest.manner, honest.exact.hits), (Manner::Honest, 0), "{table}");
        let manners: Vec<Manner> = cheats.iter().map(|row| row.manner).collect();
        for manner in [Manner::WrongSeed, Manner::Less, Manner::Cached] {
            assert!(report.same_class && manners.contains(&manner), "{table}");
        }
        for cheat in cheats {
            assert_eq!(cheat.exact.hits, cheat.exact.of, "{table}");
        }
    }
}
