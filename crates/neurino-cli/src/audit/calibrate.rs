//! `neurino audit calibrate`: honest results and cheats by the real engine, compared as a network
//! compares them, and how often the comparison is wrong.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;
use neurino_coordinator::compare::{self, Finding, Tolerance};
use neurino_core::audit::bounds::MeasuredShare;
use neurino_core::job::WeightPrecision;
use neurino_core::{ImageDefaults, JobOutput, JobSpec, ModelId};
use neurino_engine::{DeviceChoice, Engine as _, JobEvent, LocalEngine, ModelRef};
use neurino_model_store::ModelStore;
use serde::Serialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::cheats::{self, Manner};
use super::likeness::{self, Likeness};
use super::scores::{self, Scoring};
use crate::Setting;
use crate::args::CalibrateArgs;
use crate::output::{self, Format};

/// Confidence of the intervals.
pub(super) const CONFIDENCE: f64 = 0.95;

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
    /// What scores say of texts.
    #[serde(skip_serializing_if = "Option::is_none")]
    scoring: Option<Scoring>,
    /// What the test of distributions says of texts, if it was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    likeness: Vec<Likeness>,
}

/// The model under test.
struct Subject {
    model: ModelRef,
    other: Option<ModelRef>,
    image: Option<ImageDefaults>,
    four_bit: bool,
    /// Texts of each engine for each job, to compare their distributions.
    distribution: Option<u32>,
}

impl Subject {
    /// The same model, or another one, that computes its texts otherwise than is asked for.
    fn variants(&self) -> Vec<(Manner, ModelRef)> {
        let kept = |precision| ModelRef { precision: Some(precision), ..self.model.clone() };
        let mut all = Vec::new();
        all.extend(self.other.clone().map(|other| (Manner::OtherFile, other)));
        if self.image.is_none() {
            all.push((Manner::OtherRounding, kept(WeightPrecision::Full)));
            all.extend(self.four_bit.then(|| (Manner::FourBit, kept(WeightPrecision::FourBit))));
        }
        all
    }
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
    let (auditor, second, scoring) = computed_again(subject, against, &jobs, &results).await?;
    let likeness = match subject.distribution {
        Some(count) if subject.image.is_none() => {
            say("texts with other seeds, for their distribution");
            likeness(subject, [device, against], &jobs, count).await?
        }
        _ => Vec::new(),
    };
    Ok(Report {
        model: id.clone(),
        same_class: name == auditor,
        device: name,
        auditor,
        jobs: count,
        confidence: CONFIDENCE,
        tolerance: Tolerance::default(),
        rows: compare_all(jobs, results, second, subject.image.is_some()).await?,
        scoring,
        likeness,
    })
}

fn subject(store: &ModelStore, args: &CalibrateArgs) -> anyhow::Result<Subject> {
    let id: ModelId = args.model.parse()?;
    let path = match &args.file {
        Some(path) => path.clone(),
        None => store.verified_blocking(&id)?,
    };
    let image = store.catalog().get(&id).and_then(|manifest| manifest.image.clone());
    let other = args.other.clone().map(|path| ModelRef::new(id.clone(), path));
    let (four_bit, distribution) = (args.four_bit, args.distribution);
    Ok(Subject { model: ModelRef::new(id, path), other, image, four_bit, distribution })
}

/// Loads a model into a new engine and says what computes.
async fn engine(choice: DeviceChoice, model: &ModelRef) -> anyhow::Result<(LocalEngine, String)> {
    let engine = LocalEngine::start(choice)?;
    let loaded = engine.load(model).await?;
    Ok((engine, loaded.device))
}

pub(super) async fn compute(engine: &LocalEngine, spec: &JobSpec) -> anyhow::Result<JobOutput> {
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

pub(super) type Results = BTreeMap<Manner, Vec<Option<JobOutput>>>;

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
        (0..jobs.len()).map(|n: usize| n.checked_sub(1).and_then(|n| honest[n].clone())).collect();
    results.insert(Manner::Cached, cached);
    own.unload().await?;
    drop(own);
    let said = results[&Manner::Honest].iter().flatten().find_map(precision_of);
    for (manner, model) in subject.variants() {
        let (engine, _) = engine(device, &model).await?;
        let mut made = Vec::with_capacity(jobs.len());
        for spec in jobs {
            let mut output = compute(&engine, spec).await?;
            // A cheat says what is asked for; another device that rounds otherwise says so truly.
            if let JobOutput::Text(text) = &mut output {
                text.precision = said;
            }
            made.push(Some(output));
        }
        results.insert(manner, made);
    }
    Ok((name, results))
}

fn precision_of(output: &JobOutput) -> Option<WeightPrecision> {
    match output {
        JobOutput::Text(text) => text.precision,
        JobOutput::Image(_) => None,
    }
}

async fn computed_again(
    subject: &Subject,
    device: DeviceChoice,
    jobs: &[JobSpec],
    results: &Results,
) -> anyhow::Result<(String, Vec<JobOutput>, Option<Scoring>)> {
    let (engine, name) = engine(device, &subject.model).await?;
    let (mut made, started) = (Vec::with_capacity(jobs.len()), Instant::now());
    for spec in jobs {
        made.push(compute(&engine, &cheats::audited(spec)).await?);
    }
    let scoring = scores::score(&engine, jobs, results, started.elapsed()).await?;
    Ok((name, made, scoring))
}

/// Honest texts of two engines with seeds of their own, and those of every cheat against them.
async fn likeness(
    subject: &Subject,
    [device, against]: [DeviceChoice; 2],
    jobs: &[JobSpec],
    count: u32,
) -> anyhow::Result<Vec<Likeness>> {
    let seeds = u64::from(count);
    let (own, _) = engine(device, &subject.model).await?;
    let honest = likeness::texts(&own, jobs, count, 1).await?;
    drop(own);
    let (other, _) = engine(against, &subject.model).await?;
    let again = likeness::texts(&other, jobs, count, 1 + seeds).await?;
    drop(other);
    let mut all = Vec::new();
    all.extend(likeness::compared("honest", &honest, &again));
    for (n, (manner, model)) in (2..).zip(subject.variants()) {
        let (engine, _) = engine(device, &model).await?;
        let made = likeness::texts(&engine, jobs, count, 1 + n * seeds).await?;
        all.extend(likeness::compared(manner.words(false), &made, &again));
    }
    Ok(all)
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
    lines.extend(report.scoring.iter().flat_map(scores::lines));
    if !report.likeness.is_empty() {
        lines.extend(likeness::lines(&report.likeness));
    }
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
            sampler: None,
            negative_prompt: String::new(),
        };
        let model = ModelRef::new("neurino-toybox-64".parse().unwrap(), path);
        let (four_bit, distribution) = (false, None);
        let subject = Subject { model, other: None, image: Some(image), four_bit, distribution };
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

    /// A tiny language model with weights of chance: scores tell its own texts from a cheat's, and cost little.
    /// `NEURINO_CALIBRATE_MODEL` names a real one's file.
    #[tokio::test]
    async fn scores_hold_for_honest_texts_and_tell_cheats_apart() {
        let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/llm/llama3");
        let model = ModelRef::new("tiny".parse().unwrap(), tiny);
        let (four_bit, distribution) = (false, Some(4));
        let subject = Subject { model, other: None, image: None, four_bit, distribution };
        let cpu = [DeviceChoice::Cpu; 2];
        let report = measure(&subject, cpu, 6, 48, &|_| {}).await.unwrap();
        let table = lines(&report).join("\n");
        let rows = serde_json::to_value(report.scoring.as_ref().unwrap()).unwrap();
        let of = |manner: &str, what: &str| {
            let row = &rows["by_manner"][manner][what];
            (row["hits"].as_u64().unwrap(), row["of"].as_u64().unwrap())
        };
        for manner in ["honest", "other_rounding"] {
            assert_eq!(of(manner, "told_apart"), (0, 6), "{table}");
        }
        assert_eq!(of("honest", "held"), (6, 6), "{table}");
        for (manner, count) in [("wrong_seed", 3), ("less", 6), ("cached", 5)] {
            assert_eq!(of(manner, "told_apart"), (count, count), "{table}");
        }
        let [honest, ..] = &report.likeness[..] else { panic!("{table}") };
        assert!(honest.test.p_value > 0.01 && honest.test.prompts == 6, "{table}");
    }
}
