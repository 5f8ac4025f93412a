//! One coordinator, its miners and its clients, for the length of one run.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use neurino_coordinator::LedgerCheck;
use neurino_coordinator::{admin, books};
use neurino_core::{JobId, JobSpec, ModelId};
use neurino_wallet::IdentityKey;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use crate::child::{GatewayProcess, Process, Terms};
use crate::client::{self, Accepted, Outcome};
use crate::miner::{self, Manner, Seen, Shared};
use crate::pictures;
#[cfg(unix)]
use crate::postgres::Server;
use crate::runs::Ground;

/// The model that all miners serve.
pub(crate) const MODEL: &str = "smollm2-135m-instruct";
/// One of so many miners paints, and one of so many jobs is a picture, where pictures have a server.
pub(crate) const PAINTS: u64 = 10;
/// Time over which the miners of a run connect, for each thousand of them.
const CONNECT_MS_PER_THOUSAND: u64 = 4_000;

/// A job from the first request to its payment, as the outside saw it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Job {
    pub(crate) payer: usize,
    pub(crate) asked: Option<Instant>,
    pub(crate) accepted: Option<Instant>,
    pub(crate) assigned: Option<Instant>,
    pub(crate) assignments: u32,
    pub(crate) settled: Option<Instant>,
    pub(crate) settlements: u32,
}

/// What happened in a run.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) jobs: HashMap<JobId, Job>,
    pub(crate) refused: u64,
    /// Requests without an answer, by the status they had.
    pub(crate) unanswered: BTreeMap<Option<u16>, u64>,
    /// Settlements of pictures.
    pub(crate) pictures: u64,
    pub(crate) connected: u64,
    pub(crate) disconnected: u64,
    pub(crate) late: u64,
    pub(crate) rejected: u64,
}

/// All of it.
pub(crate) struct World {
    pub(crate) process: Process,
    /// The server of the books, if they are not a file.
    #[cfg(unix)]
    pub(crate) server: Option<Server>,
    /// The server between coordinator and gateways, and these; clients and miners take turns at them.
    #[cfg(unix)]
    pub(crate) nats: Option<crate::nats::Server>,
    /// The server of the pictures, if there is one; then some jobs are pictures.
    #[cfg(unix)]
    pub(crate) s3: Option<crate::s3::Server>,
    pub(crate) gateways: Vec<GatewayProcess>,
    urls: Vec<String>,
    _folder: TempDir,
    http: reqwest::Client,
    pub(crate) keys: Vec<String>,
    pub(crate) model: ModelId,
    shared: Arc<Shared>,
    seen: mpsc::UnboundedReceiver<Seen>,
    miners: Vec<JoinHandle<()>>,
    requests: JoinSet<(usize, Outcome)>,
    next_job: u64,
    pub(crate) tally: Tally,
}

impl World {
    /// Starts the coordinator, makes a key for each payer, and has the miners connect.
    pub(crate) async fn start(
        ground: &Ground,
        miners: usize,
        payers: usize,
        manner: Manner,
        text_budget_ms: u64,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        #[cfg(unix)]
        let server = match &ground.postgres {
            Some(packages) => Some(Server::start(packages, &[])?),
            None => None,
        };
        #[cfg(unix)]
        let database = server.as_ref().map(|server| format!("{}/postgres", server.url()));
        #[cfg(not(unix))]
        let database = {
            anyhow::ensure!(ground.postgres.is_none(), "PostgreSQL is started under Unix only");
            None
        };
        #[cfg(unix)]
        let nats_server = match &ground.postgres {
            Some(packages) if ground.gateways > 0 => Some(crate::nats::Server::start(packages)?),
            _ => None,
        };
        #[cfg(unix)]
        let nats_url = nats_server.as_ref().map(crate::nats::Server::url);
        #[cfg(not(unix))]
        let nats_url: Option<String> = None;
        #[cfg(unix)]
        let s3 = match &ground.postgres {
            // Beside the books of a server lie the pictures of one.
            Some(packages) => Some(crate::s3::Server::start(packages)?),
            None => None,
        };
        #[cfg(unix)]
        let pictures = match &s3 {
            Some(s3) => Some(format!("{}/{}", s3.url(), s3.bucket().await?)),
            None => None,
        };
        #[cfg(not(unix))]
        let pictures: Option<String> = None;
        let paints = pictures.is_some();
        let certificate = ground.certificate.clone();
        let nats = nats_url.clone();
        let terms = Terms { database, nats, pictures, certificate, ..Terms::usual(text_budget_ms) };
        let process = Process::start(&ground.program, folder.path(), terms).await?;
        let mut gateways = Vec::new();
        for _ in 0..ground.gateways {
            let nats = nats_url.as_deref().context("gateways need NATS")?;
            let started = GatewayProcess::start(&ground.program, folder.path(), nats, 0).await?;
            gateways.push(started);
        }
        let urls = match gateways.as_slice() {
            [] => vec![process.url()],
            some => some.iter().map(GatewayProcess::url).collect(),
        };
        let mut keys = Vec::with_capacity(payers);
        for payer in 0..payers {
            let key =
                admin::create_api_key(&process.database()?, &format!("payer {payer}")).await?;
            keys.push(key.expose_secret().to_owned());
        }
        // The coordinator reads new keys within a second.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        #[expect(
            clippy::disallowed_methods,
            reason = "what is measured must not wait for its meter"
        )]
        let (tell, seen) = mpsc::unbounded_channel();
        let model = ModelId::new(MODEL)?;
        let shared = Arc::new(Shared {
            key: IdentityKey::generate(&mut StdRng::seed_from_u64(1)),
            model: model.clone(),
            urls: urls.clone(),
            seen: tell,
            manner,
            paints,
        });
        let http = reqwest::Client::builder().timeout(Duration::from_secs(20)).build()?;
        let mut world = Self {
            process,
            #[cfg(unix)]
            server,
            #[cfg(unix)]
            nats: nats_server,
            #[cfg(unix)]
            s3,
            gateways,
            urls,
            _folder: folder,
            http,
            keys,
            model,
            shared,
            seen,
            miners: Vec::new(),
            requests: JoinSet::new(),
            next_job: 0,
            tally: Tally::default(),
        };
        world.connect(miners).await?;
        Ok(world)
    }

    async fn connect(&mut self, miners: usize) -> anyhow::Result<()> {
        let over_ms = miners as u64 * CONNECT_MS_PER_THOUSAND / 1_000;
        for number in 0..miners as u64 {
            let after = Duration::from_millis(over_ms * number / (miners as u64).max(1));
            self.miners.push(tokio::spawn(miner::run(Arc::clone(&self.shared), number, after)));
        }
        let until = Instant::now() + Duration::from_millis(over_ms) + Duration::from_mins(2);
        while self.tally.connected < miners as u64 {
            anyhow::ensure!(Instant::now() < until, "the miners could not connect");
            self.listen(Duration::from_millis(50)).await;
        }
        // What they can take is on its way.
        self.listen(Duration::from_millis(300)).await;
        Ok(())
    }

    /// Cuts the power of the first miners.
    pub(crate) fn kill_miners(&mut self, share_percent: usize) {
        let many = self.miners.len() * share_percent / 100;
        for miner in self.miners.drain(..many) {
            miner.abort();
        }
    }

    /// Sends one job of a payer.
    pub(crate) fn send(&mut self, payer: usize) {
        let number = self.next_job;
        self.next_job += 1;
        let (http, key) = (self.http.clone(), self.keys[payer].clone());
        let url = self.urls[number as usize % self.urls.len()].clone();
        let spec = if self.shared.paints && number.is_multiple_of(PAINTS) {
            JobSpec::Image(pictures::job(number))
        } else {
            client::text(&self.model, number)
        };
        self.requests
            .spawn(async move { (payer, client::submit(&http, &url, &key, &spec, number).await) });
    }

    /// Sends jobs steadily, payers in turn, and listens meanwhile.
    pub(crate) async fn send_steadily(&mut self, per_s: f64, length: Duration) {
        let (begin, first) = (Instant::now(), self.next_job);
        while begin.elapsed() < length {
            let due = (begin.elapsed().as_secs_f64() * per_s) as u64;
            while self.next_job - first < due {
                self.send(self.next_job as usize % self.keys.len());
            }
            self.listen(Duration::from_millis(5)).await;
        }
    }

    /// Takes in what happens for a while.
    pub(crate) async fn listen(&mut self, length: Duration) {
        let until = tokio::time::Instant::now() + length;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                Some(seen) = self.seen.recv() => self.take(seen),
                Some(done) = self.requests.join_next() => {
                    if let Ok((payer, outcome)) = done {
                        self.answered(payer, outcome);
                    }
                }
            }
        }
    }

    /// Listens until every accepted job is settled and every request answered, or time is up. Returns
    /// whether it was in time.
    pub(crate) async fn finish(&mut self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        loop {
            let open = |job: &Job| job.accepted.is_some() && job.settled.is_none();
            if self.requests.is_empty() && !self.tally.jobs.values().any(open) {
                return true;
            }
            if Instant::now() > until {
                return false;
            }
            self.listen(Duration::from_millis(100)).await;
        }
    }

    fn take(&mut self, seen: Seen) {
        let tally = &mut self.tally;
        match seen {
            Seen::Connected => tally.connected += 1,
            Seen::Disconnected => tally.disconnected += 1,
            Seen::Assigned(id, at) => {
                let job = tally.jobs.entry(id).or_default();
                job.assigned.get_or_insert(at);
                job.assignments += 1;
            }
            Seen::Settled { job: id, at, picture } => {
                tally.pictures += u64::from(picture);
                let job = tally.jobs.entry(id).or_default();
                job.settled.get_or_insert(at);
                job.settlements += 1;
            }
            Seen::Rejected { late: true } => tally.late += 1,
            Seen::Rejected { late: false } => tally.rejected += 1,
        }
    }

    fn answered(&mut self, payer: usize, outcome: Outcome) {
        match outcome {
            Outcome::Accepted(Accepted { job, asked, answered }) => {
                let job = self.tally.jobs.entry(job).or_default();
                (job.payer, job.asked, job.accepted) = (payer, Some(asked), Some(answered));
            }
            Outcome::Refused => self.tally.refused += 1,
            Outcome::Unanswered(status) => {
                *self.tally.unanswered.entry(status).or_default() += 1;
            }
        }
    }

    /// Whether some of the jobs are pictures.
    pub(crate) fn paints(&self) -> bool {
        self.shared.paints
    }

    /// The books, added up beside the running coordinator.
    pub(crate) async fn books(&self) -> anyhow::Result<LedgerCheck> {
        books::ledger_check(&self.process.database()?).await.context("add the books up")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for miner in &self.miners {
            miner.abort();
        }
    }
}
