//! Demand of the practice network: short, harmless questions and pictures that keep a newcomer's
//! machine busy enough to see how mining works. They pass through admission, routing and the ledger
//! like any other job.

use neurino_core::{
    ChatMessage, ImageDefaults, ImageJob, JobKind, JobSpec, ModelId, Role, SamplingParams, TextJob,
};
use neurino_protocol::app::{ModelState, ModelStatus};

/// Most tokens a practice job may generate.
const MAX_TOKENS: u32 = 96;
/// Every so many jobs one is a picture, where both kinds can be served.
const PICTURE_EVERY: u64 = 3;

const QUESTIONS: &[&str] = &[
    "What is the capital of France?",
    "Why is the sky blue? Answer in two sentences.",
    "Write a haiku about a quiet computer at night.",
    "Explain what a graphics card does, for a ten-year-old.",
    "Name three planets and one fact about each.",
    "Give me a short tip for sleeping better.",
    "What is the difference between weather and climate?",
    "Write one sentence that a friendly robot would say in the morning.",
    "How do bees make honey? Keep it short.",
    "Suggest a name for a cat that likes video games, and say why.",
    "What does a compiler do? Two sentences.",
    "Describe the sea to someone who has never seen it.",
];

/// Within what the image starter model knows.
const PICTURES: &[&str] = &[
    "a house with a red roof",
    "a pink heart",
    "a boat on the sea",
    "a black cat",
    "a palm tree on the beach",
    "a red car",
    "a smiling yellow face",
    "a rocket in space",
    "a green tree",
    "an orange fish",
    "a castle",
    "a blue gem",
];

/// What the practice network can ask this machine for.
#[derive(Debug, Clone, PartialEq)]
pub struct Demand {
    text: Option<ModelId>,
    image: Option<(ModelId, ImageDefaults)>,
}

impl Demand {
    /// Demand for models that are on this machine, the one in memory first. `None` if there is
    /// none.
    pub fn of(models: &[ModelStatus]) -> Option<Self> {
        let here = |kind: JobKind| {
            let loaded = |m: &&ModelStatus| m.kind == kind && m.state == ModelState::Loaded;
            let ready = |m: &&ModelStatus| m.kind == kind && m.state == ModelState::Ready;
            models.iter().find(loaded).or_else(|| models.iter().find(ready))
        };
        let text = here(JobKind::Text).map(|m| m.id.clone());
        let image = here(JobKind::Image).and_then(|m| Some((m.id.clone(), m.image.clone()?)));
        (text.is_some() || image.is_some()).then_some(Self { text, image })
    }

    /// Demand for one model that writes text.
    pub fn for_text(model: ModelId) -> Self {
        Self { text: Some(model), image: None }
    }

    /// The `n`th practice job; repeats after a while with another seed.
    pub fn job(&self, n: u64) -> JobSpec {
        let turn = n % PICTURE_EVERY == PICTURE_EVERY - 1;
        match (&self.text, &self.image) {
            (Some(_), Some((model, defaults))) if turn => {
                picture(model, defaults, n / PICTURE_EVERY, n)
            }
            (Some(model), _) => question(model, n),
            (None, Some((model, defaults))) => picture(model, defaults, n, n),
            (None, None) => unreachable!("`of` makes no demand for nothing"),
        }
    }
}

fn question(model: &ModelId, n: u64) -> JobSpec {
    let question = QUESTIONS[(n % QUESTIONS.len() as u64) as usize];
    let messages = vec![ChatMessage::new(Role::User, question)];
    let mut job = TextJob::new(model.clone(), messages, MAX_TOKENS);
    job.sampling = SamplingParams { temperature: 0.2, top_p: 0.9, seed: n, ..job.sampling };
    JobSpec::Text(job)
}

fn picture(model: &ModelId, defaults: &ImageDefaults, n: u64, seed: u64) -> JobSpec {
    let prompt = PICTURES[(n % PICTURES.len() as u64) as usize];
    JobSpec::Image(ImageJob { seed, ..defaults.job(model.clone(), prompt) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(id: &str, kind: JobKind, state: ModelState) -> ModelStatus {
        let image = ImageDefaults {
            width: 64,
            height: 64,
            steps: 20,
            guidance: 5.0,
            negative_prompt: String::new(),
            side_multiple: 8,
            sampler: None,
        };
        ModelStatus {
            id: ModelId::new(id).expect("valid"),
            name: id.into(),
            summary: String::new(),
            kind,
            image: (kind == JobKind::Image).then_some(image),
            size_bytes: 1,
            licence: String::new(),
            state,
            problem: None,
        }
    }

    #[test]
    fn every_practice_job_is_valid_and_one_in_three_is_a_picture() {
        let text = model("t", JobKind::Text, ModelState::Ready);
        let image = model("i", JobKind::Image, ModelState::Loaded);
        let demand = Demand::of(&[text.clone(), image.clone()]).expect("two models");
        let kinds: Vec<JobKind> = (0..72)
            .map(|n| {
                let job = demand.job(n);
                job.validate().expect("within limits");
                job.kind()
            })
            .collect();
        assert_eq!(kinds.iter().filter(|kind| **kind == JobKind::Image).count(), 24);
        assert!(kinds[..6].contains(&JobKind::Image) && kinds[..6].contains(&JobKind::Text));
        for (only, kind) in [(text, JobKind::Text), (image, JobKind::Image)] {
            let demand = Demand::of(&[only]).expect("one model");
            assert!((0..9).all(|n| demand.job(n).kind() == kind));
        }
    }

    #[test]
    fn what_is_in_memory_is_asked_first_and_what_is_absent_never() {
        let models = [
            model("absent", JobKind::Text, ModelState::Absent),
            model("ready", JobKind::Text, ModelState::Ready),
            model("loaded", JobKind::Text, ModelState::Loaded),
        ];
        let demand = Demand::of(&models).expect("two are here");
        assert_eq!(demand.job(0).model().as_str(), "loaded");
        assert_eq!(Demand::of(&models[..1]), None);
    }
}
