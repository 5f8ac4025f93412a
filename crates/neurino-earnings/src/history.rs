//! How jobs ended on this machine: one JSON line each, the last fifty thousand.
//!
//! The history is for people who ask "what happened to my jobs"; receipts are what counts. So a line
//! is not synced, and a damaged one is left out.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use neurino_protocol::earnings::{JobFilter, JobOutcome, JobPage, JobRecord, OutcomeCount};

use crate::append::Appended;
use crate::error::{RecordError, open_private, replace};

/// Jobs that are kept.
const KEPT: usize = 50_000;

/// The outcomes, in the order they are told.
pub const OUTCOMES: [JobOutcome; 6] = [
    JobOutcome::Paid,
    JobOutcome::Late,
    JobOutcome::Failed,
    JobOutcome::HandedBack,
    JobOutcome::Withdrawn,
    JobOutcome::Refused,
];

/// The job history of one identity on one network.
#[derive(Debug)]
pub struct JobHistory {
    path: PathBuf,
    file: Appended,
    jobs: VecDeque<JobRecord>,
    /// Jobs that were dropped from the front since the start: what positions count from.
    dropped: u32,
}

impl JobHistory {
    /// Opens the history, making it where it is missing.
    ///
    /// # Errors
    /// [`RecordError::Io`].
    pub fn open(path: &Path) -> Result<Self, RecordError> {
        let mut file = open_private(path)?;
        let mut jobs = VecDeque::new();
        let mut lines = 0_usize;
        let failed = || RecordError::io("read", path);
        for line in BufReader::new(file.try_clone().map_err(failed())?).split(b'\n') {
            lines += 1;
            if let Ok(job) = serde_json::from_slice(&line.map_err(failed())?) {
                jobs.push_back(job);
            }
            if jobs.len() > KEPT {
                jobs.pop_front();
            }
        }
        if lines > KEPT + KEPT / 5 {
            let bytes: Vec<u8> = jobs.iter().flat_map(line).collect();
            replace(path, &bytes)?;
            file = open_private(path)?;
        }
        let end = file.seek(SeekFrom::End(0)).map_err(failed())?;
        if end > 0 {
            // A line that a crash cut short is ended, so that it costs only itself.
            let mut last = [0];
            let read = file.seek(SeekFrom::End(-1));
            read.and_then(|_| std::io::Read::read_exact(&mut file, &mut last)).map_err(failed())?;
            if last != *b"\n" {
                file.write_all(b"\n").map_err(failed())?;
            }
        }
        let file = Appended::new(file).map_err(failed())?;
        Ok(Self { path: path.to_owned(), file, jobs, dropped: 0 })
    }

    /// Adds a job that ended.
    ///
    /// # Errors
    /// [`RecordError::Io`]; memory has it all the same.
    pub fn append(&mut self, job: JobRecord) -> Result<(), RecordError> {
        let written = self.file.append(&line(&job));
        self.jobs.push_back(job);
        if self.jobs.len() > KEPT {
            self.jobs.pop_front();
            self.dropped = self.dropped.saturating_add(1);
        }
        written.map_err(RecordError::io("write", &self.path))
    }

    /// A page of the jobs that match, newest first. `before` is the `next` of the page before.
    pub fn page(&self, filter: &JobFilter, before: Option<u32>, limit: usize) -> JobPage {
        let text = filter.text.trim().to_lowercase();
        let limit = limit.max(1);
        let mut page = JobPage::default();
        let mut counts: BTreeMap<usize, u32> = BTreeMap::new();
        let upto = before
            .map_or(self.jobs.len(), |n| n.saturating_sub(self.dropped) as usize)
            .min(self.jobs.len());
        let mut last = None;
        for (position, job) in self.jobs.iter().enumerate().rev() {
            let rank = OUTCOMES.iter().position(|o| *o == job.outcome).unwrap_or(0);
            *counts.entry(rank).or_default() += 1;
            if !matches(job, filter, &text) {
                continue;
            }
            page.matching += 1;
            if position < upto && page.jobs.len() < limit {
                page.jobs.push(job.clone());
                last = Some(position);
            } else if position < upto && page.next.is_none() {
                page.next = last.map(|n| u32::try_from(n).unwrap_or(u32::MAX) + self.dropped);
            }
        }
        page.outcomes = counts
            .into_iter()
            .map(|(rank, jobs)| OutcomeCount { outcome: OUTCOMES[rank], jobs })
            .collect();
        page
    }

    /// All jobs that ended at or after a time, oldest first.
    pub fn since(&self, since_ms: i64) -> impl Iterator<Item = &JobRecord> {
        self.jobs.iter().filter(move |job| job.ended_ms >= since_ms)
    }

    /// Results the network refused since a time: work without pay.
    pub fn refused_since(&self, since_ms: i64) -> u32 {
        let refused = self.since(since_ms).filter(|job| job.outcome == JobOutcome::Refused);
        u32::try_from(refused.count()).unwrap_or(u32::MAX)
    }
}

fn line(job: &JobRecord) -> Vec<u8> {
    let mut line = serde_json::to_vec(job).expect("strings and integers always serialise");
    line.push(b'\n');
    line
}

fn matches(job: &JobRecord, filter: &JobFilter, text: &str) -> bool {
    filter.outcome.is_none_or(|outcome| job.outcome == outcome)
        && filter.since_ms.is_none_or(|since| job.ended_ms >= since)
        && (text.is_empty()
            || job.model.as_str().to_lowercase().contains(text)
            || job.reason.as_ref().is_some_and(|why| why.to_lowercase().contains(text))
            || job.job.to_string().contains(text))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use neurino_core::{JobId, JobKind, LeaseId, MicroPoints, ModelId};
    use uuid::Uuid;

    use super::*;

    fn job(n: u128, outcome: JobOutcome) -> JobRecord {
        JobRecord {
            job: JobId(Uuid::from_u128(n)),
            lease: LeaseId(Uuid::from_u128(n)),
            kind: JobKind::Text,
            model: ModelId::new(if n.is_multiple_of(2) { "even" } else { "odd" }).unwrap(),
            ended_ms: n as i64,
            outcome,
            reason: (outcome != JobOutcome::Paid).then(|| format!("Reason {n}")),
            times: None,
            points: MicroPoints(0),
        }
    }

    #[test]
    fn pages_survive_restarts_cuts_and_damage() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("jobs.jsonl");
        let mut history = JobHistory::open(&path).unwrap();
        for n in 0..20 {
            let outcome = if n % 4 == 3 { JobOutcome::HandedBack } else { JobOutcome::Paid };
            history.append(job(n, outcome)).unwrap();
        }
        drop(history);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.truncate(bytes.len() - 9);
        std::fs::write(&path, bytes).unwrap();
        let mut history = JobHistory::open(&path).unwrap();
        history.append(job(30, JobOutcome::Refused)).unwrap();
        drop(history);
        let history = JobHistory::open(&path).unwrap();
        let all = history.page(&JobFilter::default(), None, 99);
        assert_eq!((all.matching, all.jobs.len(), all.next), (20, 20, None));
        assert_eq!(all.jobs[0].ended_ms, 30);
        assert_eq!(all.outcomes.len(), 3);
        assert_eq!(history.refused_since(10), 1);

        let odd = JobFilter { text: "ODD".into(), ..JobFilter::default() };
        let (mut seen, mut before) = (Vec::new(), None);
        loop {
            let page = history.page(&odd, before, 4);
            seen.extend(page.jobs.iter().map(|j| j.ended_ms));
            before = page.next;
            if before.is_none() {
                break;
            }
        }
        assert_eq!(seen, (0..19).rev().filter(|n| n % 2 == 1).collect::<Vec<_>>());
        let why = JobFilter { text: "reason 7".into(), ..JobFilter::default() };
        assert_eq!(history.page(&why, None, 9).jobs[0].outcome, JobOutcome::HandedBack);
    }

    #[test]
    fn a_line_that_a_full_drive_cut_off_does_not_swallow_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("jobs.jsonl");
        let mut history = JobHistory::open(&path).unwrap();
        history.append(job(1, JobOutcome::Paid)).unwrap();
        history.file.tear(b"{\"half\": ");
        history.append(job(2, JobOutcome::Late)).unwrap();
        drop(history);
        let again = JobHistory::open(&path).unwrap();
        assert_eq!(again.since(0).count(), 2);
    }

    #[test]
    fn only_the_last_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("jobs.jsonl");
        let many = KEPT as u128 + KEPT as u128 / 5 + 10;
        let bytes: Vec<u8> = (0..many).flat_map(|n| line(&job(n, JobOutcome::Paid))).collect();
        std::fs::write(&path, bytes).unwrap();
        let mut history = JobHistory::open(&path).unwrap();
        assert_eq!(history.page(&JobFilter::default(), None, 1).matching as usize, KEPT);
        let next = history.page(&JobFilter::default(), None, 2).next;
        history.append(job(many, JobOutcome::Paid)).unwrap();
        let page = history.page(&JobFilter::default(), next, 1);
        assert_eq!(page.jobs[0].ended_ms, many as i64 - 3, "a page stays where it was");
        drop(history);
        let kept = std::fs::read_to_string(&path).unwrap().lines().count();
        assert_eq!(kept, KEPT + 1);
    }
}
