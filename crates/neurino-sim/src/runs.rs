//! What is measured: L1 to L9, each with the figures that pass.

use std::path::PathBuf;
use std::time::{Duration, Instant};

#[cfg(unix)]
use anyhow::Context as _;
use neurino_core::ModelId;

use crate::child::{Process, Terms};
use crate::miner::Manner;
use crate::polls::{self, Polled};
use crate::report::{Report, Spread, ms};
use crate::streams::{self, Source};
use crate::world::{Job, MODEL, PAINTS, World};

/// A run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Run {
    /// Idle miners.
    L1,
    /// Idle miners of the original protocol, which poll.
    L2,
    /// The original network's mean load.
    L3,
    /// Seven times that, then fourteen times.
    L4,
    /// A burst of which one payer sends most.
    L5,
    /// The coordinator is killed again and again.
    L6,
    /// Miners are killed, and some hand in late.
    L7,
    /// The database is killed, then the coordinator while another one stands by.
    #[cfg(unix)]
    L8,
    /// The same through two gateways, and NATS, a gateway and the coordinator are killed.
    #[cfg(unix)]
    L8Gateways,
    /// Answers that are read as they grow, for long.
    L9,
}

impl Run {
    /// All that can be done there.
    pub fn all(ground: &Ground) -> Vec<Self> {
        let mut all = vec![Self::L1, Self::L2, Self::L3, Self::L4, Self::L5, Self::L6, Self::L7];
        all.retain(|run| ground.certificate.is_none() || run.can_encrypt());
        #[cfg(unix)]
        if ground.postgres.is_some() {
            all.push(Self::L8);
            if ground.certificate.is_none() {
                all.push(Self::L8Gateways);
            }
        }
        all.push(Self::L9);
        all
    }

    /// Whether it can be done encrypted: not with pollers, which speak plain HTTP, nor through gateways.
    fn can_encrypt(self) -> bool {
        #[cfg(unix)]
        if self == Self::L8Gateways {
            return false;
        }
        self != Self::L2
    }
}

/// How large a run is, against the figures of the network's design.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Miners and jobs a second are divided by this.
    pub part: usize,
    /// The length of the run is divided by this.
    pub shorter: u32,
}

impl Size {
    fn many(self, whole: usize) -> usize {
        (whole / self.part).max(1)
    }

    fn long(self, whole_s: u64) -> Duration {
        Duration::from_secs(whole_s) / self.shorter
    }
}

/// Lease of the runs in which miners fail, so that a run sees its end.
const SHORT_LEASE_MS: u64 = 5_000;
/// The usual lease.
const LEASE_MS: u64 = 180_000;
/// Payers of the steady runs.
const PAYERS: usize = 10;

/// What a run stands on.
#[derive(Debug, Clone)]
pub struct Ground {
    /// This crate's binary.
    pub program: PathBuf,
    /// Where PostgreSQL's package was unpacked, if its books are not to be a file.
    pub postgres: Option<PathBuf>,
    /// How many gateways miners and clients take turns at; without any, all speak to the coordinator.
    pub gateways: usize,
    /// The folder of the certificate with which the coordinator encrypts, if it does.
    pub certificate: Option<PathBuf>,
}

impl Ground {
    /// Books in a folder, no gateways, nothing encrypted.
    pub fn plain(program: PathBuf) -> Self {
        Self { program, postgres: None, gateways: 0, certificate: None }
    }
}

/// Does one run.
///
/// # Errors
/// A coordinator that does not start, or miners that cannot connect.
pub async fn run(run: Run, size: Size, ground: &Ground) -> anyhow::Result<Report> {
    let encrypts = ground.certificate.is_some();
    anyhow::ensure!(!encrypts || run.can_encrypt(), "{run:?} cannot be done with --tls");
    match run {
        Run::L1 => idle(size, ground).await,
        Run::L2 => polling(size, ground).await,
        Run::L3 => steady(size, ground).await,
        Run::L4 => heavy(size, ground).await,
        Run::L5 => burst(size, ground).await,
        Run::L6 => crashes(size, ground).await,
        Run::L7 => lost_miners(size, ground).await,
        #[cfg(unix)]
        Run::L8 => outages(size, ground).await,
        #[cfg(unix)]
        Run::L8Gateways => cut_ways(size, ground).await,
        Run::L9 => soak(size, ground).await,
    }
}

fn usual() -> Manner {
    Manner { slots: 1, service_ms: 1_000, pieces: 0, late_permille: 0 }
}

async fn idle(size: Size, ground: &Ground) -> anyhow::Result<Report> {
    let (miners, length) = (size.many(6_000), size.long(300));
    let load = format!("{miners} idle miners for {} s", length.as_secs());
    let mut report = Report::new("L1", load);
    let empty = World::start(ground, 0, 1, usual(), LEASE_MS).await?;
    let (rss_before, _) = empty.process.usage();
    drop(empty);
    let mut world = World::start(ground, miners, 1, usual(), LEASE_MS).await?;
    let (_, cpu_before) = world.process.usage();
    world.listen(length).await;
    let (rss, cpu) = world.process.usage();
    let each = rss.saturating_sub(rss_before) / miners as u64;
    let share = cpu.saturating_sub(cpu_before).as_secs_f64() / length.as_secs_f64() * 100.0;
    report.tell("memory without miners", format!("{} MB", rss_before / 1_000_000));
    // Two records of 16 KB are TLS's.
    let most = if ground.certificate.is_some() { 45 } else { 15 };
    report.want(
        "memory for each miner",
        format!("{:.1} KB", each as f64 / 1024.0),
        &format!("<= {most} KB"),
        each <= most * 1024,
    );
    report.want("processor", format!("{share:.1} % of a core"), "<= 5 %", share <= 5.0);
    let ended = world.tally.disconnected;
    report.want("sessions that ended", ended, "0", ended == 0);
    Ok(report)
}

async fn polling(size: Size, ground: &Ground) -> anyhow::Result<Report> {
    // Half of the original's 6,000 miners made texts, in four processes each: 3,000 + 12,000, every two seconds.
    let (connections, length) = (size.many(15_000), size.long(60).max(Duration::from_secs(4)));
    let load = format!(
        "{} polls/s of the original protocol over {connections} connections, {} s",
        connections / 2,
        length.as_secs()
    );
    let mut report = Report::new("L2", load);
    let folder = tempfile::tempdir()?;
    let terms = Terms { original: true, ..Terms::usual(LEASE_MS) };
    let mut process = Process::start(&ground.program, folder.path(), terms).await?;
    let model = ModelId::new(MODEL)?;
    // What an idle coordinator does with its books, which is not for any poll: as many polls as are
    // answered in four seconds make the miners known.
    polls::poll_all(process.port, &model, connections, Duration::from_secs(2)).await?;
    let idle = Duration::from_secs(4);
    let before = process.store_calls().await?;
    tokio::time::sleep(idle).await;
    let idle_calls = process.store_calls().await? - before;
    let (_, cpu_before) = process.usage();
    let before = process.store_calls().await?;
    let begin = Instant::now();
    let Polled { took, wrong } = polls::poll_all(process.port, &model, connections, length).await?;
    let lasted = begin.elapsed();
    let calls = process.store_calls().await? - before;
    let (_, cpu) = process.usage();
    // Every half minute it also counts who was connected.
    let expected = (idle_calls.div_ceil(idle.as_secs()).max(1) + 1) * (lasted.as_secs() + 2);
    let share = cpu.saturating_sub(cpu_before).as_secs_f64() / lasted.as_secs_f64() * 100.0;
    report.tell("polls answered", took.len());
    report.must("answers other than nothing", wrong, "0", wrong == 0);
    let name = "uses of the books, of which an idle coordinator";
    let words = format!("<= {expected} (no poll touches them)");
    report.must(
        name,
        format!("{calls}, {idle_calls} in {} s", idle.as_secs()),
        &words,
        calls <= expected,
    );
    let p99 = took.permille(990);
    report.want("poll to answer, p99", ms(p99), "<= 50 ms", p99 <= Duration::from_millis(50));
    report.tell("poll to answer, p50", ms(took.permille(500)));
    report.tell("processor", format!("{share:.0} % of a core"));
    Ok(report)
}

async fn soak(size: Size, ground: &Ground) -> anyhow::Result<Report> {
    /// Half a minute of an answer.
    const PIECES: u32 = 1_500;
    /// Streams a miner serves at once.
    const SLOTS: u32 = 5;
    let (streams, length) = (size.many(200), size.long(1_800));
    let pieces = PIECES / size.shorter.clamp(1, 10);
    let load = format!(
        "{streams} streams of 50 pieces/s, each over {} s, for {} s",
        pieces / 50,
        length.as_secs()
    );
    let mut report = Report::new("L9", load);
    let miners = streams.div_ceil(SLOTS as usize);
    let manner = Manner { slots: SLOTS, pieces, ..usual() };
    let mut world = World::start(ground, miners, streams, manner, LEASE_MS).await?;
    let source = Source {
        http: reqwest::Client::new(),
        url: world.process.url(),
        model: world.model.clone(),
        pieces,
    };
    let begin = Instant::now();
    let readers = streams::read_all(source, world.keys.clone(), begin + length);
    let readers = tokio::spawn(readers);
    // Memory grows until the caches of the books are full, about ten minutes.
    world.listen(length / 2).await;
    let (warm, _) = world.process.usage();
    world.listen(length.saturating_sub(begin.elapsed())).await;
    let (end, _) = world.process.usage();
    while !readers.is_finished() {
        world.listen(Duration::from_millis(200)).await;
    }
    let streamed = readers.await?;
    let check = world.books().await?;
    report.tell("streams read", streamed.whole);
    report.must(
        "streams with a piece lost, twice or astray",
        streamed.broken,
        "0",
        streamed.broken == 0,
    );
    report.must("books balance", check.holds(), "true", check.holds());
    report.want("requests refused", streamed.refused, "0", streamed.refused == 0);
    let growth = (end as f64 / warm.max(1) as f64 - 1.0) * 100.0;
    let words = format!("{growth:+.1} % ({} to {} MB)", warm / 1_000_000, end / 1_000_000);
    report.want("memory, over the second half", words, "< 5 %", growth < 5.0);
    let p99 = streamed.gaps.permille(990);
    report.want("piece to piece, p99", ms(p99), "<= 150 ms", p99 <= Duration::from_millis(150));
    Ok(report)
}

async fn steady(size: Size, ground: &Ground) -> anyhow::Result<Report> {
    let (miners, per_s, length) = (size.many(6_000), rate(size, 72), size.long(600));
    let load = format!("{per_s:.1} jobs/s, {miners} miners, {} s", length.as_secs());
    let mut report = Report::new("L3", load);
    let mut world = World::start(ground, miners, PAYERS, usual(), LEASE_MS).await?;
    let (_, cpu_before) = world.process.usage();
    world.send_steadily(per_s, length).await;
    let (_, cpu) = world.process.usage();
    let share = cpu.saturating_sub(cpu_before).as_secs_f64() / length.as_secs_f64() * 100.0;
    whole(&mut world, &mut report).await?;
    let waits = assign_waits(&world);
    let (p50, p99) = (waits.permille(500), waits.permille(990));
    report.want("accept to assign, p50", ms(p50), "<= 15 ms", p50 <= Duration::from_millis(15));
    report.want("accept to assign, p99", ms(p99), "<= 100 ms", p99 <= Duration::from_millis(100));
    report.tell("processor", format!("{share:.0} % of a core"));
    Ok(report)
}

async fn heavy(size: Size, ground: &Ground) -> anyhow::Result<Report> {
    let (miners, per_s, length) = (size.many(6_000), rate(size, 500), size.long(120));
    let twice = size.long(30);
    let load = format!(
        "{per_s:.0} jobs/s for {} s, then {:.0} jobs/s for {} s, {miners} miners",
        length.as_secs(),
        per_s * 2.0,
        twice.as_secs()
    );
    let mut report = Report::new("L4", load);
    let mut world = World::start(ground, miners, PAYERS, usual(), LEASE_MS).await?;
    let (_, cpu_before) = world.process.usage();
    let begin = Instant::now();
    world.send_steadily(per_s, length).await;
    let (_, cpu) = world.process.usage();
    // The first jobs need a moment until they are settled; count behind it.
    let lead = length / 4;
    let counted =
        |job: &&Job| job.settled.is_some_and(|at| at > begin + lead && at <= begin + length);
    let settled = world.tally.jobs.values().filter(counted).count();
    let settled_per_s = settled as f64 / length.saturating_sub(lead).as_secs_f64();
    let wanted = per_s * 0.98;
    let words = format!(">= {wanted:.0}/s");
    report.want("settled", format!("{settled_per_s:.0}/s"), &words, settled_per_s >= wanted);
    let share = cpu.saturating_sub(cpu_before).as_secs_f64() / length.as_secs_f64() * 100.0;
    report.tell("processor", format!("{share:.0} % of a core"));
    let p99 = assign_waits(&world).permille(990);
    report.want("accept to assign, p99", ms(p99), "<= 250 ms", p99 <= Duration::from_millis(250));
    world.send_steadily(per_s * 2.0, twice).await;
    whole(&mut world, &mut report).await?;
    report.tell("refused as too much", world.tally.refused);
    Ok(report)
}

async fn burst(size: Size, ground: &Ground) -> anyhow::Result<Report> {
    const BURST_PAYERS: usize = 20;
    let jobs = size.many(5_000);
    let miners = size.many(1_000);
    let manner = Manner { service_ms: 200, ..usual() };
    let load =
        format!("{jobs} jobs in a second, 80 % of one of {BURST_PAYERS} payers, {miners} miners");
    let mut report = Report::new("L5", load);
    let mut world = World::start(ground, miners, BURST_PAYERS, manner, LEASE_MS).await?;
    let begin = Instant::now();
    for number in 0..jobs {
        let one = number % 5 != 0;
        world.send(if one { 0 } else { 1 + (number / 5) % (BURST_PAYERS - 1) });
        if number % (jobs / 20).max(1) == 0 {
            world.listen(Duration::from_millis(50)).await;
        }
    }
    whole(&mut world, &mut report).await?;
    let all = world.tally.jobs.values();
    let last = all.clone().filter_map(|job| job.settled).max().unwrap_or(begin);
    let ended = |payer: usize| {
        let own = world.tally.jobs.values().filter(|job| job.payer == payer);
        let times: Vec<Instant> = own.filter_map(|job| job.settled).collect();
        (times.len(), times.into_iter().max().map_or(Duration::ZERO, |at| at - begin))
    };
    let others: Vec<_> = (1..BURST_PAYERS).map(ended).collect();
    let goodput = |(many, took): &(usize, Duration)| *many as f64 / took.as_secs_f64().max(0.001);
    let rates: Vec<f64> = others.iter().map(goodput).collect();
    let most = rates.iter().copied().fold(0.0, f64::max);
    let least = rates.iter().copied().fold(f64::MAX, f64::min);
    let ratio = most / least.max(f64::MIN_POSITIVE);
    report.want(
        "goodput of the other 19, most : least",
        format!("{ratio:.2}"),
        "<= 1.2",
        ratio <= 1.2,
    );
    // With equal shares they are done once everybody got as much as the largest of them asked for.
    let largest = others.iter().map(|(many, _)| *many).max().unwrap_or(0);
    let total = last - begin;
    let fair = total.mul_f64((largest * BURST_PAYERS) as f64 / jobs as f64).min(total);
    let small = world.tally.jobs.values().filter(|job| job.payer != 0);
    let waits = small.filter_map(|job| Some(job.settled?.saturating_duration_since(job.accepted?)));
    let longest = waits.max().unwrap_or_default();
    let words = format!("<= {} (twice the fair share)", ms(fair * 2));
    report.want("longest wait of the other 19", ms(longest), &words, longest <= fair * 2);
    report.tell("all done after", ms(total));
    Ok(report)
}

async fn crashes(size: Size, ground: &Ground) -> anyhow::Result<Report> {
    let (miners, per_s, length) = (size.many(6_000), rate(size, 72), size.long(120));
    let load = format!(
        "{per_s:.1} jobs/s, {miners} miners, kill -9 of the coordinator every 5 s for {} s",
        length.as_secs()
    );
    let mut report = Report::new("L6", load);
    let mut world = World::start(ground, miners, PAYERS, usual(), LEASE_MS).await?;
    let begin = Instant::now();
    let mut downs = Vec::new();
    while begin.elapsed() < length {
        world.send_steadily(per_s, Duration::from_secs(5).min(length)).await;
        downs.push(world.process.crash().await?);
    }
    whole(&mut world, &mut report).await?;
    let longest = downs.iter().max().copied().unwrap_or_default();
    report.tell("crashes", downs.len());
    report.want("ready again after", ms(longest), "<= 3 s", longest <= Duration::from_secs(3));
    Ok(report)
}

async fn lost_miners(size: Size, ground: &Ground) -> anyhow::Result<Report> {
    let (miners, per_s, length) = (size.many(6_000), rate(size, 72), size.long(600));
    let load = format!(
        "{per_s:.1} jobs/s, {miners} miners, 30 % of them killed at half of {} s, 10 % of results \
         after the lease of {} s",
        length.as_secs(),
        SHORT_LEASE_MS / 1000
    );
    let mut report = Report::new("L7", load);
    let manner = Manner { late_permille: 100, ..usual() };
    let mut world = World::start(ground, miners, PAYERS, manner, SHORT_LEASE_MS).await?;
    world.send_steadily(per_s, length / 2).await;
    world.kill_miners(30);
    world.send_steadily(per_s, length / 2).await;
    // A job whose three attempts were all late is given up: some are.
    let _ = world.finish(Duration::from_mins(1)).await;
    let check = world.books().await?;
    let jobs = world.tally.jobs.values();
    let accepted = jobs.clone().filter(|job| job.accepted.is_some()).count() as u64;
    let state = |name: &str| check.jobs.get(name).copied().unwrap_or(0);
    let share = state("succeeded") as f64 / accepted.max(1) as f64 * 100.0;
    let paid = jobs.clone().filter(|job| job.settlements > 1).count();
    report.must("jobs paid twice", check.jobs_paid_twice + paid as u64, "0", paid == 0);
    report.must("books balance", check.holds(), "true", check.holds());
    let open = state("queued") + state("leased");
    report.must("jobs without an end", open, "0", open == 0);
    report.want("succeeded", format!("{share:.2} %"), ">= 99 %", share >= 99.0);
    report.tell("late results refused", world.tally.late);
    report.tell("jobs that needed another attempt", jobs.filter(|job| job.assignments > 1).count());
    Ok(report)
}

#[cfg(unix)]
async fn outages(size: Size, ground: &Ground) -> anyhow::Result<Report> {
    /// How long a server is away each time.
    const AWAY: Duration = Duration::from_secs(3);
    let (miners, per_s, length) = (size.many(6_000), rate(size, 72), size.long(120));
    let load = format!(
        "{per_s:.1} jobs/s, one of {PAINTS} a picture, for {} s, {miners} miners, kill -9 of PostgreSQL \
         twice, of S3, then of the coordinator while another one stands by",
        length.as_secs()
    );
    let mut report = Report::new("L8", load);
    let mut world = World::start(ground, miners, PAYERS, usual(), LEASE_MS).await?;
    for _ in 0..2 {
        world.send_steadily(per_s, length / 6).await;
        world.server.as_mut().context("this run needs PostgreSQL")?.kill()?;
        world.send_steadily(per_s, AWAY).await;
        world.server.as_mut().context("this run needs PostgreSQL")?.begin()?;
        world.send_steadily(per_s, length / 6).await;
    }
    cut_pictures(&mut world, per_s, AWAY).await?;
    let standby = world.process.stand_by(world.process.port)?;
    world.send_steadily(per_s, length / 6).await;
    world.process.kill().await?;
    let since = Instant::now();
    let (taken, ()) = tokio::join!(
        async { standby.listens().await.map(|process| (process, since.elapsed())) },
        world.send_steadily(per_s, length / 6),
    );
    let (process, took) = taken?;
    world.process = process;
    whole(&mut world, &mut report).await?;
    report.must("taken over after", ms(took), "<= 15 s", took <= Duration::from_secs(15));
    Ok(report)
}

/// Kills the server of the pictures as a power cut would, and begins it again.
#[cfg(unix)]
async fn cut_pictures(world: &mut World, per_s: f64, away: Duration) -> anyhow::Result<()> {
    world.s3.as_mut().context("this run needs S3")?.kill()?;
    world.send_steadily(per_s, away).await;
    world.s3.as_mut().context("this run needs S3")?.begin()?;
    Ok(())
}

#[cfg(unix)]
async fn cut_ways(size: Size, ground: &Ground) -> anyhow::Result<Report> {
    /// How long a server is away each time.
    const AWAY: Duration = Duration::from_secs(3);
    let (miners, per_s, length) = (size.many(6_000), rate(size, 72), size.long(120));
    let load = format!(
        "{per_s:.1} jobs/s, one of {PAINTS} a picture, for {} s, {miners} miners, two gateways; kill -9 of \
         NATS twice, of S3, of a gateway, and of the coordinator while another one stands by",
        length.as_secs()
    );
    let mut report = Report::new("L8 with gateways", load);
    let ground = Ground { gateways: 2, ..ground.clone() };
    let mut world = World::start(&ground, miners, PAYERS, usual(), LEASE_MS).await?;
    for _ in 0..2 {
        world.send_steadily(per_s, length / 8).await;
        world.nats.as_mut().context("this run needs NATS")?.kill()?;
        world.send_steadily(per_s, AWAY).await;
        world.nats.as_mut().context("this run needs NATS")?.begin()?;
        world.send_steadily(per_s, length / 8).await;
    }
    let ended = world.tally.disconnected;
    report.must("sessions that ended with NATS", ended, "0", ended == 0);
    cut_pictures(&mut world, per_s, AWAY).await?;
    world.gateways[0].crash().await?;
    world.send_steadily(per_s, length / 8).await;
    let ended = world.tally.disconnected;
    let standby = world.process.stand_by(world.process.port)?;
    world.send_steadily(per_s, length / 8).await;
    world.process.kill().await?;
    let since = Instant::now();
    let (taken, ()) = tokio::join!(
        async { standby.listens().await.map(|process| (process, since.elapsed())) },
        world.send_steadily(per_s, length / 4),
    );
    let (process, took) = taken?;
    world.process = process;
    whole(&mut world, &mut report).await?;
    let ended = world.tally.disconnected - ended;
    report.must("sessions that ended with the coordinator", ended, "0", ended == 0);
    report.must("taken over after", ms(took), "<= 15 s", took <= Duration::from_secs(15));
    Ok(report)
}

/// Jobs a second.
fn rate(size: Size, whole: usize) -> f64 {
    whole as f64 / size.part as f64
}

/// From the answer that a job is accepted to its arrival at a miner.
fn assign_waits(world: &World) -> Spread {
    let both = world.tally.jobs.values().filter_map(|job| job.accepted.zip(job.assigned));
    // The miner may hear of it before the client does.
    Spread::of(both.map(|(accepted, assigned)| assigned.saturating_duration_since(accepted)))
}

/// Waits for the end of everything accepted, and adds up.
async fn whole(world: &mut World, report: &mut Report) -> anyhow::Result<()> {
    let in_time = world.finish(Duration::from_mins(3)).await;
    let check = world.books().await?;
    let jobs = world.tally.jobs.values();
    let accepted = jobs.clone().filter(|job| job.accepted.is_some()).count() as u64;
    let twice = jobs.filter(|job| job.settlements > 1).count() as u64 + check.jobs_paid_twice;
    let state = |name: &str| check.jobs.get(name).copied().unwrap_or(0);
    let open = state("queued") + state("leased");
    // A request without an answer may have been accepted too: the books may have more.
    let lost = accepted.saturating_sub(open + state("succeeded"));
    report.tell("jobs accepted", accepted);
    report.must("accepted and lost", lost, "0", lost == 0);
    report.want("not done within three minutes", open, "0", in_time && open == 0);
    report.must("jobs paid twice", twice, "0", twice == 0);
    report.must("books balance", check.holds(), "true", check.holds());
    if world.paints() {
        let painted = world.tally.pictures;
        report.must("pictures settled", painted, "> 0", painted > 0);
    }
    // However busy: a client that tries again is not told that it did something wrong.
    let blamed = world.tally.unanswered.iter().filter(|(status, _)| status.is_some());
    let blamed: u64 = blamed.map(|(_, many)| many).sum();
    report.must("requests refused as wrong", blamed, "0", blamed == 0);
    let unanswered = world.tally.unanswered.get(&None).copied().unwrap_or(0);
    report.want("requests without an answer in a minute", unanswered, "0", unanswered == 0);
    for (status, many) in &world.tally.unanswered {
        if let Some(status) = status {
            report.tell("of them by status", format!("{status}: {many}"));
        }
    }
    report.tell("sessions that ended", world.tally.disconnected);
    Ok(())
}
