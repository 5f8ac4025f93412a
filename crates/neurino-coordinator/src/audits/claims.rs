//! Second and third runs that write nothing: an auditor scores the tokens of the audited text, which takes
//! it about as long as reading a prompt.
//!
//! Whoever is given the answer could call it good without a look. So an auditor that is not taken at its
//! word gets several seeds and is not told which is the right one: it has to find that out, and only the
//! model tells. Where it cannot, because every seed writes the same, its word does not count.

use std::sync::Arc;

use hmac::{Hmac, Mac};
use neurino_core::audit::margins::{MarginRules, Margins};
use neurino_core::{JobId, JobOutput, JobSpec, NodeId, SeedScore, TextJob};
use neurino_ledger::epoch::epoch_of;
use sha2::Sha256;

use super::{Coordinator, Kin, Step, is_other_engine};
use crate::compare::{self, Finding};
use crate::error::StoreError;
use crate::router::{Placement, owner_of};
use crate::store::{AuditState, AuditWrite, StoredAudit};

/// Below this a text is greedy and has no seed.
pub(crate) const GREEDY_BELOW: f32 = 1e-5;

impl Coordinator {
    /// The second run of an audit as a job that scores: its text was drawn, so that a seed can be told from
    /// others, and somebody who can score serves its model. None otherwise.
    pub(super) async fn blind_claim(
        &self,
        audit: &StoredAudit,
        spec: &JobSpec,
        placement: &Placement,
    ) -> Result<Option<(JobSpec, Placement)>, StoreError> {
        let JobSpec::Text(job) = spec else { return Ok(None) };
        let scorer = Placement { scores: true, ..placement.clone() };
        let drawn = job.sampling.temperature >= GREEDY_BELOW;
        if !drawn || !self.state().router.serves_placed(spec.model(), &scorer) {
            return Ok(None);
        }
        let week = self.audits.key_of(epoch_of(audit.drawn_at_ms));
        let rules = &self.audits.rules.margins;
        let seeds = seeds(&week, audit.job, job.sampling.seed, rules.decoys as usize);
        let claim = self.claim_of(audit.job, job, seeds).await?;
        Ok(claim.map(|claim| (claim, scorer)))
    }

    /// The third run of an audit as a job that scores, for those whose word counts; none if none of them
    /// can score it.
    pub(super) async fn open_claim(
        &self,
        audit: &StoredAudit,
        spec: &JobSpec,
        validators: Vec<NodeId>,
    ) -> Result<Option<(JobSpec, Placement)>, StoreError> {
        let JobSpec::Text(job) = spec else { return Ok(None) };
        let own_word = validators.contains(&audit.node);
        let owner = (!own_word).then(|| owner_of(&audit.node).to_owned());
        let scorer = Placement {
            not_owners: owner.into_iter().collect(),
            only: Some(validators),
            own_engine: true,
            scores: true,
            ..Placement::default()
        };
        if is_other_engine(&audit.class)
            || !self.state().router.serves_placed(spec.model(), &scorer)
        {
            return Ok(None);
        }
        let claim = self.claim_of(audit.job, job, vec![job.sampling.seed]).await?;
        Ok(claim.map(|claim| (claim, scorer)))
    }

    /// A job that scores what was answered to another one; none if that does not name its tokens.
    async fn claim_of(
        &self,
        id: JobId,
        job: &TextJob,
        seeds: Vec<u64>,
    ) -> Result<Option<JobSpec>, StoreError> {
        let Some(JobOutput::Text(text)) = self.output_of(id).await? else { return Ok(None) };
        Ok(compare::claimed(job, &text, seeds, self.audits.rules.margins.clip_ppm))
    }

    /// What the scores of a job say of the audited text; none if one of them is not there any more, or the job
    /// is none that scores.
    pub(super) async fn scored(
        &self,
        audit: &StoredAudit,
        scorer: JobId,
    ) -> Result<Option<Finding>, StoreError> {
        let Some(JobSpec::Text(TextJob { claim: Some(claim), .. })) =
            self.store.spec(scorer).await?
        else {
            return Ok(None);
        };
        let asked = self.store.spec(audit.job).await?;
        let (text, scores) = (self.output_of(audit.job).await?, self.output_of(scorer).await?);
        let (Some(JobSpec::Text(job)), Some(JobOutput::Text(text)), Some(JobOutput::Text(scores))) =
            (asked, text, scores)
        else {
            return Ok(None);
        };
        let rules = &self.audits.rules.margins;
        Ok(Some(compare::scored(&text, &scores, &claim, job.sampling.seed, rules)))
    }

    /// Whether a job of an audit only scores.
    pub(super) async fn scores(&self, id: JobId) -> Result<bool, StoreError> {
        let spec = self.store.spec(id).await?;
        Ok(matches!(spec, Some(JobSpec::Text(job)) if job.claim.is_some()))
    }

    /// What a second run that said nothing is followed by: a validator's scores if one can give them, else,
    /// if it was scores itself, a second run that writes. None if that is the end.
    pub(super) async fn after_nothing(
        self: &Arc<Self>,
        audit: &StoredAudit,
        before: JobId,
        auditor: &NodeId,
        finding: &Finding,
    ) -> Result<Option<Step>, StoreError> {
        let Some(spec) = self.store.spec(audit.job).await? else { return Ok(None) };
        if self.open_claim(audit, &spec, self.audits.validators()).await?.is_some() {
            let (job, auditor, finding) = (audit.job, auditor.clone(), finding.clone());
            let at_ms = super::now_ms();
            return Ok(Some(Step::Write(AuditWrite::Disputed { job, auditor, finding, at_ms })));
        }
        if !self.scores(before).await? {
            return Ok(None);
        }
        let second = match self.second_placement(audit, &spec) {
            Some((placement, same_class)) => {
                let second = self.ask_again(audit, super::again(spec), "2w", placement).await;
                second.map(|second| (second, same_class))
            }
            None => None,
        };
        let Some((second, same_class)) = second else {
            // Nobody is left who could say more.
            let over = self.is_overdue(audit.changed_at_ms);
            return Ok((!over).then_some(Step::Wait));
        };
        let at_ms = super::now_ms();
        let write = AuditWrite::Again { job: audit.job, before, second, same_class, at_ms };
        Ok(Some(Step::Write(write)))
    }

    /// Whether the scores of a second and a third run say opposite things of the audited text, so that whoever
    /// gave the second accused it wrongly.
    pub(super) async fn accused_wrongly(
        &self,
        audit: &StoredAudit,
        second: JobId,
        third: &Finding,
    ) -> Result<bool, StoreError> {
        let held = matches!(third, Finding::Same | Finding::Close { .. });
        let said = self.scored(audit, second).await?;
        Ok(held && matches!(said, Some(Finding::Differs { .. })))
    }

    /// The end of an audit that nobody could decide.
    pub(super) fn undecided(&self, audit: &StoredAudit) -> AuditWrite {
        let unclear = matches!(audit.finding, Some(Finding::Unclear { .. }));
        let outcome = neurino_core::audit::Outcome::Unclear;
        let ruling = super::Ruling::new(audit.node.clone(), outcome);
        let rulings = if unclear { vec![ruling] } else { vec![] };
        self.decided(audit, AuditState::Unresolved, None, rulings)
    }

    /// How a text of a third run is compared with that of the second, if both wrote one.
    pub(super) async fn of_auditors(
        &self,
        audit: &StoredAudit,
        second: JobId,
        third: JobId,
    ) -> Result<Option<Finding>, StoreError> {
        self.compared(second, third, Kin::of_auditors(audit)).await
    }
}

/// The scores that say nothing because the text is short; none of any other finding.
pub(super) fn pooled(finding: &Finding, rules: &MarginRules) -> Option<Margins> {
    let Finding::Unclear { figures } = finding else { return None };
    let (tokens, exact, mean) = (figures.tokens?, figures.exact?, figures.margin?);
    let tokens = u32::try_from(tokens).ok().filter(|tokens| *tokens < rules.tokens_min)?;
    let of = |share: f64| share * f64::from(tokens);
    let exact = of(exact).round() as u32;
    let margin_ppm = (of(mean) * 1e6).round() as u64;
    Some(Margins { tokens, score: SeedScore { exact, margin_ppm } })
}

/// The right seed among others, where the key of its week puts it. The others look as it does: a small number
/// among large ones would tell itself.
fn seeds(week: &[u8; 32], job: JobId, right: u64, decoys: usize) -> Vec<u64> {
    let number = |what: &[u8], n: u64| {
        let mut mac = Hmac::<Sha256>::new_from_slice(week).expect("a key of any length fits");
        mac.update(what);
        mac.update(job.0.as_bytes());
        mac.update(&n.to_be_bytes());
        let bytes = mac.finalize().into_bytes();
        u64::from_be_bytes(bytes[..8].try_into().expect("eight of thirty-two bytes"))
    };
    let bits = (64 - right.leading_zeros()).max(16);
    let others = (0..).map(|n| number(b"decoy", n) >> (64 - bits)).filter(|seed| *seed != right);
    let mut seeds = Vec::with_capacity(decoys + 1);
    for seed in others {
        if seeds.len() == decoys {
            break;
        }
        if !seeds.contains(&seed) {
            seeds.push(seed);
        }
    }
    let at = number(b"place", 0) % (decoys as u64 + 1);
    seeds.insert(usize::try_from(at).expect("one of few"), right);
    seeds
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::collections::BTreeSet;

    use neurino_core::audit::AuditRules;
    use uuid::Uuid;

    use super::*;
    use crate::compare::Figures;

    #[test]
    fn only_a_short_text_that_was_scored_goes_into_the_pool() {
        let rules = AuditRules::built_in().margins;
        let scored = |tokens| {
            let (exact, margin) = (Some(0.75), Some(0.0125));
            let figures = Figures { tokens: Some(tokens), exact, margin, ..Figures::default() };
            pooled(&Finding::Unclear { figures }, &rules)
        };
        let score = SeedScore { exact: 15, margin_ppm: 250_000 };
        assert_eq!(scored(20), Some(Margins { tokens: 20, score }));
        assert_eq!(scored(rules.tokens_min as usize), None);
        let figures = Figures { tokens: Some(3), ..Figures::default() };
        assert_eq!(pooled(&Finding::Unclear { figures }, &rules), None, "not scored");
        assert_eq!(pooled(&Finding::Close { figures }, &rules), None);
    }

    #[test]
    fn the_right_seed_is_among_others_that_look_like_it_and_nobody_knows_where() {
        let mut places = BTreeSet::new();
        for n in 0..64 {
            let job = JobId(Uuid::from_u128(n));
            for right in [0, 42, 70_000, u64::MAX / 3] {
                let all = seeds(&[7; 32], job, right, 3);
                assert_eq!(all, seeds(&[7; 32], job, right, 3), "after a restart, too");
                assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 4);
                let place = all.iter().position(|seed| *seed == right).unwrap();
                places.insert(place);
                let bits = (64 - right.leading_zeros()).max(16);
                assert!(all.iter().all(|seed| u64::BITS - seed.leading_zeros() <= bits));
            }
        }
        assert_eq!(places.len(), 4);
    }
}
