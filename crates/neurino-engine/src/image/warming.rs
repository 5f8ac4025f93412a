//! Pictures that are made and thrown away before a job begins, so that what it is paid and measured for
//! is not the card's tuning.

use std::cell::Cell;

use neurino_core::{ImageJob, ModelId};
use neurino_diffusion::pipeline::{Guidance, Plan};

use super::{Pictures, computing};
use crate::api::{EngineError, EngineErrorCode};
use crate::queue::Job;
use crate::warm_pictures;

/// The stages of a warm picture that a lack of memory may end.
const STEP: usize = 1;
const DECODER: usize = 2;

impl Pictures {
    /// Warms the device up for a job's picture, unless it is warm for its class. Where there turns out to
    /// be less memory than was planned, `plan` becomes the cheaper one that it is warm for then.
    ///
    /// # Errors
    /// `OutOfMemory` if no cheaper plan is left, `Cancelled`; those that the job itself would meet.
    pub(super) fn warm_for(
        &mut self,
        picture: &ImageJob,
        job: &Job,
        plan: &mut Plan,
    ) -> Result<(), EngineError> {
        loop {
            let Err((stage, error)) = self.warm(picture, *plan, job.watch()) else { return Ok(()) };
            let cheaper = match stage {
                _ if error.code != EngineErrorCode::OutOfMemory => None,
                STEP if plan.guidance == Guidance::Together && picture.guidance > 1.0 => {
                    Some(Plan { guidance: Guidance::InTurn, ..*plan })
                }
                DECODER => plan.decoding.smaller().map(|decoding| Plan { decoding, ..*plan }),
                _ => None,
            };
            let Some(cheaper) = cheaper else { return Err(error) };
            tracing::warn!(?cheaper, "a warm-up had too little memory: {error}");
            self.device.memory_cleanup();
            *plan = cheaper;
        }
    }

    /// Warms the device up for the picture that the model is usually asked for, after its low-rank updates
    /// changed. What fails there is left to the job that meets it.
    ///
    /// - `unwanted`: whether the model is not wanted any more
    pub(crate) fn warm_usual(
        &mut self,
        model: &ModelId,
        unwanted: impl Fn() -> bool + Send + 'static,
    ) {
        let Some((_, usual)) = &self.warmth else { return };
        let (job, plan) = (usual.job(model), usual.plan);
        if let Err((_, error)) = self.warm(&job, plan, unwanted) {
            tracing::warn!("the card is not warm for the model's updates: {error}");
            self.device.memory_cleanup();
        }
    }

    /// A picture was made, so that its class is warm however it began.
    pub(super) fn mark_warm(&self, picture: &ImageJob, plan: Plan) {
        if let (Some((warmth, _)), Some(pipeline)) = (&self.warmth, &self.pipeline)
            && let Ok(mark) = warmth.mark(pipeline.as_ref(), picture, plan)
        {
            warmth.add(&mark);
        }
    }

    /// Makes one step of a picture of the class of `picture`, if it is cold. A failure comes with the stage
    /// that it ended.
    fn warm(
        &mut self,
        picture: &ImageJob,
        plan: Plan,
        unwanted: impl Fn() -> bool + Send + 'static,
    ) -> Result<(), (usize, EngineError)> {
        let (Some((warmth, _)), Some(pipeline)) = (&self.warmth, &mut self.pipeline) else {
            return Ok(());
        };
        let reached = Cell::new(0);
        let made = computing("warming up for a picture", || {
            let mark = warmth.mark(pipeline.as_ref(), picture, plan)?;
            if warmth.has(&mark) {
                return Ok(());
            }
            tracing::info!(mark, "warming up for a picture");
            let one = ImageJob { steps: 1, seed: 0, preview: false, ..picture.clone() };
            let go_on = |stage| {
                reached.set(stage);
                true
            };
            let make = || warm_pictures::make(pipeline.as_mut(), &one, plan, &go_on);
            self.pulse.during(unwanted, make)?;
            warmth.add(&mark);
            Ok(())
        });
        made.map_err(|error| (reached.get(), error))
    }
}
