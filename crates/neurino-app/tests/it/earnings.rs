//! What was earned, how jobs ended, exports, and what a restart leaves of it.

use std::time::Duration;

use neurino_core::MicroPoints;
use neurino_protocol::ErrorCode;
use neurino_protocol::app::{Command, MiningState, Reply, StopMode};
use neurino_protocol::earnings::{
    EarningsAlarm, EarningsAnswer, EarningsAsk, EarningsOverview, ExportFormat, ExportKind,
    JobFilter, JobOutcome, JobPage, Rate, ReceiptFilter, SeriesStep, SpanKind, Tariff,
    TelemetrySpan,
};

use crate::mining::hanging;
use crate::world::{Viewer, World, code};

impl Viewer {
    async fn about(&self, about: EarningsAsk) -> EarningsAnswer {
        match self.command(Command::Earnings { about }).await {
            Ok(Reply::Earnings(answer)) => answer,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn overview(&self) -> EarningsOverview {
        match self.about(EarningsAsk::Overview).await {
            EarningsAnswer::Overview(overview) => *overview,
            other => panic!("{other:?}"),
        }
    }

    async fn jobs(&self, filter: JobFilter) -> JobPage {
        match self.about(EarningsAsk::Jobs { filter, before: None, limit: 50 }).await {
            EarningsAnswer::Jobs(page) => page,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_earned_is_told_exported_and_survives_a_restart() {
    let world = World::answering("one two three");
    let mut viewer = world.start().await;
    let nothing = viewer.overview().await;
    assert_eq!((nothing.rate, nothing.alarms.len()), (Rate::Idle, 0));
    assert_eq!(nothing.spans.len(), 4);

    viewer.mine_until_ready().await;
    viewer.earn("a").await;
    world.engine.queue(hanging());
    viewer.ask("b").await.unwrap();
    viewer.until_state(MiningState::Working).await;
    // Long enough for two samples of the meter.
    tokio::time::sleep(Duration::from_millis(4_500)).await;
    viewer.stop(StopMode::Now).await;
    viewer.until_over().await;

    let jobs = viewer.jobs(JobFilter::default()).await;
    let outcomes: Vec<JobOutcome> = jobs.jobs.iter().map(|job| job.outcome).collect();
    assert_eq!(outcomes, [JobOutcome::HandedBack, JobOutcome::Paid]);
    assert_eq!(jobs.jobs[0].reason.as_deref(), Some("the miner was stopped"));
    assert!(jobs.jobs[0].times.unwrap().computing_ms > 4_000, "{:?}", jobs.jobs[0]);
    assert_eq!(jobs.jobs[1].points, MicroPoints(14_000));
    assert!(jobs.jobs[1].times.is_some());
    let paid = JobFilter { outcome: Some(JobOutcome::Paid), ..JobFilter::default() };
    assert_eq!(viewer.jobs(paid).await.matching, 1);

    let day = EarningsAsk::Telemetry { span: TelemetrySpan::TenMinutes };
    let EarningsAnswer::Telemetry(sensors) = viewer.about(day).await else { panic!("sensors") };
    assert!(!sensors.points.is_empty() && sensors.power_estimated);
    assert_eq!(
        sensors.points.iter().map(|p| p.points.llama.0).sum::<i64>(),
        14_000,
        "points stand where they were credited"
    );

    let tariff =
        Tariff { kwh_micro: 320_000, cheap_kwh_micro: Some(210_000), currency: "EUR".into() };
    viewer.about(EarningsAsk::Tariff { tariff: Some(tariff.clone()) }).await;
    let wrong = Tariff { kwh_micro: 1, cheap_kwh_micro: None, currency: String::new() };
    let refused = Command::Earnings { about: EarningsAsk::Tariff { tariff: Some(wrong) } };
    assert_eq!(code(viewer.command(refused).await), ErrorCode::InvalidRequest);

    for (what, format) in [
        (ExportKind::Receipts, ExportFormat::Csv),
        (ExportKind::Jobs, ExportFormat::Json),
        (ExportKind::Days, ExportFormat::Csv),
    ] {
        let ask = EarningsAsk::Export { what, format, since_ms: None };
        let EarningsAnswer::Saved { path } = viewer.about(ask).await else { panic!("a file") };
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("0.014000"), "{path}: {text}");
    }
    let EarningsAnswer::Saved { path } = viewer.about(EarningsAsk::Bundle).await else {
        panic!("a file")
    };
    assert!(std::fs::read(path).unwrap().starts_with(b"PK"));
    let before = viewer.overview().await;
    viewer.end().await;

    let viewer = world.start().await;
    let after = viewer.overview().await;
    assert_eq!(after.tariff, Some(tariff));
    let [today, _, _, lifetime] = after.spans[..] else { panic!("four spans") };
    assert_eq!((today.span, lifetime.span), (SpanKind::Today, SpanKind::Lifetime));
    assert_eq!((lifetime.points.llama, lifetime.jobs), (MicroPoints(14_000), 1));
    assert!(lifetime.mined_ms >= 1_500, "{lifetime:?}");
    assert_eq!(lifetime.mined_ms, before.spans[3].mined_ms);
    assert!(matches!(after.rate, Rate::Estimating { .. }), "{:?}", after.rate);
    assert_eq!((after.checked.agree, after.checked.differ), (1, 0));
    assert_eq!(after.week.jobs, 1);
    assert_eq!(viewer.jobs(JobFilter::default()).await.matching, 2);
    let bars = EarningsAsk::Series { by: SeriesStep::Day, count: 7 };
    let EarningsAnswer::Series(bars) = viewer.about(bars).await else { panic!("bars") };
    assert_eq!((bars.len(), bars[6].points.llama), (7, MicroPoints(14_000)));
    viewer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_that_are_gone_or_changed_raise_an_alarm() {
    let world = World::answering("one two three");
    let mut viewer = world.start().await;
    viewer.mine_until_ready().await;
    viewer.earn("a").await;
    viewer.earn("b").await;
    viewer.stop(StopMode::Finish).await;
    viewer.until_over().await;
    assert_eq!(viewer.overview().await.alarms, []);
    viewer.end().await;

    let log = world.dirs().data.join("practice/receipts.jsonl");
    let text = std::fs::read_to_string(&log).unwrap();
    let first = text.lines().next().unwrap();
    let less = first.replace("\"amount_micro\":14000", "\"amount_micro\":4000");
    assert_ne!(less, first);
    std::fs::write(&log, less + "\n").unwrap();
    let viewer = world.start().await;
    let alarms = viewer.overview().await.alarms;
    let difference = MicroPoints(-10_000);
    assert!(alarms.contains(&EarningsAlarm::Drift { receipts: 1, difference }), "{alarms:?}");
    let missing = |alarm: &EarningsAlarm| {
        matches!(alarm, EarningsAlarm::Books { receipts, books, .. }
            if (receipts.0, books.0) == (4_000, 28_000))
    };
    assert!(alarms.iter().any(missing), "{alarms:?}");
    let filter = ReceiptFilter { drifted: true, ..ReceiptFilter::default() };
    let ask = EarningsAsk::Receipts { filter, before: None, limit: 9 };
    let EarningsAnswer::Receipts(page) = viewer.about(ask).await else { panic!("receipts") };
    assert_eq!(page.matching, 1);
    viewer.end().await;
}
