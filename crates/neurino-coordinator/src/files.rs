//! Whether nodes have the files of the models that they offer.
//!
//! Of models whose files whoever runs the network measured (`neurino coordinator files`), the roots of their
//! Merkle trees stand in the books. A node that says it understands is asked now and then for twenty
//! leaves of one file, drawn afresh; an answer is checked here in a millisecond. A wrong answer, or none,
//! takes the model from what the node is given until it has shown it; twice in a row, and all results of
//! its owner are computed again. Nobody is convicted by it: a drive that fails looks the same, and it shows
//! that the file is there, not that it is used.
//!
//! What nodes showed is kept in memory: after a restart all of them are asked again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use neurino_core::file_tree::{TreeHash, is_leaf_of, leaves_of};
use neurino_core::{ModelId, NodeId};
use neurino_protocol::node::CoordinatorMessage;
use neurino_protocol::node::files::{FileChallenge, FileProof, LEAVES_MAX};
use rand::Rng;
use rand::seq::index;
use serde::Serialize;

use crate::config::Limits;
use crate::coordinator::{Coordinator, now_ms};
use crate::error::StoreError;
use crate::jobs::short;
use crate::router::owner_of;
use crate::store::Store;

/// Nodes that are asked at the same time: each answers with half a megabyte.
const OPEN_MAX: usize = 8;
/// Sessions in a row that ended while an answer was due, until that counts as none.
const EVADED_MAX: u32 = 3;
/// Wrong or missing answers in a row from which on all results of an owner are computed again.
const MARKED_FROM: u32 = 2;
/// Nodes and models that are remembered, and for how long, in milliseconds.
const KNOWN_MAX: usize = 65_536;
const KNOWN_MS: i64 = 48 * 3_600_000;
/// Slowest reading of a file that an answer may need once, in bytes per millisecond.
const READING: u64 = 20_000;

/// A file whose leaves can be checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileRoot {
    /// The model.
    pub model: ModelId,
    /// The file's name in the catalogue.
    pub file: String,
    /// Its length in bytes.
    pub size_bytes: u64,
    /// Its SHA-256, as the catalogue has it.
    pub sha256: String,
    /// The root of its tree, see [`neurino_core::file_tree`].
    pub root: TreeHash,
}

/// What a node showed of a model, for its owner to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FilesReport {
    /// The model.
    pub model: ModelId,
    /// When it last showed a file of it, in milliseconds since the Unix epoch.
    pub shown_at_ms: Option<i64>,
    /// Wrong or missing answers since then.
    pub failures: u32,
    /// Whether it gets no jobs for it until it shows them.
    pub withheld: bool,
}

/// What is known of a node and a model.
#[derive(Debug, Clone, Default)]
struct Shown {
    at_ms: Option<i64>,
    /// When it was last asked; none if it is to be asked at once.
    asked_ms: Option<i64>,
    seen_ms: i64,
    failures: u32,
    evaded: u32,
    withheld: bool,
}

/// A question without an answer yet.
#[derive(Debug)]
struct Open {
    session: u64,
    challenge: FileChallenge,
    root: TreeHash,
    until_ms: i64,
}

#[derive(Debug, Default)]
struct Book {
    shown: BTreeMap<(NodeId, ModelId), Shown>,
    open: BTreeMap<NodeId, Open>,
}

/// The roots, and who showed what.
#[derive(Debug, Default)]
pub(crate) struct Files {
    roots: RwLock<Arc<BTreeMap<ModelId, Vec<FileRoot>>>>,
    book: Mutex<Book>,
}

/// What an answer, or none, comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// All leaves are the file's.
    Shown,
    /// They are not, or not those that were asked for.
    Wrong,
    /// The node says that it cannot.
    Refused,
    /// Nothing came.
    Missing,
}

impl Verdict {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Shown => "shown",
            Self::Wrong => "wrong",
            Self::Refused => "refused",
            Self::Missing => "missing",
        }
    }
}

/// Draws which leaves of one of a model's files are to be shown; a file by its length.
fn draw(
    files: &[FileRoot],
    limits: &Limits,
    rng: &mut impl Rng,
) -> Option<(FileChallenge, TreeHash)> {
    let total: u64 = files.iter().map(|file| leaves_of(file.size_bytes)).sum();
    if total == 0 {
        return None;
    }
    let mut at = rng.random_range(0..total);
    let file = files.iter().find(|file| {
        let leaves = leaves_of(file.size_bytes);
        let here = at < leaves;
        at = at.saturating_sub(leaves);
        here
    })?;
    let count = usize::try_from(leaves_of(file.size_bytes)).ok()?;
    let drawn = index::sample(rng, count, LEAVES_MAX.min(count));
    let challenge = FileChallenge {
        nonce: hex::encode(rng.random::<[u8; 16]>()),
        model: file.model.clone(),
        file: file.file.clone(),
        size_bytes: file.size_bytes,
        leaves: drawn.into_iter().map(|leaf| leaf as u64).collect(),
        within_ms: limits.files_within_ms.saturating_add(file.size_bytes / READING),
    };
    Some((challenge, file.root))
}

/// Checks an answer: just the leaves that were asked for, in their order, and all of them the file's.
fn check(challenge: &FileChallenge, root: TreeHash, proof: &FileProof) -> Verdict {
    if proof.refused.is_some() {
        return Verdict::Refused;
    }
    let asked = challenge.leaves.iter();
    let same = proof.leaves.len() == challenge.leaves.len()
        && proof.leaves.iter().zip(asked).all(|(leaf, index)| leaf.index == *index);
    let all = || proof.leaves.iter().all(|leaf| is_leaf_of(root, challenge.size_bytes, leaf));
    if same && all() { Verdict::Shown } else { Verdict::Wrong }
}

impl Book {
    /// Notes what an answer came to; whether it changes what the node is given.
    fn judge(&mut self, node: &NodeId, model: &ModelId, verdict: Verdict, now_ms: i64) -> bool {
        let shown = self.shown.entry((node.clone(), model.clone())).or_default();
        shown.seen_ms = now_ms;
        let before = shown.withheld;
        if verdict == Verdict::Shown {
            *shown = Shown {
                at_ms: Some(now_ms),
                asked_ms: shown.asked_ms,
                seen_ms: now_ms,
                ..Shown::default()
            };
        } else {
            shown.failures = shown.failures.saturating_add(1);
            (shown.withheld, shown.evaded) = (true, 0);
        }
        shown.withheld != before
    }

    /// Whether a node is to be asked for a model now, and how long that has been so, in milliseconds.
    fn due_since(
        &self,
        node: &NodeId,
        model: &ModelId,
        limits: &Limits,
        now_ms: i64,
    ) -> Option<i64> {
        let Some(shown) = self.shown.get(&(node.clone(), model.clone())) else { return Some(0) };
        let Some(asked_ms) = shown.asked_ms else { return Some(0) };
        let pause = if shown.withheld { limits.files_retry_ms } else { limits.files_every_ms };
        let over = now_ms.saturating_sub(asked_ms.saturating_add_unsigned(pause));
        (over >= 0).then_some(over)
    }
}

impl Files {
    pub(crate) async fn read(store: &Store) -> Result<Self, StoreError> {
        let files = Self::default();
        files.set_roots(store.file_roots().await?);
        Ok(files)
    }

    pub(crate) fn set_roots(&self, all: Vec<FileRoot>) {
        let mut roots = BTreeMap::<ModelId, Vec<FileRoot>>::new();
        for root in all {
            roots.entry(root.model.clone()).or_default().push(root);
        }
        *self.roots.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(roots);
    }

    fn roots(&self) -> Arc<BTreeMap<ModelId, Vec<FileRoot>>> {
        Arc::clone(&self.roots.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why all results of a node's owner are computed again, if they are.
    pub(crate) fn suspicion(&self, node: &NodeId) -> Option<&'static str> {
        let (owner, book) = (owner_of(node), self.book());
        let marked = book
            .shown
            .iter()
            .any(|((other, _), shown)| shown.failures >= MARKED_FROM && owner_of(other) == owner);
        marked.then_some("its owner could not show a model's files")
    }

    /// What a node showed, by model.
    pub(crate) fn report(&self, node: &NodeId) -> Vec<FilesReport> {
        let book = self.book();
        let own = book.shown.iter().filter(|((other, _), _)| other == node);
        let report = own.map(|((_, model), shown)| FilesReport {
            model: model.clone(),
            shown_at_ms: shown.at_ms,
            failures: shown.failures,
            withheld: shown.withheld,
        });
        report.collect()
    }
}

impl Coordinator {
    /// Asks nodes that are due, and gives up on answers that did not come.
    pub(crate) fn sweep_files(self: &Arc<Self>) {
        let (now, roots) = (now_ms(), self.files.roots());
        let missing: Vec<(NodeId, ModelId)> = {
            let mut book = self.files.book();
            let late = book.open.iter().filter(|(_, open)| now > open.until_ms);
            let late: Vec<_> =
                late.map(|(node, open)| (node.clone(), open.challenge.model.clone())).collect();
            for (node, _) in &late {
                book.open.remove(node);
            }
            late
        };
        for (node, model) in missing {
            self.judge_files(&node, &model, Verdict::Missing);
        }
        self.forget_files(now, &roots);
        if roots.is_empty() {
            return;
        }
        let mut guard = self.state();
        let state = &mut *guard;
        if state.stopping {
            return;
        }
        let mut book = self.files.book();
        let mut due: Vec<(i64, NodeId, ModelId)> = Vec::new();
        for (node, session) in &state.sessions {
            if !session.shows_files || book.open.contains_key(node) {
                continue;
            }
            let idle = state.busy(node) == 0;
            let patience = i64::try_from(self.config.limits.files_every_ms).unwrap_or(i64::MAX);
            for model in state.router.offered(node).filter(|model| roots.contains_key(*model)) {
                let over = book.due_since(node, model, &self.config.limits, now);
                // It reads from its drive while it answers; who always has jobs is asked beside them at last.
                if let Some(over) = over.filter(|over| idle || *over >= patience) {
                    due.push((over, node.clone(), model.clone()));
                }
            }
        }
        // Whoever is due longest goes first.
        due.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| (&a.1, &a.2).cmp(&(&b.1, &b.2))));
        for (_, node, model) in due {
            if book.open.len() >= OPEN_MAX {
                break;
            }
            if book.open.contains_key(&node) || book.shown.len() >= KNOWN_MAX {
                continue;
            }
            let files = roots.get(&model).map_or(&[][..], Vec::as_slice);
            let drawn = draw(files, &self.config.limits, &mut state.rng);
            let Some(((challenge, root), session)) = drawn.zip(state.sessions.get(&node)) else {
                continue;
            };
            let until_ms = now.saturating_add_unsigned(challenge.within_ms);
            let (session, asks) = (session.id, challenge.clone());
            book.open.insert(node.clone(), Open { session, challenge, root, until_ms });
            let shown = book.shown.entry((node.clone(), model)).or_default();
            (shown.asked_ms, shown.seen_ms) = (Some(now), now);
            state.send(&node, CoordinatorMessage::ShowFile(asks));
        }
    }

    /// An answer of a node.
    pub(crate) fn file_shown(self: &Arc<Self>, node: &NodeId, session: u64, proof: &FileProof) {
        let open = {
            let mut book = self.files.book();
            let asked =
                |open: &Open| open.session == session && open.challenge.nonce == proof.nonce;
            // An answer to something else, or for the second time, says nothing.
            if !book.open.get(node).is_some_and(asked) {
                return;
            }
            book.open.remove(node)
        };
        let Some(open) = open else { return };
        let verdict = if now_ms() > open.until_ms {
            Verdict::Missing
        } else {
            check(&open.challenge, open.root, proof)
        };
        self.judge_files(node, &open.challenge.model, verdict);
    }

    /// A session ended. Who goes each time an answer is due gives none.
    pub(crate) fn files_left(self: &Arc<Self>, node: &NodeId, session: u64) {
        let evaded = {
            let mut book = self.files.book();
            if book.open.get(node).is_none_or(|open| open.session != session) {
                return;
            }
            let Some(open) = book.open.remove(node) else { return };
            let model = open.challenge.model;
            let shown = book.shown.entry((node.clone(), model.clone())).or_default();
            shown.asked_ms = None;
            shown.evaded += 1;
            (shown.evaded >= EVADED_MAX).then_some(model)
        };
        if let Some(model) = evaded {
            self.judge_files(node, &model, Verdict::Missing);
        }
    }

    fn judge_files(self: &Arc<Self>, node: &NodeId, model: &ModelId, verdict: Verdict) {
        self.metrics.files(verdict);
        let changed = self.files.book().judge(node, model, verdict, now_ms());
        if verdict == Verdict::Shown {
            tracing::debug!(model.id = %model, "{} showed a file of {model}", short(node));
        } else {
            tracing::warn!(
                model.id = %model, verdict = verdict.as_str(),
                "{} could not show a file of {model}", short(node),
            );
        }
        if changed {
            self.state().router.withhold(node, model, verdict != Verdict::Shown);
            self.dispatch();
            self.state().tell_no_job(node);
        }
    }

    /// Forgets what was not asked about for long, and models whose roots are gone.
    fn forget_files(&self, now_ms: i64, roots: &BTreeMap<ModelId, Vec<FileRoot>>) {
        let mut free = BTreeSet::new();
        self.files.book().shown.retain(|(node, model), shown| {
            let stays = roots.contains_key(model) && now_ms - shown.seen_ms < KNOWN_MS;
            if !stays && shown.withheld {
                free.insert((node.clone(), model.clone()));
            }
            stays
        });
        for (node, model) in free {
            self.state().router.withhold(&node, &model, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use neurino_core::file_tree::{
        FileBytes, LEAF_BYTES, ShownLeaf, leaf_hashes, path_of, root_of,
    };
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn model() -> ModelId {
        ModelId::new("m").expect("valid")
    }

    fn node() -> NodeId {
        NodeId::new(format!("0x{}-rig1", "ab".repeat(20))).expect("valid")
    }

    /// A file of so many leaves; each has its number in it.
    fn file(leaves: usize) -> Vec<u8> {
        let mut file = vec![7; leaves * LEAF_BYTES - 100];
        for (n, leaf) in file.chunks_mut(LEAF_BYTES).enumerate() {
            leaf[..8].copy_from_slice(&(n as u64).to_le_bytes());
        }
        file
    }

    fn root(file: &[u8]) -> FileRoot {
        FileRoot {
            model: model(),
            file: "weights".into(),
            size_bytes: file.len() as u64,
            sha256: String::new(),
            root: root_of(&leaf_hashes(file)).expect("some"),
        }
    }

    fn answer(challenge: &FileChallenge, file: &[u8], tree: &[TreeHash]) -> FileProof {
        let leaves = challenge.leaves.iter().map(|index| {
            let at = usize::try_from(*index).expect("small");
            let bytes = file.chunks(LEAF_BYTES).nth(at).expect("there").to_vec();
            let path = path_of(tree, at).expect("there");
            ShownLeaf { index: *index, bytes: FileBytes(bytes), path }
        });
        FileProof { nonce: challenge.nonce.clone(), leaves: leaves.collect(), refused: None }
    }

    #[test]
    fn a_file_that_was_altered_by_a_tenth_is_caught_as_often_as_the_figures_say() {
        const TRIES: u32 = 1_000;
        let limits = Limits::default();
        let mut rng = StdRng::seed_from_u64(11);
        let good = file(400);
        let root = root(&good);
        // The best that a cheat can do: it kept the true tree, and a tenth of the leaves are its own.
        let tree = leaf_hashes(&good);
        let mut caught = 0;
        for _ in 0..TRIES {
            let bad: BTreeSet<u64> =
                index::sample(&mut rng, 400, 40).into_iter().map(|leaf| leaf as u64).collect();
            let roots = std::slice::from_ref(&root);
            let (challenge, known) = draw(roots, &limits, &mut rng).expect("drawn");
            let mut proof = answer(&challenge, &good, &tree);
            assert_eq!(check(&challenge, known, &proof), Verdict::Shown);
            for leaf in proof.leaves.iter_mut().filter(|leaf| bad.contains(&leaf.index)) {
                leaf.bytes.0[100] ^= 1;
            }
            caught += u32::from(check(&challenge, known, &proof) == Verdict::Wrong);
        }
        // 1 - 0.9^20 = 0.878 (0.883 without replacement, of 400); four standard errors are 0.04.
        let share = f64::from(caught) / f64::from(TRIES);
        assert!((0.842..0.924).contains(&share), "{share}");
    }

    #[test]
    fn who_has_half_of_it_or_answers_something_else_is_wrong() {
        let limits = Limits::default();
        let mut rng = StdRng::seed_from_u64(3);
        let good = file(100);
        let (root, tree) = (root(&good), leaf_hashes(&good));
        let roots = std::slice::from_ref(&root);
        let (challenge, known) = draw(roots, &limits, &mut rng).expect("drawn");
        assert_eq!(challenge.leaves.len(), LEAVES_MAX);
        let distinct: BTreeSet<_> = challenge.leaves.iter().collect();
        assert_eq!(distinct.len(), LEAVES_MAX, "no leaf twice");
        let wrong = |change: &dyn Fn(&mut FileProof)| {
            let mut proof = answer(&challenge, &good, &tree);
            change(&mut proof);
            check(&challenge, known, &proof)
        };
        assert_eq!(wrong(&|_| {}), Verdict::Shown);
        // The second half is zeroes: sparse, as an unfinished download is.
        let mut half = good.clone();
        half[50 * LEAF_BYTES..].fill(0);
        assert_eq!(check(&challenge, known, &answer(&challenge, &half, &tree)), Verdict::Wrong);
        assert_eq!(wrong(&|proof| drop(proof.leaves.pop())), Verdict::Wrong, "one too few");
        let more = |proof: &mut FileProof| proof.leaves.push(proof.leaves[0].clone());
        assert_eq!(wrong(&more), Verdict::Wrong, "one too many");
        assert_eq!(wrong(&|proof| proof.leaves.swap(0, 1)), Verdict::Wrong, "another order");
        let long = |proof: &mut FileProof| proof.leaves[0].bytes.0.resize(1 << 20, 0);
        assert_eq!(wrong(&long), Verdict::Wrong, "a leaf that is too long");
        let deep = |proof: &mut FileProof| proof.leaves[0].path.resize(10_000, known);
        assert_eq!(wrong(&deep), Verdict::Wrong, "a path that is too long");
        // The answer to another question.
        let (next, _) = draw(roots, &limits, &mut rng).expect("drawn");
        assert_ne!(next.leaves, challenge.leaves);
        assert_eq!(check(&next, known, &answer(&challenge, &good, &tree)), Verdict::Wrong);
        let refused = neurino_protocol::ErrorCode::ModelUnreadable;
        assert_eq!(wrong(&|proof| proof.refused = Some(refused)), Verdict::Refused);
    }

    #[test]
    fn small_files_are_asked_for_whole_and_large_ones_more_often() {
        let limits = Limits::default();
        let mut rng = StdRng::seed_from_u64(5);
        let (small, large) = (file(2), file(300));
        let all = [
            FileRoot { file: "small".into(), ..root(&small) },
            FileRoot { file: "large".into(), ..root(&large) },
        ];
        let mut of_small = 0;
        for _ in 0..2_000 {
            let (challenge, _) = draw(&all, &limits, &mut rng).expect("drawn");
            if challenge.file == "small" {
                of_small += 1;
                assert_eq!(challenge.leaves.len(), 2);
            }
        }
        assert!((1..60).contains(&of_small), "{of_small}");
        assert!(draw(&[], &limits, &mut rng).is_none());
    }

    #[test]
    fn one_failure_withholds_two_mark_the_owner_and_a_good_answer_ends_both() {
        let files = Files::default();
        let other = NodeId::new(format!("0x{}-rig2", "ab".repeat(20))).expect("valid");
        let judge = |verdict| files.book().judge(&node(), &model(), verdict, 1_000);
        assert!(!judge(Verdict::Shown), "nothing changes");
        assert!(judge(Verdict::Wrong), "it gets nothing more");
        assert!(files.suspicion(&node()).is_none());
        assert!(!judge(Verdict::Missing));
        assert!(files.suspicion(&other).is_some(), "all machines of the owner");
        assert_eq!(files.report(&node())[0].failures, 2);
        assert!(judge(Verdict::Shown), "it gets jobs again");
        assert!(files.suspicion(&node()).is_none());
        assert_eq!(files.report(&node())[0].shown_at_ms, Some(1_000));
    }

    #[test]
    fn who_is_due_and_when() {
        let limits = Limits { files_every_ms: 100, files_retry_ms: 10, ..Limits::default() };
        let mut book = Book::default();
        let due = |book: &Book, now| book.due_since(&node(), &model(), &limits, now);
        assert_eq!(due(&book, 5), Some(0), "who was never asked");
        book.shown.entry((node(), model())).or_default().asked_ms = Some(1_000);
        book.judge(&node(), &model(), Verdict::Shown, 1_001);
        assert_eq!(due(&book, 1_099), None);
        assert_eq!(due(&book, 1_103), Some(3));
        book.judge(&node(), &model(), Verdict::Wrong, 1_001);
        assert_eq!(due(&book, 1_009), None);
        assert_eq!(due(&book, 1_010), Some(0), "sooner, to be heard again");
    }
}
