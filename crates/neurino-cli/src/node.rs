//! `neurino node`: mines for a coordinator, without a window.

use std::process::ExitCode;

use anyhow::Context as _;
use neurino_app::{App, AppOptions, CatalogueOptions, EngineHost, UpdateOptions};
use neurino_config::{NetworkSetting, ProtocolSetting};
use neurino_core::PointsKind;
use neurino_core::pricing::Quote;
use neurino_protocol::app::{Command, Event, MiningState, MiningStatus, Snapshot};
use neurino_wallet::RewardAddress;
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;

use crate::args::{NodeArgs, ORIGINAL};
use crate::output::{self, Format, points_name};
use crate::update::hand_over;
use crate::{Edition, FAILED, Setting, interrupted};

pub(crate) async fn run(
    mut setting: Setting,
    args: NodeArgs,
    edition: Edition,
) -> anyhow::Result<ExitCode> {
    let network: NetworkSetting = args.coordinator.parse().context("--coordinator")?;
    if network == NetworkSetting::Practice {
        anyhow::bail!("--coordinator needs a URL; for the practice network use `neurino practice`");
    }
    let chosen = &mut setting.settings.network;
    if args.protocol == ORIGINAL {
        chosen.protocol = ProtocolSetting::Original;
    }
    check_original(&args, chosen.protocol)?;
    chosen.coordinator = network;
    if let Some(frontend) = args.referred_by {
        chosen.referred_by = Some(frontend.into());
    }
    let original = &mut chosen.original;
    original.reward_wallet = args.reward_wallet.or(original.reward_wallet.take());
    original.signal_url = args.signal.or(original.signal_url.take());
    original.upload_url = args.uploads.or(original.upload_url.take());
    let engine = EngineHost::Process { program: std::env::current_exe()? };
    let (dirs, settings) = (setting.dirs.clone(), setting.settings.clone());
    let updates = Some(UpdateOptions::of(&dirs, &settings, edition)?);
    let usual = AppOptions::new(dirs, settings, engine);
    let catalogue = CatalogueOptions::of_build();
    let app = App::start(AppOptions { updates, catalogue, ..usual }).await?;
    let events = app.subscribe();
    match setting.format {
        Format::Json => output::json_line(&json!({
            "event": "started", "node": app.node(), "coordinator": args.coordinator,
        }))?,
        Format::Text => {
            output::line(format!("Node {} mines for {}.", app.node(), args.coordinator));
            output::line("Ctrl-C hands the running job back and ends.");
        }
    }
    app.dispatch(Command::MiningStart).await?;
    let due = app.update_due();
    let followed = async {
        let code = follow(events, setting.format).await;
        // The jobs have ended for a newer version; its turn comes in a moment.
        if app.is_updating() {
            due.cancelled().await;
        }
        code
    };
    let code = tokio::select! {
        code = followed => code,
        () = interrupted() => Ok(ExitCode::SUCCESS),
        () = due.cancelled() => Ok(ExitCode::SUCCESS),
    };
    app.shutdown().await;
    if due.is_cancelled() && code.is_ok() {
        let exchange = app.exchange_due();
        drop(app);
        output::note("neurino: another version takes over");
        return Ok(hand_over(exchange, false, std::env::args_os().skip(1).collect()));
    }
    code
}

/// Refuses what only the original protocol uses where another one is spoken, and a wallet that is none.
fn check_original(args: &NodeArgs, protocol: ProtocolSetting) -> anyhow::Result<()> {
    let flags = [
        ("--reward-wallet", &args.reward_wallet),
        ("--signal", &args.signal),
        ("--uploads", &args.uploads),
    ];
    if protocol != ProtocolSetting::Original
        && let Some((flag, _)) = flags.iter().find(|(_, value)| value.is_some())
    {
        anyhow::bail!(
            "{flag} is of use with `--protocol {ORIGINAL}` alone; add that, or leave it out"
        );
    }
    if let Some(wallet) = &args.reward_wallet {
        // Here and not in the grammar, whose errors repeat the text: it may be a secret.
        RewardAddress::read(wallet).context("--reward-wallet")?;
    }
    Ok(())
}

/// Prints what happens until mining ends by itself.
pub(crate) async fn follow(
    mut events: tokio::sync::broadcast::Receiver<Event>,
    format: Format,
) -> anyhow::Result<ExitCode> {
    let mut last = String::new();
    let mut seen_start = false;
    loop {
        match events.recv().await {
            Ok(Event::Snapshot(snapshot)) => {
                seen_start |= snapshot.mining.state != MiningState::Stopped;
                if !seen_start {
                    // It is about to start; nobody has to be told to press anything.
                    continue;
                }
                tell(&snapshot, &mut last, format)?;
                match snapshot.mining.state {
                    MiningState::NeedsYou => return Ok(ExitCode::from(FAILED)),
                    MiningState::Stopped => return Ok(ExitCode::SUCCESS),
                    _ => {}
                }
            }
            Ok(Event::Settled(receipt)) => match format {
                Format::Json => {
                    output::json_line(&json!({ "event": "settled", "receipt": receipt }))?;
                }
                Format::Text => output::line(paid(&receipt.quote, receipt.duration_ms)),
            },
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return Ok(ExitCode::SUCCESS),
        }
    }
}

/// What a job brought, in a line.
fn paid(quote: &Quote, duration_ms: u64) -> String {
    let work = match quote.points {
        PointsKind::Llama => format!("{} tokens", quote.units),
        PointsKind::Waifu => "a picture".to_owned(),
    };
    let seconds = duration_ms as f64 / 1000.0;
    format!(
        "  paid {} {} for {work} in {seconds:.1} s",
        quote.amount_micro,
        points_name(quote.points)
    )
}

/// Prints the state sentence when it says something new; figures that only count up are left out.
fn tell(snapshot: &Snapshot, last: &mut String, format: Format) -> anyhow::Result<()> {
    let sentence = at_rest(&snapshot.mining);
    let gist: String = match (snapshot.mining.state, &snapshot.job) {
        // How many jobs run changes all the time.
        (state @ (MiningState::Working | MiningState::Finishing), Some(job)) => {
            format!("{state:?}, {:?}", job.stage)
        }
        _ => sentence.chars().filter(|c| !c.is_ascii_digit()).collect(),
    };
    if gist == *last {
        return Ok(());
    }
    *last = gist;
    match format {
        Format::Json => output::json_line(&json!({ "event": "state", "mining": snapshot.mining })),
        Format::Text => {
            output::line(output::plain(&sentence));
            if let Some(hint) = snapshot.mining.problem.as_ref().and_then(|p| p.hint.as_ref()) {
                output::line(format!("  -> {}", output::plain(hint)));
            }
            Ok(())
        }
    }
}

/// The state sentence; while a job runs, without its figures.
fn at_rest(mining: &MiningStatus) -> String {
    match (mining.state, mining.sentence.split_once(": ")) {
        (MiningState::Working | MiningState::Finishing, Some((what, _))) => format!("{what}."),
        _ => mining.sentence.clone(),
    }
}

#[cfg(test)]
mod tests {
    use neurino_core::{MicroPoints, Multiplier};
    use neurino_protocol::saying::MiningSaying;

    use super::*;

    fn args(rest: &str) -> NodeArgs {
        use clap::Parser as _;
        let line = ["neurino", "node", "--coordinator", "https://x"].into_iter();
        let line = line.chain(rest.split_whitespace());
        match crate::Cli::try_parse_from(line).expect("parses").role {
            Some(crate::Role::Node(args)) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_of_the_original_protocol_are_checked_before_anything_starts() {
        let good = format!("--reward-wallet 0x{}", "ab".repeat(20));
        for (rest, protocol, expect) in [
            ("", ProtocolSetting::Neurino, ""),
            (good.as_str(), ProtocolSetting::Original, ""),
            ("--signal https://y", ProtocolSetting::Original, ""),
            (good.as_str(), ProtocolSetting::Neurino, "--protocol original"),
            ("--uploads https://y", ProtocolSetting::Neurino, "--uploads is of use"),
            ("--reward-wallet garbage", ProtocolSetting::Original, "--reward-wallet: "),
        ] {
            match check_original(&args(rest), protocol) {
                Ok(()) => assert_eq!(expect, "", "{rest}"),
                Err(error) => {
                    let told = format!("{error:#}");
                    assert!(!expect.is_empty() && told.contains(expect), "{rest}: {told}");
                    assert!(!told.contains("garbage"), "{told}");
                }
            }
        }
    }

    fn check(state: MiningState, sentence: &str, expect: &str) {
        let sentence = sentence.to_owned();
        let said = MiningSaying::Working;
        let mining = MiningStatus { state, sentence, said, since_ms: 0, problem: None };
        assert_eq!(at_rest(&mining), expect);
    }

    #[test]
    fn what_a_job_brought_is_told_in_its_own_measure() {
        let check = |points, units, expect| {
            let quote = Quote {
                points,
                units,
                base_micro: MicroPoints(45_000),
                factor: Multiplier::ONE,
                multiplier: Multiplier::ONE,
                amount_micro: MicroPoints(45_000),
            };
            assert_eq!(paid(&quote, 1_240), expect);
        };
        check(PointsKind::Llama, 45, "  paid 0.045000 Llama points for 45 tokens in 1.2 s");
        check(PointsKind::Waifu, 235_930, "  paid 0.045000 Waifu points for a picture in 1.2 s");
    }

    #[test]
    fn a_running_job_is_told_once() {
        let running = "Running a text job for 127.0.0.1:43110: 43 tokens, 3.1 s of 180 s.";
        check(MiningState::Working, running, "Running a text job for 127.0.0.1:43110.");
        let loading = "Loading m for a job of the practice network.";
        check(MiningState::Working, loading, loading);
        let fetching = "Getting ready: fetching the starter model (42 %).";
        check(MiningState::Starting, fetching, fetching);
    }
}
