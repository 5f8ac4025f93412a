//! Pictures of the Playground: asks the gateway as any OpenAI-compatible program would, and passes
//! the previews and the picture on.

use std::sync::Arc;
use std::time::Instant;

use neurino_core::{ImageJob, Png, ResultDigest};
use neurino_protocol::app::{Event, PictureUpdate};
use neurino_protocol::{ErrorBody, ErrorCode};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use crate::chat::{EdgeError, Gateway, Lines, broken, request};
use crate::{App, internal, lock};

/// Pictures that may be asked for at once.
const PICTURES_MAX: usize = 8;
/// Longest line of the stream that is accepted, in bytes: a picture of 2048 x 2048 pixels in base64.
const LINE_BYTES_MAX: usize = 32 << 20;
/// Previews that are asked for; OpenAI's own limit.
const PREVIEWS: u32 = 3;

/// How every PNG file begins.
const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// One event of the gateway's stream.
#[derive(Deserialize)]
struct StreamEvent {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    b64_json: Option<Png>,
    #[serde(default)]
    error: Option<EdgeError>,
}

impl App {
    /// Asks for a picture; it follows as [`Event::Picture`].
    pub(crate) fn picture_send(
        self: &Arc<Self>,
        picture: String,
        job: ImageJob,
    ) -> Result<(), ErrorBody> {
        let gateway = self.playground_gateway()?;
        let cancel = CancellationToken::new();
        {
            let mut pictures = lock(&self.pictures);
            if pictures.contains_key(&picture) {
                let words = "This picture is still being made.";
                return Err(ErrorBody::new(ErrorCode::InvalidRequest, words));
            }
            if pictures.len() >= PICTURES_MAX {
                let words = "Too many pictures are being made at once.";
                return Err(ErrorBody::new(ErrorCode::Overloaded, words));
            }
            pictures.insert(picture.clone(), cancel.clone());
        }
        let app = Arc::clone(self);
        self.tasks.spawn(async move {
            let emit = |update: PictureUpdate| {
                // The name is free again before anybody hears that the picture is there.
                if matches!(update, PictureUpdate::Done { .. } | PictureUpdate::Failed { .. }) {
                    lock(&app.pictures).remove(&picture);
                }
                let _ = app.events.send(Event::Picture { picture: picture.clone(), update });
            };
            ask(&gateway, &job, &cancel, emit).await;
        });
        Ok(())
    }

    /// Writes a picture to the person's folder of pictures and says where it lies. The name is made
    /// from the content, so that the same picture is kept once. The file says what it was made with
    /// only if `settings` has that.
    pub(crate) async fn picture_save(
        &self,
        png: Png,
        settings: Option<ImageJob>,
    ) -> Result<String, ErrorBody> {
        let no_picture = || ErrorBody::new(ErrorCode::InvalidRequest, "This is no picture.");
        if !png.0.starts_with(SIGNATURE) || png.0.len() > LINE_BYTES_MAX {
            return Err(no_picture());
        }
        let png = match settings {
            Some(job) => {
                let sampler =
                    self.image_models().remove(&job.model).and_then(|usual| usual.sampler);
                png.with_settings(&job, sampler.as_deref()).ok_or_else(no_picture)?
            }
            None => png,
        };
        let name = ResultDigest(Sha256::digest(&png.0).into()).to_string();
        let folder = self.dirs.pictures.clone();
        let path = folder.join(format!("neurino-{}.png", &name[..12]));
        let shown = path.display().to_string();
        let written = tokio::task::spawn_blocking(move || {
            std::fs::create_dir_all(&folder)?;
            // Whole or not at all under its name.
            let draft = path.with_extension("part");
            std::fs::write(&draft, &png.0)?;
            std::fs::rename(&draft, &path)
        });
        match written.await {
            Ok(Ok(())) => Ok(shown),
            Ok(Err(error)) => Err(internal(format!("{shown} cannot be written: {error}"))
                .with_hint("Check the free space and that you may write there.")),
            Err(_) => Err(internal("the picture could not be written")),
        }
    }

    /// Withdraws a picture's running request, if there is one.
    pub(crate) fn picture_cancel(&self, picture: &str) {
        if let Some(cancel) = lock(&self.pictures).get(picture) {
            cancel.cancel();
        }
    }
}

/// Asks, and hands every step to `emit`; ends with `Done` or `Failed`. Cancelling closes the
/// connection, which withdraws the job.
async fn ask(
    gateway: &Gateway,
    job: &ImageJob,
    cancel: &CancellationToken,
    mut emit: impl FnMut(PictureUpdate),
) {
    let started = Instant::now();
    let last = tokio::select! {
        () = cancel.cancelled() => {
            Err(ErrorBody::new(ErrorCode::Cancelled, "You stopped this picture."))
        }
        result = stream(gateway, job, &mut emit) => result,
    };
    emit(match last {
        Ok(png) => PictureUpdate::Done { png, duration_ms: started.elapsed().as_millis() as u64 },
        Err(error) => PictureUpdate::Failed { error },
    });
}

async fn stream(
    gateway: &Gateway,
    job: &ImageJob,
    emit: &mut impl FnMut(PictureUpdate),
) -> Result<Png, ErrorBody> {
    emit(PictureUpdate::Queued);
    let body = json!({
        "model": job.model,
        "prompt": job.prompt,
        "negative_prompt": job.negative_prompt,
        "size": format!("{}x{}", job.width, job.height),
        "steps": job.steps,
        "guidance": job.guidance,
        "seed": job.seed,
        "stream": true,
        "partial_images": PREVIEWS,
    });
    let answer = request(gateway, "images/generations", &body).await?;
    let mut lines = Lines::new(answer, LINE_BYTES_MAX);
    while let Some(data) = lines.next().await? {
        if data == "[DONE]" {
            break;
        }
        let event: StreamEvent = serde_json::from_str(&data).map_err(|_| broken())?;
        if let Some(error) = event.error {
            return Err(error.into());
        }
        match (event.kind.as_str(), event.b64_json) {
            ("image_generation.completed", Some(png)) => return Ok(png),
            ("image_generation.partial_image", Some(png)) => emit(PictureUpdate::Preview { png }),
            _ => {}
        }
    }
    Err(broken())
}
