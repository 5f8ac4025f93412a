//! More answers of the network's own to one request: what another engine's answer is looked at among. Nobody
//! can repeat the words that such an engine draws, so one known answer beside its own says next to nothing.

use std::sync::Arc;

use neurino_core::audit::rank::TextRank;
use neurino_core::{IdempotencyKey, JobId, JobOutput, JobSpec};
use neurino_ledger::PayerId;
use rand::Rng as _;
use uuid::Uuid;

use super::{Samples, key_for, read_key};
use crate::audits::{AUDIT_PAYER, GREEDY_BELOW};
use crate::coordinator::Coordinator;
use crate::error::StoreError;
use crate::router::{Placement, is_other_engine};
use crate::store::StoredAudit;

/// What the part of a key begins with that names one of them.
pub(super) const KEY: &str = "sample:";

fn key_of(pot: Uuid, n: u32) -> IdempotencyKey {
    key_for(pot, &format!("{KEY}{n}"))
}

impl Samples {
    /// Of a request that was answered once.
    pub(super) fn of(spec: &JobSpec) -> Self {
        match spec {
            JobSpec::Text(job) if job.sampling.temperature >= GREEDY_BELOW => Self::None,
            JobSpec::Text(_) | JobSpec::Image(_) => Self::NotNeeded,
        }
    }

    pub(super) fn push(&mut self, job: JobId) {
        match self {
            Self::Asked(jobs) => jobs.push(job),
            Self::None | Self::NotNeeded => *self = Self::Asked(vec![job]),
        }
    }

    pub(super) fn jobs(&self) -> impl Iterator<Item = &JobId> {
        match self {
            Self::Asked(jobs) => jobs.iter(),
            Self::None | Self::NotNeeded => [].iter(),
        }
    }
}

/// The characters of a text. Engines differ in whether it begins with the space of its first word.
fn symbols(output: &JobOutput) -> Option<Vec<u32>> {
    let JobOutput::Text(text) = output else { return None };
    Some(text.choices.first()?.text.trim().chars().map(u32::from).collect())
}

impl Coordinator {
    /// Has a request answered again until there are so many answers, each with a seed of its own. What is not
    /// accepted is left out.
    pub(super) async fn ask_for_samples(
        self: &Arc<Self>,
        pot: Uuid,
        spec: JobSpec,
        texts: u32,
        placement: &Placement,
    ) -> Samples {
        let mut samples = Samples::of(&spec);
        let JobSpec::Text(job) = spec else { return samples };
        if samples != Samples::None {
            return samples;
        }
        for n in 1..texts {
            let mut again = job.clone();
            again.sampling.seed = self.state().rng.random();
            // A large number among small ones tells nobody anything here: these are jobs of the audits.
            let asked = self.ask_as_audit(key_of(pot, n), JobSpec::Text(again), placement.clone());
            if let Some(job) = asked.await {
                samples.push(job);
            }
        }
        samples
    }

    /// Where the audited text of another engine stands among the answers of the network's own, of which one is
    /// the job that its audit names; none if there are too few, or it is of no such engine.
    pub(crate) async fn rank_of_text(
        &self,
        audit: &StoredAudit,
        known: JobId,
    ) -> Result<Option<TextRank>, StoreError> {
        if !is_other_engine(&audit.class) {
            return Ok(None);
        }
        let payer = PayerId::new(AUDIT_PAYER).expect("a valid name");
        let Some(key) = self.store.key_of_job(&payer, known).await? else { return Ok(None) };
        let Some((pot, _)) = read_key(&key) else { return Ok(None) };
        let mut jobs = vec![known];
        for n in 1..self.audits.rules.rank.texts {
            jobs.extend(self.store.job_of_key(&payer, &key_of(pot, n)).await?.map(|(job, _)| job));
        }
        let mut others = Vec::with_capacity(jobs.len());
        for job in jobs {
            others.extend(self.output_of(job).await?.as_ref().and_then(symbols));
        }
        let text = self.output_of(audit.job).await?;
        let text = text.as_ref().and_then(symbols);
        Ok(text.and_then(|text| TextRank::of(&text, &others)))
    }
}
