//! A streamed picture: previews of the way, then the picture, as OpenAI's server-sent events.

use std::collections::VecDeque;
use std::convert::Infallible;

use axum::response::sse::Event;
use futures::Stream;
use neurino_core::{ImageJob, ImageStep, Png};
use neurino_protocol::ErrorBody;
use serde_json::{Value, json};

use super::request::PictureRequest;
use super::{Picture, file, picture_of, size_name};
use crate::coordinator::now_ms;
use crate::edge::gateway::CancelGuard;
use crate::edge::http::ApiError;
use crate::picture::claimed_size;
use crate::watch::{JobUpdate, JobWatch};

const PARTIAL: &str = "image_generation.partial_image";
const COMPLETED: &str = "image_generation.completed";

/// A picture on its way to a client.
pub(super) struct PictureStream {
    watch: JobWatch,
    guard: Option<CancelGuard>,
    /// What the file of the picture is to say it was made with.
    settings: Option<ImageJob>,
    sampler: Option<String>,
    /// Most previews to send; they are spread over the steps.
    partial_images: u32,
    /// Previews sent so far.
    sent: u32,
    /// Share of the way, in previews, that the next one needs.
    next: u32,
    /// Events and their names; those without one are errors.
    pending: VecDeque<(Option<&'static str>, Value)>,
    done: bool,
}

impl PictureStream {
    /// Waits for the first step, or for the end of a picture that has none, which decides the status.
    pub(super) async fn open(picture: Picture, asked: &PictureRequest) -> Result<Self, ApiError> {
        let Picture { mut watch, guard, job, .. } = picture;
        let first = loop {
            match watch.next().await {
                Some(JobUpdate::Queued | JobUpdate::Leased { .. }) => {}
                Some(JobUpdate::Failed(error)) => return Err(ApiError::openai(error)),
                Some(update) => break update,
                None => return Err(ApiError::openai(crate::error::shutting_down())),
            }
        };
        let mut stream = Self {
            watch,
            guard: Some(guard),
            settings: asked.embed_settings.then_some(job),
            sampler: asked.sampler.clone(),
            partial_images: asked.partial_images,
            sent: 0,
            next: 1,
            pending: VecDeque::new(),
            done: false,
        };
        stream.take(first);
        Ok(stream)
    }

    pub(super) fn into_events(self) -> impl Stream<Item = Result<Event, Infallible>> + Send {
        futures::stream::unfold(self, |mut stream| async move {
            loop {
                if let Some((name, data)) = stream.pending.pop_front() {
                    if let Some(guard) = stream.guard.as_mut().filter(|_| name.is_some()) {
                        guard.delivered();
                    }
                    let event = Event::default().data(data.to_string());
                    return Some((
                        Ok(name.map_or(event.clone(), |name| event.event(name))),
                        stream,
                    ));
                }
                if stream.done {
                    return None;
                }
                match stream.watch.next().await {
                    Some(update) => stream.take(update),
                    None => stream.fail(crate::error::shutting_down()),
                }
            }
        })
    }

    fn take(&mut self, update: JobUpdate) {
        match update {
            // Another attempt makes the same picture again: what was sent stays right.
            JobUpdate::Queued | JobUpdate::Leased { .. } | JobUpdate::Delta(_) => {}
            JobUpdate::Step(step) => self.preview(step),
            JobUpdate::Failed(error) => self.fail(error),
            JobUpdate::Finished { output, .. } => match picture_of(output) {
                Ok(picture) => {
                    let size = size_name(picture.width, picture.height);
                    let (settings, sampler) = (self.settings.as_ref(), self.sampler.as_deref());
                    let png = file(picture, settings, sampler);
                    self.send(COMPLETED, &png, &size, None);
                    self.done = true;
                    if let Some(guard) = self.guard.take() {
                        guard.disarm();
                    }
                }
                Err(error) => self.fail(error),
            },
        }
    }

    /// Sends a preview if one is due: the way has as many marks as there are previews, evenly spread.
    fn preview(&mut self, step: ImageStep) {
        let Some(png) = step.preview else { return };
        let passed = step.step * (self.partial_images + 1) / step.steps.max(1);
        if passed < self.next || self.sent == self.partial_images {
            return;
        }
        self.next = passed + 1;
        let size =
            claimed_size(&png).map_or(String::new(), |(width, height)| size_name(width, height));
        self.send(PARTIAL, &png, &size, Some(self.sent));
        self.sent += 1;
    }

    fn send(&mut self, name: &'static str, png: &Png, size: &str, index: Option<u32>) {
        let mut data = json!({
            "type": name,
            "b64_json": png,
            "created_at": now_ms() / 1000,
            "size": size,
            "background": "opaque",
            "output_format": "png",
            "quality": "auto",
        });
        if let Some(index) = index {
            data["partial_image_index"] = json!(index);
        }
        self.pending.push_back((Some(name), data));
    }

    /// Ends the stream with an error, and withdraws what is left of the job.
    fn fail(&mut self, error: ErrorBody) {
        self.pending.push_back((None, ApiError::openai(error).openai_json()));
        self.done = true;
        if let Some(guard) = self.guard.take() {
            guard.withdraw();
        }
    }
}
