//! What a device does for the first time is slow: kernels are compiled, chosen and loaded. It is done
//! here, while the model is being loaded, and never inside a job that somebody pays for.

use neurino_llm::LlmError;
use neurino_llm::model::LanguageModel;
use neurino_llm::self_check::{self, Deviation};
use neurino_llm::serving::{ServingLimits, StepShape, StepShapes};
use neurino_nn::device::{TileVerdict, Tiles, tile_verdicts};

use crate::api::{EngineError, EngineErrorCode};
use crate::fault;
use crate::serving::Steps;
use crate::warmed::{Warmed, fingerprint};

/// Whether the model's device chooses tokens as the host does. Where it does not, or cannot be checked, all
/// tokens are to be drawn on the host, as slow as that is: a card must never give wrong ones.
///
/// # Errors
/// `OutOfMemory`, which says nothing of the choices.
pub(crate) fn prove_choices(model: &LanguageModel) -> Result<bool, EngineError> {
    if !model.chooses() {
        return Ok(false);
    }
    let check = || self_check::choices(model, &mut model.new_cache(self_check::BLOCKS));
    verdict(fault::guarded("the check of the card's choices", check))
}

fn verdict(
    checked: Result<Result<Option<Deviation>, LlmError>, EngineError>,
) -> Result<bool, EngineError> {
    let fault = match checked {
        Ok(Ok(None)) => {
            tracing::info!("the card chooses tokens as the host does");
            return Ok(true);
        }
        Ok(Ok(Some(wrong))) => {
            tracing::warn!(%wrong, "tokens are drawn on the host, because the card chose wrongly");
            return Ok(false);
        }
        Ok(Err(error)) => fault::from_model(&error, fault::chain(&error)),
        Err(fault) => fault,
    };
    if fault.code == EngineErrorCode::OutOfMemory {
        return Err(fault);
    }
    tracing::warn!(%fault, "tokens are drawn on the host, because the card could not be checked");
    Ok(false)
}

/// Writes into the log how cards multiply each kind of weights, as `neurino_nn` found it out while they were
/// put there.
pub(crate) fn tell_products() {
    for TileVerdict { device, weights, tiles } in tile_verdicts() {
        match tiles {
            Tiles::Right => tracing::info!(weights, ?device, "multiplied in tiles"),
            Tiles::NoTensorCores => {
                tracing::info!(
                    weights,
                    ?device,
                    "multiplied without tiles: no tensor cores for them"
                );
            }
            Tiles::Wrong | Tiles::NotTheSame => {
                tracing::warn!(
                    weights,
                    ?device,
                    ?tiles,
                    "multiplied without tiles: the tensor cores failed their check"
                );
            }
        }
    }
}

/// Which shapes of steps a model was warmed up for.
pub(crate) struct WarmShapes {
    warmed: Warmed,
    kind: String,
}

impl WarmShapes {
    /// - `kind`: in words that are the same for models which are computed with alike
    pub(crate) fn new(warmed: Warmed, kind: &str) -> Self {
        Self { warmed, kind: format!("{:016x}", fingerprint(kind)) }
    }

    fn mark(&self, shape: &StepShape) -> String {
        let StepShape { rows, table, reads, scored } = shape;
        format!("step {} {rows} {table} {reads} {scored}", self.kind)
    }

    /// The shapes to run: those that are cold, and a few that each start runs. The largest in each respect
    /// show whether there is memory for them, and the first one that the model computes at all.
    fn cold(&self, shapes: &[StepShape]) -> Vec<StepShape> {
        let most = |of: fn(&StepShape) -> usize| {
            let largest = shapes.iter().map(of).max();
            move |shape: &StepShape| Some(of(shape)) == largest
        };
        let largest =
            [most(|shape| shape.rows), most(|shape| shape.table), most(|shape| shape.scored)];
        let first = shapes.first().copied();
        let runs = |shape: &StepShape| {
            Some(*shape) == first
                || largest.iter().any(|is_largest| is_largest(shape))
                || !self.warmed.has(&self.mark(shape))
        };
        shapes.iter().copied().filter(runs).collect()
    }
}

/// Runs steps of the shapes that jobs will need and that are cold, on a small cache of their own. `go_on` is
/// told, before each, how many are done and how many there are; `false` if it said no. Where steps are
/// left as they come nothing is compiled, and one step fetches the weights.
///
/// # Errors
/// Those of [`LanguageModel::step`].
pub(crate) fn warm_up(
    model: &LanguageModel,
    limits: &ServingLimits,
    (steps, warm): (Steps, &WarmShapes),
    go_on: &dyn Fn(usize, usize) -> bool,
) -> Result<bool, LlmError> {
    let shapes = match steps {
        Steps::AsTheyCome => vec![StepShape { rows: 1, table: 16, reads: false, scored: 1 }],
        Steps::InShapes => warm.cold(&StepShapes::new(limits, model.context_tokens()).warm_up()),
    };
    let n_blocks = shapes.iter().map(StepShape::blocks).max().unwrap_or(0);
    let mut cache = model.new_cache(n_blocks.max(3));
    if steps == Steps::InShapes {
        // Answers that share a prompt make copies, one or several at a time.
        cache.copy_blocks(&[(0, 1)])?;
        cache.copy_blocks(&[(0, 1), (0, 2)])?;
    }
    let all = shapes.len() + 1;
    for (done, shape) in shapes.iter().enumerate() {
        if !go_on(done, all) {
            return Ok(false);
        }
        let (batch, scored) = shape.step();
        model.step(&vec![0; batch.rows()], &batch, &scored, &mut cache)?;
    }
    if steps == Steps::InShapes {
        // A card says only behind its steps whether it could compute them.
        model.settle()?;
        for shape in &shapes {
            warm.warmed.add(&warm.mark(shape));
        }
    }
    if !go_on(all - 1, all) {
        return Ok(false);
    }
    let parts = format!("parts {} {}", warm.kind, limits.rows_per_step);
    if steps == Steps::InShapes && !warm.warmed.has(&parts) {
        model.warm_up_parts(limits.rows_per_step)?;
        model.settle()?;
        warm.warmed.add(&parts);
    }
    Ok(go_on(all, all))
}

#[cfg(test)]
mod tests {
    use neurino_core::SamplingParams;
    use neurino_nn::NnError;

    use super::*;

    #[test]
    fn a_second_start_runs_the_largest_shapes_alone() {
        let shape = |rows, table, scored| StepShape { rows, table, reads: rows > 1, scored };
        let (small, wide) = (shape(1, 16, 1), shape(64, 16, 1));
        let (long, scoring) = (shape(16, 128, 0), shape(8, 16, 8));
        let shapes = vec![small, shape(2, 16, 1), wide, shape(16, 64, 0), long, scoring];
        let warmed = Warmed::default();
        let warm = WarmShapes::new(warmed.clone(), "a model");
        assert_eq!(warm.cold(&shapes), shapes);
        for shape in &shapes {
            warmed.add(&warm.mark(shape));
        }
        assert_eq!(warm.cold(&shapes), [small, wide, long, scoring]);
        let another = WarmShapes::new(warmed, "another");
        assert_eq!(another.cold(&shapes), shapes);
    }

    #[test]
    fn a_lack_of_memory_is_no_verdict_on_a_cards_choices() {
        let of_device = |reason: &str| LlmError::Nn(NnError::Device { reason: reason.into() });
        let code = |checked| verdict(checked).map_err(|error| error.code);
        let lack = Err(EngineErrorCode::OutOfMemory);
        assert_eq!(code(Ok(Err(of_device("out of device memory allocating 9 bytes")))), lack);
        let panic = EngineError::new(EngineErrorCode::OutOfMemory, "the device ran out of memory");
        assert_eq!(code(Err(panic)), lack);
        assert_eq!(code(Ok(Err(of_device("no such kernel")))), Ok(false));
        let (params, fault) = (SamplingParams::default(), "which has no share");
        assert_eq!(code(Ok(Ok(Some(Deviation { params, found: None, fault })))), Ok(false));
        assert_eq!(code(Ok(Ok(None))), Ok(true));
    }
}
