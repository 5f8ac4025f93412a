//! What `neurino practice` answers: each job's receipt, and the books beside them.

use std::path::PathBuf;

use neurino_coordinator::{Account, LedgerCheck};
use neurino_core::{JobId, JobOutput, MicroPoints, NodeId, PointsKind, Receipt};
use neurino_protocol::ErrorBody;
use serde::Serialize;

use crate::output::{self, points_name};

/// One job, as reported.
#[derive(Debug, Serialize)]
pub(super) struct JobReport {
    pub(super) job: JobId,
    pub(super) state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) output: Option<JobOutput>,
    /// Where the picture was saved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) saved: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) receipt: Option<Receipt>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<ErrorBody>,
}

/// The books after the jobs.
#[derive(Debug, Serialize)]
pub(super) struct LedgerReport {
    /// Balance of this machine's node accounts, both kinds of points added up.
    balance_micro: MicroPoints,
    /// The part in Llama points.
    llama_micro: MicroPoints,
    /// The part in Waifu points.
    waifu_micro: MicroPoints,
    /// Sum over all receipts of this node.
    receipts_sum_micro: MicroPoints,
    /// Sum over all postings of all accounts.
    postings_sum_micro: MicroPoints,
    /// Whether everything that must hold does.
    holds: bool,
}

/// What the command answers.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) network: String,
    pub(super) node: String,
    pub(super) jobs: Vec<JobReport>,
    pub(super) ledger: LedgerReport,
}

impl JobReport {
    /// A job of which nothing was heard yet.
    pub(super) fn open(job: JobId) -> Self {
        Self { job, state: "failed", output: None, saved: None, receipt: None, error: None }
    }
}

impl LedgerReport {
    /// The books, as they concern one node.
    pub(super) fn of(check: &LedgerCheck, node: &NodeId) -> Self {
        let mine = || {
            let mine = |account: &Account| matches!(account, Account::Node(n) if n == node);
            check.balances.iter().filter(move |b| mine(&b.account))
        };
        let of = |points: PointsKind| {
            mine().filter(|b| b.points.points() == Some(points)).map(|b| b.balance_micro).sum()
        };
        let (llama_micro, waifu_micro) = (of(PointsKind::Llama), of(PointsKind::Waifu));
        let balance_micro = mine().map(|b| b.balance_micro).sum();
        let receipts_sum_micro = mine().map(|b| b.receipts_micro).sum();
        Self {
            balance_micro,
            llama_micro,
            waifu_micro,
            receipts_sum_micro,
            postings_sum_micro: check.sums_micro.values().copied().sum(),
            holds: check.holds() && balance_micro == receipts_sum_micro,
        }
    }
}

impl Report {
    /// Whether every job was paid and the books hold.
    pub(super) fn holds(&self) -> bool {
        self.jobs.iter().all(|j| j.state == "succeeded") && self.ledger.holds
    }

    /// For people.
    pub(super) fn print(&self) {
        output::line("");
        output::line("Receipts: tokens / 1000 x model factor x multiplier = Llama points");
        output::line("          pixels x steps / (512 x 512 x 20) x the same = Waifu points");
        for (n, job) in self.jobs.iter().enumerate() {
            let what = match (&job.receipt, &job.error) {
                (Some(r), _) => {
                    let per_point = match r.quote.points {
                        PointsKind::Llama => "1000",
                        PointsKind::Waifu => "5242880",
                    };
                    format!(
                        "{:>6} / {per_point} x {} x {} = {} {}",
                        r.quote.units,
                        r.quote.factor,
                        r.quote.multiplier,
                        r.quote.amount_micro,
                        points_name(r.quote.points)
                    )
                }
                (None, Some(error)) => format!("not paid: {error}"),
                (None, None) => "not paid".to_owned(),
            };
            output::line(format!("  job {:<3} {what}", n + 1));
        }
        output::line("");
        let LedgerReport { receipts_sum_micro, postings_sum_micro, holds, .. } = &self.ledger;
        output::line(format!(
            "Balance  {} Llama points and {} Waifu points, all practice jobs together",
            self.ledger.llama_micro, self.ledger.waifu_micro
        ));
        output::line(if *holds {
            format!(
                "Books    they balance: receipts add up to {receipts_sum_micro}, all postings to \
                 {postings_sum_micro}"
            )
        } else {
            format!(
                "Books    THEY DO NOT BALANCE: receipts add up to {receipts_sum_micro}, all \
                 postings to {postings_sum_micro}"
            )
        });
        output::line("Practice points show how the network works; they have no value.");
    }
}
