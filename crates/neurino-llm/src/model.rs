//! A loaded language model: tokens in, scores of the next token out.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use neurino_nn::choice::{ChosenToken, TokenRule, choose, chooses};
use neurino_nn::device::{download, is_cpu, run_near};
use neurino_nn::paged::{BLOCK_TOKENS, BatchLayout, SequenceSpan};
use neurino_nn::{NnError, PagedKvCache};

use crate::LlmError;
use crate::checkpoint::{LayerLoader, Precision};
use crate::config::ModelConfig;
use crate::models::decoder::{Decoder, Placement, Stores};
use crate::models::random::{RandomLayers, WeightFormat};
use crate::source::ModelSource;

/// The most tokens that one pass through the layers takes. A longer prompt goes through in pieces,
/// so that memory is bounded and a caller that feeds the pieces itself can stop between them.
pub const PREFILL_CHUNK_TOKENS: usize = 256;

/// A model of any supported architecture, with its weights on a device or several.
#[derive(Debug)]
pub struct LanguageModel {
    decoder: Decoder,
    /// Whether the head's device chooses tokens, where jobs allow it.
    chooses: bool,
    /// How the weights are kept; `None` for random ones.
    precision: Option<Precision>,
}

/// What is wanted of a step.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// The rows that are scored.
    pub rows: &'a [usize],
    /// Those of them, by their places in `rows`, whose scores come to the host.
    pub scores: &'a [usize],
    /// Those of them from which the device chooses a token, and how; one row may occur several
    /// times.
    pub choices: &'a [(usize, TokenRule)],
}

/// What a step gave.
#[derive(Debug)]
pub struct Found {
    /// The scores that were wanted.
    pub logits: Logits,
    /// A token for each choice; `None` where the scores are no numbers.
    pub tokens: Vec<Option<ChosenToken>>,
}

/// Scores of the next token, for some rows of a step.
#[derive(Debug)]
pub struct Logits {
    values: Vec<f32>,
    vocab_size: usize,
}

impl Logits {
    /// Rows that were asked for.
    pub fn rows(&self) -> usize {
        self.values.len() / self.vocab_size
    }

    /// The scores of one of them, by token.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.vocab_size..][..self.vocab_size]
    }

    /// All rows, to be changed in place by samplers.
    pub fn rows_mut(&mut self) -> std::slice::ChunksExactMut<'_, f32> {
        self.values.chunks_exact_mut(self.vocab_size)
    }
}

/// One text and a cache of its own: for tests and measurements. Jobs share a cache, see
/// [`crate::serving`].
#[derive(Debug)]
pub struct Sequence {
    cache: PagedKvCache,
    len: usize,
    capacity: usize,
}

impl Sequence {
    /// Tokens held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no token is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Tokens that fit.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Forgets all tokens after the first `len`, keeping the memory.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    fn check_room(&self, count: usize) -> Result<(), NnError> {
        let needed_tokens = self.len.saturating_add(count);
        if needed_tokens <= self.capacity {
            return Ok(());
        }
        Err(NnError::CacheFull { needed_tokens, capacity_tokens: self.capacity })
    }

    /// The layout of a step that adds `rows` tokens.
    fn layout(&self, rows: usize) -> BatchLayout {
        let blocks = (0..self.cache.n_blocks() as u32).collect();
        BatchLayout { sequences: vec![SequenceSpan { rows, start: self.len, blocks }] }
    }
}

/// All that a pass computed, for parity tests.
#[derive(Debug)]
pub struct Trace {
    /// The embeddings, then the output of each layer (the last after the final norm), each
    /// `[seq, hidden_size]`.
    pub hidden: Vec<Vec<f32>>,
    /// `[seq, vocab_size]`
    pub logits: Vec<f32>,
}

impl LanguageModel {
    /// Loads the weights onto `device` in the precision that suits it. `progress` gets
    /// `(done, total)` bytes after each tensor.
    ///
    /// # Errors
    /// `Weights` for a tensor that is absent, of another shape or in an unknown format.
    pub fn load(
        source: &ModelSource,
        device: &Device,
        progress: &dyn Fn(u64, u64),
    ) -> Result<Self, LlmError> {
        Self::load_as(source, device, Precision::for_device(device), progress)
    }

    /// As [`LanguageModel::load`], with a chosen precision.
    ///
    /// # Errors
    /// As [`LanguageModel::load`].
    pub fn load_as(
        source: &ModelSource,
        device: &Device,
        precision: Precision,
        progress: &dyn Fn(u64, u64),
    ) -> Result<Self, LlmError> {
        let placement = Placement::whole(device, source.config.num_hidden_layers);
        Self::load_over(source, &placement, precision, progress, &|| false)
    }

    /// Loads the weights onto the devices of `placement`; gives up at the next tensor once
    /// `cancelled` says so. What was loaded by then is freed.
    ///
    /// # Errors
    /// As [`LanguageModel::load`]; `BadPlacement`; `Weights` (`Stopped`) if it was cancelled.
    pub fn load_over(
        source: &ModelSource,
        placement: &Placement,
        precision: Precision,
        progress: &dyn Fn(u64, u64),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Self, LlmError> {
        let (first, _) = &placement.layers()[0];
        let loader = LayerLoader::new(&source.checkpoint, first, precision, progress)
            .cancelled_by(cancelled);
        let cache_dtype = precision.cache_dtype();
        let decoder = Decoder::load(&source.config, &loader, placement, cache_dtype)?;
        Ok(Self { precision: Some(precision), ..Self::new(decoder) })
    }

    /// A model of these dimensions with random weights, for measurements: fast to make, fit to
    /// compute with, and of no use otherwise.
    ///
    /// # Errors
    /// `Nn` if the shapes do not fit the format.
    pub fn random(
        config: &ModelConfig,
        format: WeightFormat,
        device: &Device,
        seed: u64,
    ) -> Result<Self, LlmError> {
        let placement = Placement::whole(device, config.num_hidden_layers);
        let layers = RandomLayers::new(format, device, seed);
        Decoder::load(config, &layers, &placement, format.cache_dtype(device)).map(Self::new)
    }

    fn new(decoder: Decoder) -> Self {
        let chooses = chooses(decoder.last_device());
        Self { decoder, chooses, precision: None }
    }

    /// The same, with its caches in stores of another kind.
    #[must_use]
    pub fn with_stores(self, stores: Stores) -> Self {
        Self { decoder: self.decoder.with_stores(stores), ..self }
    }

    /// The same, with all tokens drawn on the host: see [`crate::self_check`].
    #[must_use]
    pub fn drawing_on_host(self) -> Self {
        Self { chooses: false, ..self }
    }

    /// Computes as the reference does after a text of so many tokens, for comparing with it: see
    /// [`neurino_nn::RotaryEmbedding::grown_to`].
    pub fn grow_rotation(&mut self, tokens: usize) {
        self.decoder.grow_rotation(tokens);
    }

    /// How the weights are kept; `None` for random ones.
    pub fn precision(&self) -> Option<Precision> {
        self.precision
    }

    /// Whether the device chooses tokens, where jobs allow it.
    pub fn chooses(&self) -> bool {
        self.chooses
    }

    /// The dimensions.
    pub fn config(&self) -> &ModelConfig {
        self.decoder.config()
    }

    /// Tokens of context the model was made for.
    pub fn context_tokens(&self) -> usize {
        self.config().max_position_embeddings
    }

    /// Tokens the model knows.
    pub fn vocab_size(&self) -> usize {
        self.config().vocab_size
    }

    /// Memory of the weights on all devices.
    pub fn weights_bytes(&self) -> u64 {
        self.device_weights_bytes().map(|(_, bytes)| bytes).sum()
    }

    /// Memory of the weights on each device, in the order of the layers.
    pub fn device_weights_bytes(&self) -> impl Iterator<Item = (&Device, u64)> {
        self.decoder.weights_bytes()
    }

    /// Bytes of weights that one generated token reads.
    pub fn bytes_per_token(&self) -> u64 {
        self.decoder.bytes_per_token()
    }

    /// Memory that a step of `rows` rows, `logit_rows` of them scored, needs at its peak beside
    /// weights and cache; without what attention keeps of its scores.
    pub fn activation_bytes(&self, rows: usize, logit_rows: usize) -> u64 {
        self.config().activation_bytes(rows, logit_rows)
    }

    /// An empty cache of `n_blocks` blocks of [`BLOCK_TOKENS`] tokens.
    pub fn new_cache(&self, n_blocks: usize) -> PagedKvCache {
        self.decoder.new_cache(n_blocks)
    }

    /// Computes with the parts of layers that get only some rows of a step of up to `rows`, such as
    /// experts, so that a card meets none of their sizes for the first time in a job.
    ///
    /// # Errors
    /// `Nn` if a device failed.
    pub fn warm_up_parts(&self, rows: usize) -> Result<(), LlmError> {
        run_near(self.device(), || self.decoder.warm_up_parts(rows));
        self.settle()
    }

    /// Waits until its devices have done what they were asked for, such as making a cache.
    ///
    /// # Errors
    /// `Nn` if one of them has failed.
    pub fn settle(&self) -> Result<(), LlmError> {
        let devices = self.device_weights_bytes().map(|(device, _)| device);
        for device in devices.filter(|device| !is_cpu(device)) {
            device.sync().map_err(|e| NnError::Device { reason: e.to_string() })?;
        }
        Ok(())
    }

    /// Memory that one block of the cache takes.
    pub fn block_bytes(&self) -> u64 {
        self.decoder.block_bytes()
    }

    /// Runs the new tokens of several sequences through all layers and returns the scores after
    /// the rows `logit_rows`. `tokens` has a token for each row of `batch`.
    ///
    /// # Errors
    /// `NoTokens`, `TokenOutOfRange`; `Nn` if layout and cache do not fit or the device fails.
    pub fn step(
        &self,
        tokens: &[u32],
        batch: &BatchLayout,
        logit_rows: &[usize],
        cache: &mut PagedKvCache,
    ) -> Result<Logits, LlmError> {
        let all: Vec<usize> = (0..logit_rows.len()).collect();
        let wanted = Wanted { rows: logit_rows, scores: &all, choices: &[] };
        Ok(self.step_drawing(tokens, batch, &wanted, cache)?.logits)
    }

    /// As [`LanguageModel::step`], with scores or with tokens that the device chose, row by row.
    ///
    /// # Errors
    /// As [`LanguageModel::step`]; `Nn` for choices of a device that does not choose.
    pub fn step_drawing(
        &self,
        tokens: &[u32],
        batch: &BatchLayout,
        wanted: &Wanted<'_>,
        cache: &mut PagedKvCache,
    ) -> Result<Found, LlmError> {
        let vocab_size = self.vocab_size();
        run_near(self.device(), || {
            let hidden = self.hidden_states(tokens, batch, cache, &mut |_| ())?;
            if wanted.rows.is_empty() {
                let logits = Logits { values: Vec::new(), vocab_size };
                return Ok(Found { logits, tokens: Vec::new() });
            }
            let scores = self.head(select_rows(hidden, wanted.rows));
            let tokens = chosen(&scores, wanted.choices)?;
            let values = match wanted.scores {
                [] => Vec::new(),
                rows => download(select_rows(scores, rows))?,
            };
            Ok(Found { logits: Logits { values, vocab_size }, tokens })
        })
    }

    /// An empty sequence of at most `capacity_tokens`, or of the model's context if that is less.
    pub fn new_sequence(&self, capacity_tokens: usize) -> Sequence {
        let capacity = capacity_tokens.min(self.context_tokens());
        let cache = self.new_cache(capacity.div_ceil(BLOCK_TOKENS));
        Sequence { cache, len: 0, capacity }
    }

    /// Adds `tokens` to a sequence and returns the scores of the token after the last, one for each
    /// of [`LanguageModel::vocab_size`]. Prompt and single tokens alike; more than
    /// [`PREFILL_CHUNK_TOKENS`] go through in pieces.
    ///
    /// # Errors
    /// `NoTokens`, `TokenOutOfRange`; `Nn` if the sequence is full or the device fails.
    pub fn forward(&self, tokens: &[u32], sequence: &mut Sequence) -> Result<Vec<f32>, LlmError> {
        self.pieces(tokens, sequence, true)
    }

    /// Adds `tokens` to a sequence without computing scores.
    ///
    /// # Errors
    /// As [`LanguageModel::forward`].
    pub fn prefill(&self, tokens: &[u32], sequence: &mut Sequence) -> Result<(), LlmError> {
        self.pieces(tokens, sequence, false).map(drop)
    }

    /// One pass over a whole text that keeps everything.
    ///
    /// # Errors
    /// As [`LanguageModel::forward`].
    pub fn trace(&self, tokens: &[u32]) -> Result<Trace, LlmError> {
        let n_blocks = tokens.len().div_ceil(BLOCK_TOKENS);
        let blocks = (0..n_blocks as u32).collect();
        let layout =
            BatchLayout { sequences: vec![SequenceSpan { rows: tokens.len(), start: 0, blocks }] };
        let mut states = Vec::new();
        let mut observe = |x: &Tensor<2>| states.push(x.clone());
        let mut cache = self.new_cache(n_blocks);
        let last = self.hidden_states(tokens, &layout, &mut cache, &mut observe)?;
        let hidden = states.into_iter().map(download).collect::<Result<_, _>>()?;
        Ok(Trace { hidden, logits: download(self.head(last))? })
    }

    /// Where the weights are, or the first of them.
    pub fn device(&self) -> &Device {
        self.decoder.first_device()
    }

    fn pieces(
        &self,
        tokens: &[u32],
        sequence: &mut Sequence,
        scores: bool,
    ) -> Result<Vec<f32>, LlmError> {
        sequence.check_room(tokens.len())?;
        let mut logits = Logits { values: Vec::new(), vocab_size: self.vocab_size() };
        let mut left = tokens.len();
        for piece in tokens.chunks(PREFILL_CHUNK_TOKENS) {
            left -= piece.len();
            let last = piece.len() - 1;
            let rows: &[usize] = if scores && left == 0 { &[last] } else { &[] };
            let layout = sequence.layout(piece.len());
            logits = self.step(piece, &layout, rows, &mut sequence.cache)?;
            sequence.len += piece.len();
        }
        if tokens.is_empty() { Err(LlmError::NoTokens) } else { Ok(logits.values) }
    }

    fn hidden_states(
        &self,
        tokens: &[u32],
        batch: &BatchLayout,
        cache: &mut PagedKvCache,
        observe: &mut dyn FnMut(&Tensor<2>),
    ) -> Result<Tensor<2>, LlmError> {
        if tokens.is_empty() {
            return Err(LlmError::NoTokens);
        }
        let vocab_size = self.vocab_size();
        if let Some(&token) = tokens.iter().find(|&&token| token as usize >= vocab_size) {
            return Err(LlmError::TokenOutOfRange { token, vocab_size });
        }
        if tokens.len() != batch.rows() {
            return Err(NnError::BadBatch { reason: "as many tokens as rows are needed" }.into());
        }
        self.decoder.hidden_states(tokens, batch, cache, observe)
    }

    fn head(&self, hidden: Tensor<2>) -> Tensor<2> {
        self.decoder.logits(hidden)
    }
}

/// Lets the device choose. Rows that nobody chooses from are chosen from nevertheless: that costs
/// less than copies of the others.
fn chosen(
    scores: &Tensor<2>,
    choices: &[(usize, TokenRule)],
) -> Result<Vec<Option<ChosenToken>>, LlmError> {
    if choices.is_empty() {
        return Ok(Vec::new());
    }
    let mut rules = vec![TokenRule::LIKELIEST; scores.dims()[0]];
    let mut taken = vec![false; rules.len()];
    let mut once = true;
    for (row, rule) in choices {
        once &= !std::mem::replace(&mut taken[*row], true);
        rules[*row].clone_from(rule);
    }
    if once {
        let found = choose(scores, &rules)?;
        return Ok(choices.iter().map(|(row, _)| found[*row]).collect());
    }
    let rows: Vec<usize> = choices.iter().map(|(row, _)| *row).collect();
    let rules: Vec<TokenRule> = choices.iter().map(|(_, rule)| rule.clone()).collect();
    Ok(choose(&select_rows(scores.clone(), &rows), &rules)?)
}

/// Some rows of `[rows, features]`.
fn select_rows(hidden: Tensor<2>, rows: &[usize]) -> Tensor<2> {
    if rows.iter().copied().eq(0..hidden.dims()[0]) {
        return hidden;
    }
    let device = hidden.device();
    let indices: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
    let indices: Tensor<1, Int> =
        Tensor::from_data(TensorData::new(indices, [rows.len()]), (&device, DType::I32));
    hidden.select(0, indices)
}
