//! The index of the receipts: what totals and lists need of each, in a file beside the log.
//!
//! `receipts.idx` begins with [`MAGIC`] and a fingerprint of the rules that receipts were computed
//! again with; then frames follow, each `tag, length, payload, crc32`. A frame is a name (a model or a
//! rule set; names are numbered as they come) or an entry. The file is a cache: whatever is wrong with
//! it, it is made anew from the log. It is not synced; what a crash cuts off is read from the log.

use std::collections::{HashMap, HashSet};

use neurino_core::{EventId, JobKind, MicroPoints, PointsKind, Quote, Receipt, RuleSets};
use uuid::Uuid;

/// How the file begins.
const MAGIC: &[u8; 8] = b"NRNIDX1\n";
/// Length of magic and fingerprint.
pub(crate) const HEADER: usize = 12;
const NAME: u8 = 1;
const ENTRY: u8 = 2;
const ENTRY_BYTES: usize = 74;

/// What came out when a receipt was computed again by its rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The same amount.
    Agrees,
    /// Another amount.
    Differs,
    /// This program does not know the rules.
    Unknown,
}

/// What is kept of a receipt in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// When it was settled, in milliseconds since the Unix epoch.
    pub settled_at_ms: i64,
    /// Where its line begins in the log.
    pub(crate) offset: u64,
    /// What it paid.
    pub amount: MicroPoints,
    /// Length of its line in bytes.
    pub(crate) length: u32,
    /// Tokens, or pixels times steps.
    pub units: u32,
    /// The model's factor, in millionths.
    pub factor: u32,
    /// The owner's multiplier, in millionths.
    pub multiplier: u32,
    /// From lease to accepted result, in milliseconds.
    pub duration_ms: u32,
    /// Number of the model's name.
    pub model: u16,
    /// Number of the rule set's name.
    pub rules: u16,
    /// Which points.
    pub kind: PointsKind,
    /// What computing it again gave.
    pub verdict: Verdict,
}

/// All entries, by time of settlement, and what they refer to.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) entries: Vec<Entry>,
    pub(crate) names: Names,
    pub(crate) events: HashSet<EventId>,
    /// Paid beyond what the rules give, of all that differ.
    pub(crate) drift: MicroPoints,
    pub(crate) all: super::ReceiptTotals,
    /// End of the last line that has an entry.
    pub(crate) covered: u64,
}

/// Names by number.
#[derive(Debug, Default)]
pub(crate) struct Names {
    list: Vec<String>,
    numbers: HashMap<String, u16>,
}

impl Names {
    /// The name of a number.
    pub(crate) fn get(&self, number: u16) -> &str {
        self.list.get(usize::from(number)).map_or("", String::as_str)
    }

    /// All of them.
    pub(crate) fn all(&self) -> &[String] {
        &self.list
    }

    /// The number of a name; `true` if it is new. Past 65,535 names all share the last number.
    fn number(&mut self, name: &str) -> (u16, bool) {
        if let Some(number) = self.numbers.get(name) {
            return (*number, false);
        }
        let Ok(number) = u16::try_from(self.list.len()) else { return (u16::MAX, false) };
        self.list.push(name.to_owned());
        self.numbers.insert(name.to_owned(), number);
        (number, true)
    }
}

/// The header of an index made with these rules.
pub(crate) fn header(rules: &RuleSets) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(MAGIC);
    let text = serde_json::to_vec(rules).unwrap_or_default();
    header[8..].copy_from_slice(&crc32fast::hash(&text).to_le_bytes());
    header
}

/// Computes a receipt again by the rules it names: the verdict, and what the rules give.
pub(crate) fn recompute(receipt: &Receipt, rules: &RuleSets) -> (Verdict, Option<Quote>) {
    let Ok(rules) = rules.named(&receipt.rule_set) else {
        return (Verdict::Unknown, None);
    };
    let quote = &receipt.quote;
    let kind = match quote.points {
        PointsKind::Llama => JobKind::Text,
        PointsKind::Waifu => JobKind::Image,
    };
    let units = if kind == JobKind::Text { receipt.usage.total() } else { quote.units };
    let again = rules.quote(&receipt.model, kind, units, quote.multiplier).ok();
    (if again == Some(*quote) { Verdict::Agrees } else { Verdict::Differs }, again)
}

/// [`recompute`], with what was paid beyond the rules.
pub(crate) fn compute(receipt: &Receipt, rules: &RuleSets) -> (Verdict, MicroPoints) {
    let (verdict, again) = recompute(receipt, rules);
    let due = again.map_or(0, |again| again.amount_micro.0);
    let beyond = match verdict {
        Verdict::Differs => receipt.quote.amount_micro.0.saturating_sub(due),
        Verdict::Agrees | Verdict::Unknown => 0,
    };
    (verdict, MicroPoints(beyond))
}

impl Index {
    /// Takes in a receipt whose line lies at `offset`; returns the frames that say so in the file.
    pub(crate) fn add(
        &mut self,
        receipt: &Receipt,
        offset: u64,
        length: usize,
        rules: &RuleSets,
    ) -> Vec<u8> {
        let mut frames = Vec::with_capacity(ENTRY_BYTES + 6);
        let mut number = |name: &str| {
            let name = cut(name);
            let (number, new) = self.names.number(name);
            if new {
                frame(&mut frames, NAME, name.as_bytes());
            }
            number
        };
        let model = number(receipt.model.as_str());
        let rules_name = number(&receipt.rule_set);
        let (verdict, drift) = compute(receipt, rules);
        let quote = &receipt.quote;
        let entry = Entry {
            settled_at_ms: receipt.settled_at_ms,
            offset,
            amount: quote.amount_micro,
            length: u32::try_from(length).unwrap_or(u32::MAX),
            units: quote.units,
            factor: quote.factor.0,
            multiplier: quote.multiplier.0,
            duration_ms: u32::try_from(receipt.duration_ms).unwrap_or(u32::MAX),
            model,
            rules: rules_name,
            kind: quote.points,
            verdict,
        };
        frame(&mut frames, ENTRY, &encode(receipt.event, drift, &entry));
        let at = self.entries.partition_point(|e| e.settled_at_ms <= entry.settled_at_ms);
        self.entries.insert(at, entry);
        self.count(receipt.event, drift, &entry);
        frames
    }

    fn count(&mut self, event: EventId, drift: MicroPoints, entry: &Entry) {
        self.events.insert(event);
        self.drift.0 = self.drift.0.saturating_add(drift.0);
        self.all.add(entry);
        self.covered = self.covered.max(entry.offset + u64::from(entry.length));
    }

    /// Reads the frames of a file; `None` where something is wrong but a cut end. Also says how many
    /// bytes of it are whole.
    pub(crate) fn read(bytes: &[u8], rules: &RuleSets) -> Option<(Self, usize)> {
        if bytes.len() < HEADER || bytes[..HEADER] != header(rules) {
            return None;
        }
        let mut index = Self::default();
        index.entries.reserve(bytes.len() / (ENTRY_BYTES + 6));
        index.events.reserve(bytes.len() / (ENTRY_BYTES + 6));
        let mut at = HEADER;
        let mut sorted = true;
        while at < bytes.len() {
            let Some((tag, payload, next)) = unframe(bytes, at) else {
                // A cut end is shorter than a frame; damage is followed by more.
                let rest = bytes.len() - at;
                if rest < ENTRY_BYTES + 6 {
                    break;
                }
                return None;
            };
            match tag {
                NAME => {
                    index.names.number(std::str::from_utf8(payload).ok()?);
                }
                ENTRY => {
                    let (event, drift, entry) = decode(payload)?;
                    sorted &= index
                        .entries
                        .last()
                        .is_none_or(|last| last.settled_at_ms <= entry.settled_at_ms);
                    index.entries.push(entry);
                    index.count(event, drift, &entry);
                }
                _ => return None,
            }
            at = next;
        }
        if !sorted {
            index.entries.sort_by_key(|e| e.settled_at_ms);
        }
        Some((index, at))
    }
}

/// At most 255 bytes of a name.
fn cut(name: &str) -> &str {
    let mut end = name.len().min(255);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

fn frame(out: &mut Vec<u8>, tag: u8, payload: &[u8]) {
    let begin = out.len();
    out.push(tag);
    out.push(u8::try_from(payload.len()).expect("names and entries are short"));
    out.extend_from_slice(payload);
    let crc = crc32fast::hash(&out[begin..]);
    out.extend_from_slice(&crc.to_le_bytes());
}

fn unframe(bytes: &[u8], at: usize) -> Option<(u8, &[u8], usize)> {
    let length = usize::from(*bytes.get(at + 1)?);
    let end = at + 2 + length;
    let crc = bytes.get(end..end + 4)?;
    let whole = crc32fast::hash(&bytes[at..end]).to_le_bytes() == *crc;
    whole.then_some((bytes[at], &bytes[at + 2..end], end + 4))
}

fn encode(event: EventId, drift: MicroPoints, e: &Entry) -> [u8; ENTRY_BYTES] {
    let mut out = [0; ENTRY_BYTES];
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        out[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    put(event.0.as_bytes());
    put(&e.settled_at_ms.to_le_bytes());
    put(&e.offset.to_le_bytes());
    put(&e.amount.0.to_le_bytes());
    put(&drift.0.to_le_bytes());
    for n in [e.length, e.units, e.factor, e.multiplier, e.duration_ms] {
        put(&n.to_le_bytes());
    }
    put(&e.model.to_le_bytes());
    put(&e.rules.to_le_bytes());
    put(&[match e.kind {
        PointsKind::Llama => 0,
        PointsKind::Waifu => 1,
    }]);
    put(&[match e.verdict {
        Verdict::Agrees => 0,
        Verdict::Differs => 1,
        Verdict::Unknown => 2,
    }]);
    out
}

fn decode(bytes: &[u8]) -> Option<(EventId, MicroPoints, Entry)> {
    if bytes.len() != ENTRY_BYTES {
        return None;
    }
    let mut rest = bytes;
    let event = EventId(Uuid::from_bytes(take(&mut rest)?));
    let settled_at_ms = i64::from_le_bytes(take(&mut rest)?);
    let offset = u64::from_le_bytes(take(&mut rest)?);
    let amount = MicroPoints(i64::from_le_bytes(take(&mut rest)?));
    let drift = MicroPoints(i64::from_le_bytes(take(&mut rest)?));
    let mut word = || take(&mut rest).map(u32::from_le_bytes);
    let (length, units, factor) = (word()?, word()?, word()?);
    let (multiplier, duration_ms) = (word()?, word()?);
    let model = u16::from_le_bytes(take(&mut rest)?);
    let rules = u16::from_le_bytes(take(&mut rest)?);
    let [kind, verdict] = take(&mut rest)?;
    let entry = Entry {
        settled_at_ms,
        offset,
        amount,
        length,
        units,
        factor,
        multiplier,
        duration_ms,
        model,
        rules,
        kind: if kind == 0 { PointsKind::Llama } else { PointsKind::Waifu },
        verdict: match verdict {
            0 => Verdict::Agrees,
            1 => Verdict::Differs,
            _ => Verdict::Unknown,
        },
    };
    Some((event, drift, entry))
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}
