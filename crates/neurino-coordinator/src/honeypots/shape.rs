//! What honeypots look like: the numbers of customers' requests, and words of the network's own.
//!
//! Of a request only numbers are kept, in memory: lengths, sizes, how tokens are chosen. Its words are not.
//! What cannot be imitated without words (tools, schemas, texts that end an answer, whole conversations)
//! is not imitated: such requests are for ordinary audits.

use std::collections::{BTreeMap, VecDeque};

use neurino_core::{
    ChatMessage, ImageDefaults, ImageJob, JobSpec, ModelId, ResponseFormat, Role, TextJob,
};

use crate::jobs::NETWORK_STOPS;

/// Shapes that are remembered of a model, and of how many models.
const PER_MODEL: usize = 16;
const MODELS: usize = 64;
/// What is written at least and at most, in bytes.
const WORDS_MIN: usize = 8;
const WORDS_MAX: usize = 2_000;
/// Bytes of a word, about.
const WORD_BYTES: usize = 6;

/// What people ask about.
const ABOUT: [&str; 48] = [
    "a recipe",
    "a letter to an office",
    "homework in history",
    "homework in physics",
    "a bug in a small program",
    "a spreadsheet",
    "a journey by train",
    "a journey on foot",
    "a birthday",
    "a wedding speech",
    "a poem",
    "a short story",
    "a film",
    "a novel",
    "a song",
    "a garden in spring",
    "a balcony in a city",
    "a cat",
    "a dog that is ill",
    "a bicycle",
    "an old car",
    "a rented flat",
    "a neighbour",
    "a job interview",
    "an application",
    "a small firm",
    "taxes",
    "saving money",
    "learning a language",
    "a translation",
    "mathematics at school",
    "statistics",
    "a table of data",
    "a website",
    "a game",
    "a board game",
    "the weather",
    "stars and planets",
    "animals of the sea",
    "mountains",
    "a healthy diet",
    "sleep",
    "sport after a break",
    "a child's question",
    "a riddle",
    "a summary of an article",
    "an argument for a debate",
    "a list of ideas",
];
/// How they ask.
const HOW: [&str; 10] = [
    "in plain words",
    "in a hurry",
    "with much detail",
    "politely",
    "bluntly",
    "with a number or a date in it",
    "with a name in it",
    "as a beginner",
    "as an expert",
    "with one condition that must hold",
];
/// What pictures show.
const SEEN: [&str; 24] = [
    "a street at night",
    "a forest",
    "a portrait",
    "a house",
    "a ship",
    "a bird",
    "a horse",
    "a table with food",
    "a machine",
    "a robot",
    "a castle",
    "a coast",
    "a dancer",
    "a library",
    "a mountain lake",
    "a market",
    "a still life",
    "a city of the future",
    "an old map",
    "a flower",
    "a train",
    "a child's drawing",
    "a sky",
    "a workshop",
];

/// The numbers of a request.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Shape {
    /// The request without its words.
    job: JobSpec,
    /// How long they were, in bytes.
    bytes: usize,
}

/// Shapes of lately paid requests.
#[derive(Debug, Default)]
pub(super) struct Shapes(BTreeMap<ModelId, VecDeque<Shape>>);

impl Shapes {
    /// Remembers what a request looked like, if it can be imitated.
    pub(super) fn note(&mut self, spec: &JobSpec, usual: Option<&ImageDefaults>) {
        let Some(shape) = Shape::of(spec, usual) else { return };
        if self.0.len() >= MODELS && !self.0.contains_key(spec.model()) {
            return;
        }
        let shapes = self.0.entry(spec.model().clone()).or_default();
        if shapes.len() >= PER_MODEL {
            shapes.pop_front();
        }
        shapes.push_back(shape);
    }

    /// One of a model's; none if nothing of it was seen: then there is nothing to hide among.
    pub(super) fn draw(&self, model: &ModelId, roll: u64) -> Option<Shape> {
        let shapes = self.0.get(model)?;
        let at = roll % (shapes.len() as u64).max(1);
        shapes.get(usize::try_from(at).ok()?).cloned()
    }
}

impl Shape {
    /// Some request.
    #[cfg(test)]
    pub(super) fn any() -> Self {
        let job = TextJob::new(ModelId::new("m").expect("valid"), Vec::new(), 64);
        Self { job: JobSpec::Text(job), bytes: 40 }
    }

    fn of(spec: &JobSpec, usual: Option<&ImageDefaults>) -> Option<Self> {
        match spec {
            JobSpec::Text(job) => {
                let [message] = &job.messages[..] else { return None };
                let plain = message.role == Role::User
                    && job.tools.is_empty()
                    && job.response_format == ResponseFormat::Text
                    && job.logit_bias.is_empty()
                    && job.stop.iter().all(|stop| NETWORK_STOPS.contains(&stop.as_str()));
                plain.then(|| Self {
                    bytes: message.content.len(),
                    job: JobSpec::Text(TextJob { messages: Vec::new(), ..job.clone() }),
                })
            }
            JobSpec::Image(job) => {
                let own = usual.map_or("", |usual| usual.negative_prompt.as_str());
                let plain = job.negative_prompt.is_empty() || job.negative_prompt == own;
                plain.then(|| Self {
                    bytes: job.prompt.len(),
                    job: JobSpec::Image(ImageJob { prompt: String::new(), ..job.clone() }),
                })
            }
        }
    }

    /// Words that are about as long as the customer's.
    fn count(&self) -> usize {
        self.bytes.clamp(WORDS_MIN * 4, WORDS_MAX) / WORD_BYTES
    }

    /// Asks a model for such words; each roll asks for something else.
    pub(super) fn request(&self, writer: ModelId, roll: u64) -> JobSpec {
        let pick = |from: &[&'static str], shift: u32| {
            from[usize::try_from((roll >> shift) % from.len() as u64).unwrap_or(0)]
        };
        let count = self.count();
        let asks = match &self.job {
            JobSpec::Text(_) => format!(
                "Write one message that a person could send to an assistant. It is about {}, and asks {}. \
                 Use about {count} words. Write the message only, nothing before or after it.",
                pick(&ABOUT, 8),
                pick(&HOW, 24),
            ),
            JobSpec::Image(_) => format!(
                "Describe a picture of {} in one sentence of about {count} words, with its light, its \
                 colours and its style. Write the sentence only, nothing before or after it.",
                pick(&SEEN, 8),
            ),
        };
        let tokens = u32::try_from(2 * count + 32).unwrap_or(u32::MAX);
        let messages = vec![ChatMessage::new(Role::User, asks)];
        let mut job = TextJob::new(writer, messages, tokens.min(TextJob::MAX_TOKENS_LIMIT));
        job.fewer_tokens = true;
        job.sampling.seed = roll;
        JobSpec::Text(job)
    }

    /// What was written, fit to be asked; none if it is too little.
    pub(super) fn words(&self, written: &str) -> Option<String> {
        let mut words = written.trim();
        // Some announce what they write.
        if let Some((first, rest)) = words.split_once('\n')
            && first.trim_end().ends_with(':')
        {
            words = rest.trim();
        }
        for (open, close) in [('"', '"'), ('“', '”'), ('`', '`')] {
            if let Some(inner) = words.strip_prefix(open).and_then(|w| w.strip_suffix(close)) {
                words = inner.trim();
            }
        }
        let clean: String = words.chars().filter(|c| !c.is_control() || *c == '\n').collect();
        let clean = match &self.job {
            JobSpec::Text(_) => clean,
            JobSpec::Image(_) => clean.lines().next().unwrap_or_default().to_owned(),
        };
        (WORDS_MIN..=2 * WORDS_MAX).contains(&clean.len()).then_some(clean)
    }

    /// The request with other words and another seed, as long as the customer's was.
    pub(super) fn job(&self, words: &str, seed: u64) -> JobSpec {
        let seed_like = |known: u64| seed.checked_shr(known.leading_zeros()).unwrap_or(0);
        match self.job.clone() {
            JobSpec::Text(mut job) => {
                job.messages = vec![ChatMessage::new(Role::User, words)];
                job.sampling.seed = seed_like(job.sampling.seed);
                // What is asked of the node that knows; customers who ask for it are imitated by those
                // who do not.
                job.logprobs = None;
                JobSpec::Text(job)
            }
            JobSpec::Image(mut job) => {
                words.clone_into(&mut job.prompt);
                job.seed = seed_like(job.seed);
                JobSpec::Image(job)
            }
        }
    }
}

/// A job of the audits as a customer would have sent it.
pub(super) fn as_customers_ask(spec: JobSpec) -> JobSpec {
    match spec {
        JobSpec::Text(mut job) => {
            job.logprobs = None;
            JobSpec::Text(job)
        }
        picture @ JobSpec::Image(_) => picture,
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng as _, SeedableRng as _};

    use super::*;

    fn model() -> ModelId {
        ModelId::new("m").expect("valid")
    }

    fn chat(said: &str) -> TextJob {
        let mut job = TextJob::new(model(), vec![ChatMessage::new(Role::User, said)], 77);
        job.sampling.temperature = 0.3;
        job.sampling.seed = u64::from(u32::MAX);
        job.stop = NETWORK_STOPS.map(ToOwned::to_owned).to_vec();
        job
    }

    #[test]
    fn numbers_are_kept_and_words_are_not() {
        let secret = "my secret diagnosis is 4711";
        let shape = Shape::of(&JobSpec::Text(chat(secret)), None).expect("plain");
        assert!(!format!("{shape:?}").contains("4711"));
        let JobSpec::Text(made) = shape.job("how do cats sleep?", u64::MAX) else { panic!() };
        assert_eq!((made.max_tokens, made.sampling.temperature), (77, 0.3));
        assert_eq!(made.sampling.seed, u64::from(u32::MAX), "as long as the customer's");
        assert_eq!(made.messages[0].content, "how do cats sleep?");
        assert!(made.validate().is_ok());
        let mut picture = ImageJob::new(model(), secret, 512);
        picture.steps = 9;
        let shape = Shape::of(&JobSpec::Image(picture), None).expect("plain");
        assert!(!format!("{shape:?}").contains("4711"));
        let JobSpec::Image(made) = shape.job("a grey cat", 5) else { panic!() };
        assert_eq!((made.steps, made.prompt.as_str()), (9, "a grey cat"));
    }

    #[test]
    fn what_cannot_be_imitated_without_words_is_not() {
        let not = |change: fn(&mut TextJob)| {
            let mut job = chat("hello there");
            change(&mut job);
            assert!(Shape::of(&JobSpec::Text(job), None).is_none());
        };
        not(|job| job.stop = vec!["my word".into()]);
        not(|job| job.messages.insert(0, ChatMessage::new(Role::System, "you are my friend")));
        not(|job| job.response_format = ResponseFormat::JsonObject);
        not(|job| job.logit_bias = vec![(1, 1.0)]);
        let mut picture = ImageJob::new(model(), "a cat", 512);
        picture.negative_prompt = "my ex".into();
        assert!(Shape::of(&JobSpec::Image(picture.clone()), None).is_none());
        let usual = ImageDefaults {
            width: 512,
            height: 512,
            steps: 20,
            guidance: 7.0,
            negative_prompt: "my ex".into(),
            side_multiple: 8,
            sampler: None,
        };
        assert!(Shape::of(&JobSpec::Image(picture), Some(&usual)).is_some());
    }

    #[test]
    fn what_a_model_wrote_is_cut_to_the_message() {
        let shape = Shape::of(&JobSpec::Text(chat("hello there")), None).expect("plain");
        let same = Some("How do I mend a tyre?".to_owned());
        assert_eq!(shape.words("Here is a message:\n\n\"How do I mend a tyre?\"\n"), same);
        assert_eq!(shape.words(" “How do I mend a tyre?” "), same);
        assert_eq!(shape.words("ok"), None);
        assert_eq!(shape.words(&"x".repeat(9_000)), None);
    }

    #[test]
    fn requests_for_words_differ_and_are_good() {
        let shape = Shape::of(&JobSpec::Text(chat("hello there")), None).expect("plain");
        let mut all = std::collections::BTreeSet::new();
        let mut rng = StdRng::seed_from_u64(1);
        for _ in 0..200 {
            let asks = shape.request(model(), rng.random());
            assert!(asks.validate().is_ok());
            let JobSpec::Text(asks) = asks else { panic!() };
            all.insert(asks.messages[0].content.clone());
        }
        assert!(all.len() > 100, "{}", all.len());
    }

    #[test]
    fn few_shapes_are_kept() {
        let mut shapes = Shapes::default();
        assert!(shapes.draw(&model(), 3).is_none(), "nothing to hide among");
        for n in 0..100 {
            shapes.note(&JobSpec::Text(chat(&"x".repeat(100 + n))), None);
        }
        assert_eq!(shapes.0[&model()].len(), PER_MODEL);
        assert!(shapes.draw(&model(), u64::MAX).is_some_and(|shape| shape.bytes >= 184));
    }
}
