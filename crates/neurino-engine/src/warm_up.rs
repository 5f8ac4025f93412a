//! What a device does for the first time is slow: kernels are compiled, chosen and loaded. It is done
//! here, while the model is being loaded, and never inside a job that somebody pays for.

use neurino_llm::LlmError;
use neurino_llm::model::LanguageModel;
use neurino_llm::self_check;
use neurino_llm::serving::{ServingLimits, StepShape, StepShapes};

use crate::fault;
use crate::serving::Steps;

/// The model with its device's choices of tokens held to the host's. Where one is wrong, all tokens
/// are drawn on the host, as slow as that is: a card must never give wrong ones.
pub(crate) fn prove_choices(model: LanguageModel) -> LanguageModel {
    if !model.chooses() {
        return model;
    }
    let check = || self_check::choices(&model, &mut model.new_cache(self_check::BLOCKS));
    let wrong = match fault::guarded("the check of the card's choices", check) {
        Err(fault) => fault.to_string(),
        Ok(Ok(None)) => {
            tracing::info!("the card chooses tokens as the host does");
            return model;
        }
        Ok(Ok(Some(deviation))) => deviation.to_string(),
        Ok(Err(error)) => fault::chain(&error),
    };
    tracing::warn!(wrong, "tokens are drawn on the host, because the card chose wrongly");
    model.drawing_on_host()
}

/// Runs steps of every shape that jobs will need, on a small cache of their own. `go_on` is told,
/// before each, how many are done and how many there are; `false` if it said no. Where steps are
/// left as they come nothing is compiled, and one step fetches the weights.
///
/// # Errors
/// Those of [`LanguageModel::step`].
pub(crate) fn warm_up(
    model: &LanguageModel,
    limits: &ServingLimits,
    steps: Steps,
    go_on: &dyn Fn(usize, usize) -> bool,
) -> Result<bool, LlmError> {
    let shapes = match steps {
        Steps::AsTheyCome => vec![StepShape { rows: 1, table: 16, reads: false, scored: 1 }],
        Steps::InShapes => StepShapes::new(limits, model.context_tokens()).warm_up(),
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
    if !go_on(all - 1, all) {
        return Ok(false);
    }
    if steps == Steps::InShapes {
        model.warm_up_parts(limits.rows_per_step)?;
    }
    Ok(go_on(all, all))
}
