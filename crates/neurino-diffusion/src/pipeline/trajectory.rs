//! The way of one picture through its noise schedule, all of it on the device.
//!
//! Nothing is read back on the way. What a step needs of the host - a few numbers of the schedule, the noise
//! that it adds - is sent before its first launch ([`Trajectory::inputs`]); all launches after that are the
//! same in every step.
//!
//! A card is given a step while it still computes the one before, and no more than that: a step returns when
//! the card is through with the one before it. So a picture that is given up leaves at most one step to
//! compute, and [`Trajectory::computed`] counts what is done. A step that fails on the card is heard of one
//! step later; the picture is then where it was before it, and may go on from there another way.

use burn::tensor::{Device, Tensor};
use neurino_nn::device::upload;
use neurino_nn::{Fence, NnError};

use super::LatentShape;
use crate::DiffusionError;
use crate::rng::TorchRng;
use crate::scheduler::{Coefficients, NoiseScheduler, Sample};

/// Waits until a device is through with a step.
type Arrival = Box<dyn FnOnce() -> Result<(), NnError> + Send>;

/// A picture's latents and its schedule.
pub(super) struct Trajectory {
    scheduler: Box<dyn NoiseScheduler + Send>,
    shape: LatentShape,
    device: Device,
    /// Whether each step is waited for and its clean sample kept, for previews.
    watched: bool,
    /// Where the picture is once the device is through with what it was given.
    here: Place,
    /// The last step, if the device may not be through with it, and where the picture was before it.
    under_way: Option<(Arrival, Place)>,
}

/// A place on the way.
#[derive(Clone)]
struct Place {
    /// Steps behind it.
    done: usize,
    sample: Sample,
    /// Of the last step: what the model gave, guided.
    output: Option<Tensor<1>>,
    /// The sample without its noise, as the last step saw it; kept for previews alone.
    clean: Option<Tensor<1>>,
    rng: TorchRng,
}

/// What is different from step to step, on the device.
pub(super) struct StepInputs {
    coefficients: Coefficients,
    /// `[values]`, where the schedule adds noise.
    noise: Option<Tensor<1>>,
    /// The generator, once it has drawn that.
    rng: TorchRng,
}

impl Trajectory {
    /// The way of a picture that is all noise: unit noise times the schedule's start.
    ///
    /// - `latents`: `[values]`, in the order in which the model puts out `shape`
    /// - `rng`: what the noise of steps is drawn from
    /// - `watched`: whether previews are wanted
    pub(super) fn new(
        scheduler: Box<dyn NoiseScheduler + Send>,
        shape: LatentShape,
        latents: Tensor<1>,
        rng: TorchRng,
        watched: bool,
    ) -> Self {
        let device = latents.device();
        let sample = scheduler.start(latents);
        let here = Place { done: 0, sample, output: None, clean: None, rng };
        Self { scheduler, shape, device, watched, here, under_way: None }
    }

    /// All steps.
    pub(super) fn steps(&self) -> usize {
        self.scheduler.timesteps().len()
    }

    /// Steps that the device was given.
    pub(super) fn done(&self) -> usize {
        self.here.done
    }

    /// Steps that the device is through with.
    pub(super) fn computed(&self) -> usize {
        self.under_way.as_ref().map_or(self.here.done, |(_, before)| before.done)
    }

    /// The model's time in the next step, and its noise level. `None` after the last.
    pub(super) fn upcoming(&self) -> Option<(f64, f32)> {
        let time = self.scheduler.timesteps().get(self.here.done)?;
        Some((*time, self.scheduler.sigmas()[self.here.done]))
    }

    /// Sends the device what the next step needs of the host.
    pub(super) fn inputs(&self) -> StepInputs {
        let coefficients = self.scheduler.coefficients(self.here.done);
        let mut rng = self.here.rng.clone();
        // The reference draws for every step, the last included.
        let noise = self.scheduler.needs_noise().then(|| {
            let noise = rng.randn(self.shape.count(), self.scheduler.noise_dtype());
            upload(self.shape.channels_last(&noise), [noise.len()], &self.device)
        });
        let coefficients = Coefficients::upload(&coefficients, &self.device);
        StepInputs { coefficients, noise, rng }
    }

    /// The model's input in the next step: `[values]`.
    pub(super) fn input(&self, step: &StepInputs) -> Tensor<1> {
        self.scheduler.scale_model_input(self.here.sample.values.clone(), &step.coefficients)
    }

    /// Goes the next step by the model's `output`, and waits for the one before.
    pub(super) fn go(&mut self, output: Tensor<1>, step: StepInputs) -> Result<(), DiffusionError> {
        let next = self.after(output, step);
        let fence = Fence::behind(&next.sample.values)?;
        let arrival = (!fence.is_reached()).then(|| Box::new(move || fence.wait()) as Arrival);
        self.hand_over(next, arrival)
    }

    /// Where a step leads by the model's `output`.
    fn after(&self, output: Tensor<1>, step: StepInputs) -> Place {
        let StepInputs { coefficients, noise, rng } = step;
        let sample = self.here.sample.clone();
        let clean = || self.scheduler.clean(output.clone(), sample.values.clone(), &coefficients);
        let clean = self.watched.then(clean);
        let sample = self.scheduler.step(output.clone(), sample, noise, &coefficients);
        Place { done: self.here.done + 1, sample, output: Some(output), clean, rng }
    }

    /// Goes on to a place that the device was told the way to. Without an `arrival` it is there.
    fn hand_over(&mut self, next: Place, arrival: Option<Arrival>) -> Result<(), DiffusionError> {
        let last = self.under_way.take();
        let before = std::mem::replace(&mut self.here, next);
        self.under_way = arrival.map(|arrival| (arrival, before));
        self.arrived(last)?;
        // A preview would wait as well, and behind the last step there is nothing to overlap with.
        if self.watched || self.here.done == self.steps() { self.settle() } else { Ok(()) }
    }

    /// Waits until the device is through with all that it was given.
    fn settle(&mut self) -> Result<(), DiffusionError> {
        let last = self.under_way.take();
        self.arrived(last)
    }

    /// Waits for a step. If it failed, what was computed from it is worth nothing either.
    fn arrived(&mut self, step: Option<(Arrival, Place)>) -> Result<(), DiffusionError> {
        let Some((arrival, before)) = step else { return Ok(()) };
        arrival().map_err(|error| {
            self.under_way = None;
            self.here = before;
            error.into()
        })
    }

    /// The latents: `[values]`.
    pub(super) fn latents(&self) -> Tensor<1> {
        self.here.sample.values.clone()
    }

    /// What the model gave in the last step, guided: `[values]`.
    pub(super) fn output(&self) -> Option<Tensor<1>> {
        self.here.output.clone()
    }

    /// The latents without the noise that is still in them, as far as is known: `[values]`.
    pub(super) fn clean(&self) -> Tensor<1> {
        self.here.clean.clone().unwrap_or_else(|| self.latents())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use neurino_nn::device::download;

    use super::*;
    use crate::scheduler::{DiscreteSchedule, Method};

    const STEPS: usize = 4;

    /// A picture of 20 values, whose schedule adds noise.
    fn trajectory(watched: bool) -> Trajectory {
        let schedule = DiscreteSchedule::stable_diffusion();
        let method = Method::named("dpmpp_2m_sde_karras").unwrap();
        let scheduler = method.scheduler(&schedule, STEPS).unwrap();
        let shape = LatentShape { channels: 4, height: 1, width: 5 };
        let latents = upload(vec![0.5; shape.count()], [shape.count()], &Device::flex());
        Trajectory::new(scheduler, shape, latents, TorchRng::new(3), watched)
    }

    /// Goes a step of a model that finds a tenth of its input, on a device that arrives as it is told.
    fn go(trajectory: &mut Trajectory, arrival: Option<Arrival>) -> Result<(), DiffusionError> {
        let step = trajectory.inputs();
        let output = trajectory.input(&step).mul_scalar(0.1);
        let next = trajectory.after(output, step);
        trajectory.hand_over(next, arrival)
    }

    /// A device that arrives, and counts that it was waited for.
    fn arrives(waits: &Arc<AtomicUsize>) -> Arrival {
        let waits = Arc::clone(waits);
        Box::new(move || {
            waits.fetch_add(1, Ordering::SeqCst);
            Ok(())
        })
    }

    fn fails() -> Arrival {
        Box::new(|| Err(NnError::Device { reason: "out of device memory".into() }))
    }

    #[test]
    fn a_device_is_at_most_one_step_behind() {
        for watched in [false, true] {
            let waits = Arc::new(AtomicUsize::new(0));
            let mut way = trajectory(watched);
            for step in 1..=STEPS {
                assert_eq!(
                    way.upcoming().map(|(time, _)| time),
                    Some(way.scheduler.timesteps()[step - 1])
                );
                go(&mut way, Some(arrives(&waits))).unwrap();
                let computed = if watched || step == STEPS { step } else { step - 1 };
                assert_eq!((way.done(), way.computed()), (step, computed), "{watched}");
                assert_eq!(waits.load(Ordering::SeqCst), computed, "{watched}");
            }
            assert!(way.upcoming().is_none());
        }
        // A device that computes at once is not behind at all.
        let mut way = trajectory(false);
        go(&mut way, None).unwrap();
        assert_eq!((way.done(), way.computed()), (1, 1));
    }

    #[test]
    fn after_a_step_that_failed_a_picture_goes_on_from_before_it() {
        let end = |way: &Trajectory| download(way.latents()).unwrap();
        let mut smooth = trajectory(false);
        for _ in 0..STEPS {
            go(&mut smooth, None).unwrap();
        }
        for failing in 1..=STEPS {
            let waits = Arc::new(AtomicUsize::new(0));
            let mut way = trajectory(false);
            for _ in 1..failing {
                go(&mut way, Some(arrives(&waits))).unwrap();
            }
            let told = go(&mut way, Some(fails()));
            // The last step is waited for at once, the others when the next one is on its way.
            let told = if failing == STEPS {
                told
            } else {
                told.and_then(|()| go(&mut way, Some(arrives(&waits))))
            };
            assert!(told.unwrap_err().to_string().contains("device"), "{failing}");
            assert_eq!((way.done(), way.computed()), (failing - 1, failing - 1));
            while way.upcoming().is_some() {
                go(&mut way, Some(arrives(&waits))).unwrap();
            }
            assert_eq!(end(&way), end(&smooth), "{failing}");
        }
    }
}
