//! Image jobs from admission to payment, and their files.

use std::path::Path;
use std::time::{Duration, SystemTime};

use axum::http::{Method, StatusCode};
use neurino_coordinator::{Coordinator, JobUpdate, Limits, PayerId};
use neurino_core::{
    ImageDefaults, ImageJob, ImageOutput, ImageStep, JobId, JobOutput, JobSpec, Lease, MicroPoints,
    ModelId, Png, PointsKind, Usage,
};
use neurino_protocol::ErrorCode;
use neurino_protocol::node::{ModelOffer, NodeMessage, PREVIEW_BYTES_MAX, Ready};
use serde_json::Value;

use crate::node::{Identity, Node, output};
use crate::world::{World, eventually, short_limits};

/// An image model of somebody's own: nothing but its node knows it.
pub(crate) const PAINTER: &str = "my-painter";

pub(crate) fn usual() -> ImageDefaults {
    ImageDefaults {
        width: 64,
        height: 48,
        steps: 4,
        guidance: 5.5,
        side_multiple: 8,
        negative_prompt: "blurry".into(),
        sampler: Some("DPM++ 2M SDE Karras".into()),
    }
}

pub(crate) fn job(seed: u64) -> ImageJob {
    let model = ModelId::new(PAINTER).unwrap();
    ImageJob { seed, ..usual().job(model, "a lighthouse") }
}

/// A PNG file as the reference encoder writes it.
pub(crate) fn png_of(width: u32, height: u32, color: png::ColorType, shade: u8) -> Png {
    png_by(width, height, color, |n| shade.wrapping_add((n % 251) as u8))
}

/// One of a single colour.
pub(crate) fn flat(width: u32, height: u32, shade: u8) -> Png {
    png_by(width, height, png::ColorType::Rgb, |_| shade)
}

pub(crate) fn png_of_pixels(width: u32, height: u32, pixels: &[u8]) -> Png {
    png_by(width, height, png::ColorType::Rgb, |n| pixels[n])
}

fn png_by(width: u32, height: u32, color: png::ColorType, sample: impl Fn(usize) -> u8) -> Png {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(color);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().unwrap();
    let samples = (width * height) as usize * color.samples();
    let pixels: Vec<u8> = (0..samples).map(sample).collect();
    writer.write_image_data(&pixels).unwrap();
    writer.finish().unwrap();
    Png(file)
}

pub(crate) fn picture(job: &ImageJob) -> JobOutput {
    // No two seeds make the same picture, nor nearly the same.
    let (seed, row) = (job.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), 3 * job.width as usize);
    let sample = |n: usize| {
        let block = (n / row / 8 * 16 + n % row / 24) as u64;
        (seed.wrapping_add(block).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 56) as u8
    };
    let png = png_by(job.width, job.height, png::ColorType::Rgb, sample);
    JobOutput::Image(ImageOutput { png, width: job.width, height: job.height })
}

/// The largest file that the picture of a job can have.
pub(crate) fn noise(job: &ImageJob) -> JobOutput {
    let (width, height) = (job.width, job.height);
    let mut bytes = vec![0; (width * height * 3) as usize];
    rand::RngCore::fill_bytes(&mut rand::rng(), &mut bytes);
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_compression(png::Compression::NoCompression);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&bytes).unwrap();
    writer.finish().unwrap();
    JobOutput::Image(ImageOutput { png: Png(file), width, height })
}

pub(crate) fn asked(lease: &Lease) -> &ImageJob {
    match &lease.spec {
        JobSpec::Image(job) => job,
        JobSpec::Text(_) => panic!("a text job"),
    }
}

/// A new node that paints so many pictures at once.
pub(crate) async fn painter(coordinator: &std::sync::Arc<Coordinator>, slots: u32) -> Node {
    let node = Identity::new("brush").connect(coordinator).await;
    offer(&node, Some(usual()), slots).await;
    eventually("the painter is known", async || {
        let painter = ModelId::new(PAINTER).unwrap();
        coordinator.jobs_overview().models.get(&painter).is_some_and(|nodes| *nodes > 0)
    })
    .await;
    node
}

pub(crate) async fn offer(node: &Node, image: Option<ImageDefaults>, slots: u32) {
    let models = vec![ModelOffer { id: ModelId::new(PAINTER).unwrap(), image }];
    node.say(NodeMessage::Ready(Ready::new(models, slots))).await;
}

async fn submit(world: &World, seed: u64) -> JobId {
    let spec = JobSpec::Image(job(seed));
    world.coordinator.submit_job(PayerId::local(), None, spec).await.unwrap()
}

pub(crate) fn progress(lease: &Lease, step: u32, preview: Option<Png>) -> NodeMessage {
    let step = Some(ImageStep { step, steps: asked(lease).steps, preview });
    NodeMessage::Progress { lease: lease.id, deltas: Vec::new(), tokens: 0, step }
}

pub(crate) async fn step(node: &Node, lease: &Lease, step: u32, preview: Option<Png>) {
    node.say(progress(lease, step, preview)).await;
}

#[tokio::test]
async fn a_picture_is_made_paid_in_waifu_points_and_kept() {
    let mut world = World::new().await;
    let mut node = painter(&world.coordinator, 1).await;
    let spec = serde_json::to_string(&JobSpec::Image(job(7))).unwrap();
    let (status, body) =
        world.send(Method::POST, "/v1/jobs", Some(&world.api_key), &[], spec).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{body}");
    let path = format!("/v1/jobs/{}", body["id"].as_str().unwrap());
    let lease = node.lease().await;
    let limits = Limits::default();
    assert_eq!((lease.points, asked(&lease)), (PointsKind::Waifu, &job(7)));
    assert!(lease.budget_ms <= limits.picture_budget_ms(asked(&lease)));
    assert!(lease.budget_ms > limits.picture_budget_ms(asked(&lease)) - 5_000);
    node.submit(&lease, picture(&job(7))).await;
    let receipt = node.settled().await;
    let units = 64 * 48 * 4;
    assert_eq!((receipt.quote.units, receipt.usage), (units, Usage::default()));
    let micro = i64::from(units) * 1_000_000 / (512 * 512 * 20);
    assert_eq!(receipt.quote.amount_micro, MicroPoints(micro));
    assert_eq!(lease.quote_micro, receipt.quote.amount_micro, "the price was known before");
    let points = world.coordinator.points(&node.identity.id, 0).await.unwrap();
    assert_eq!((points.waifu_total, points.waifu_today), (MicroPoints(micro), MicroPoints(micro)));
    assert_eq!((points.llama_total, points.jobs_total), (MicroPoints(0), 1));
    // The file has the picture, the books do not, and a restart changes nothing.
    let expected = serde_json::to_value(picture(&job(7))).unwrap();
    for _ in 0..2 {
        let (_, shown) = world.call(Method::GET, &path, Value::Null).await;
        assert_eq!(shown["output"], expected);
        let watch = world.coordinator.watch_job(receipt.job).await;
        assert_eq!(watch.unwrap().finished().await.unwrap().0, picture(&job(7)));
        world.restart().await;
    }
    let JobOutput::Image(made) = picture(&job(7)) else { unreachable!("a picture") };
    let [file] = &files(&world)[..] else { panic!("one file") };
    assert!(file.len() > made.png.0.len(), "it is all there");
    assert!(!contains(file, &made.png.0) && !contains(file, b"\x89PNG"), "and sealed");
    // Where a server keeps the books, there are no such files.
    for books in [world.file(), world.file().with_extension("sqlite-wal")] {
        let books = std::fs::read(books).unwrap_or_default();
        assert!(!contains(&books, String::from(made.png.clone()).as_bytes()));
    }
    world.assert_books_hold().await;
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(64.min(part.len())).any(|window| part.starts_with(window))
}

/// The kept pictures' files.
fn files(world: &World) -> Vec<Vec<u8>> {
    let folder = world.file().with_file_name("practice-pictures");
    let Ok(files) = std::fs::read_dir(folder) else { return Vec::new() };
    files.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
}

/// Hands in a result and expects its refusal.
async fn check(output: JobOutput, words: &str) {
    let limits = Limits { failures_max: 1, ..short_limits() };
    let world = World::with(limits).await;
    let mut node = painter(&world.coordinator, 1).await;
    let job = submit(&world, 1).await;
    let lease = node.lease().await;
    node.submit(&lease, output).await;
    let refusal = node.hear().await;
    let neurino_protocol::node::CoordinatorMessage::Rejected { error, .. } = &refusal else {
        panic!("{words}: {refusal:?}")
    };
    assert_eq!(error.code, ErrorCode::InvalidRequest, "{words}");
    assert!(error.message.contains(words), "{words}: {error}");
    let mut watch = world.coordinator.watch_job(job).await.unwrap();
    assert_eq!(watch.finished().await.unwrap_err().code, ErrorCode::EngineFailed);
    let check = world.coordinator.ledger_check().await.unwrap();
    assert_eq!((check.receipts, check.balances.len(), files(&world).len()), (0, 0, 0), "{words}");
}

fn as_result(png: Png) -> JobOutput {
    JobOutput::Image(ImageOutput { png, width: 64, height: 48 })
}

fn good() -> Vec<u8> {
    png_of(64, 48, png::ColorType::Rgb, 1).0
}

/// A chunk with its sum.
fn chunk(kind: [u8; 4], data: &[u8]) -> Vec<u8> {
    let mut crc = flate2::Crc::new();
    crc.update(&kind);
    crc.update(data);
    let length = u32::try_from(data.len()).unwrap().to_be_bytes();
    [&length[..], &kind, data, &crc.sum().to_be_bytes()].concat()
}

/// A file of the job's size whose pixels are this packed stream.
fn packed(stream: &[u8]) -> JobOutput {
    let mut file = good();
    file.truncate(8 + 25);
    file.extend(chunk(*b"IDAT", stream));
    file.extend(chunk(*b"IEND", b""));
    as_result(Png(file))
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn a_result_of_another_kind_or_size_is_not_paid() {
    check(output("a lighthouse", 3), "another kind").await;
    let other = ImageJob { width: 48, height: 64, ..job(1) };
    check(picture(&other), "another size").await;
    // The file is what counts, not what is said of it.
    check(as_result(png_of(48, 64, png::ColorType::Rgb, 1)), "another size").await;
    check(as_result(png_of(64, 48, png::ColorType::Rgba, 1)), "8-bit RGB").await;
    check(as_result(png_of(64, 48, png::ColorType::Grayscale, 1)), "8-bit RGB").await;
}

#[tokio::test]
async fn what_is_no_whole_png_is_not_paid() {
    check(as_result(Png(b"GIF89a".to_vec())), "not a PNG").await;
    check(as_result(Png(Vec::new())), "not a PNG").await;
    let cut = good();
    check(as_result(Png(cut[..cut.len() - 12].to_vec())), "ends before its end").await;
    check(as_result(Png([good(), b"more".to_vec()].concat())), "behind its end").await;
    let mut flipped = good();
    flipped[60] ^= 1;
    check(as_result(Png(flipped)), "damaged").await;
    let mut file = good();
    let secret = chunk(*b"tEXt", b"Comment\0who made it, and where");
    file.splice(33..33, secret);
    check(as_result(Png(file)), "more than its pixels").await;
    let rows = vec![0; 48 * (1 + 3 * 64)];
    check(packed(&[deflate(&rows), b"hidden".to_vec()].concat()), "behind its pixels").await;
    check(packed(&deflate(&rows[1..])), "fewer pixels").await;
    let mut filter = rows.clone();
    filter[193] = 5;
    check(packed(&deflate(&filter)), "rows are damaged").await;
}

#[tokio::test]
async fn a_file_that_unpacks_to_far_more_is_refused() {
    let bomb = deflate(&vec![0; 1 << 28]);
    assert!(bomb.len() < 1 << 20);
    check(packed(&bomb), "more pixels").await;
}

#[tokio::test]
async fn the_largest_picture_that_nothing_shortens_is_paid() {
    let world = World::new().await;
    let mut node = painter(&world.coordinator, 1).await;
    let side = ImageJob::SIDE_MAX;
    let large = ImageJob { width: side, height: side, ..job(3) };
    let spec = JobSpec::Image(large);
    world.coordinator.submit_job(PayerId::local(), None, spec).await.unwrap();
    let lease = node.lease().await;
    let submission = NodeMessage::Submit(node.identity.submission(&lease, noise(asked(&lease))));
    let size = serde_json::to_vec(&submission).unwrap().len();
    assert!(size < neurino_protocol::node::SUBMIT_BYTES_MAX, "{size} bytes");
    node.say(submission).await;
    assert_eq!(node.settled().await.quote.units, side * side * 4);
}

#[tokio::test]
async fn previews_reach_who_asked_for_them_and_nobody_else() {
    let world = World::new().await;
    let mut node = painter(&world.coordinator, 1).await;
    let small = |shade| png_of(8, 6, png::ColorType::Rgb, shade);
    for preview in [true, false] {
        let spec = JobSpec::Image(ImageJob { preview, ..job(1) });
        let id = world.coordinator.submit_job(PayerId::local(), None, spec).await.unwrap();
        let mut watch = world.coordinator.watch_job(id).await.unwrap();
        let lease = node.lease().await;
        let mut next = async || loop {
            match watch.next().await {
                Some(JobUpdate::Queued | JobUpdate::Leased { .. }) => {}
                Some(JobUpdate::Step(step)) => return (step.step, step.steps, step.preview),
                other => panic!("{other:?}"),
            }
        };
        step(&node, &lease, 1, Some(small(1))).await;
        assert_eq!(next().await, (1, 4, preview.then(|| small(1))));
        // What is no small picture is not passed on, the step is.
        step(&node, &lease, 2, Some(Png(vec![0; 9]))).await;
        assert_eq!(next().await, (2, 4, None));
        step(&node, &lease, 3, Some(png_of(65, 6, png::ColorType::Rgb, 1))).await;
        assert_eq!(next().await, (3, 4, None));
        // Steps back, and beyond the end, are none.
        step(&node, &lease, 1, None).await;
        step(&node, &lease, 5, None).await;
        step(&node, &lease, 4, Some(Png(vec![0; PREVIEW_BYTES_MAX + 1]))).await;
        assert_eq!(next().await, (4, 4, None));
        node.submit(&lease, picture(asked(&lease))).await;
        node.settled().await;
    }
}

#[tokio::test]
async fn a_model_is_what_its_first_node_says() {
    let world = World::new().await;
    let mut first = painter(&world.coordinator, 1).await;
    // The same name for something that writes text, and an impossible size.
    let other = Identity::new("pen").connect(&world.coordinator).await;
    offer(&other, None, 1).await;
    let senseless = Identity::new("fool").connect(&world.coordinator).await;
    offer(&senseless, Some(ImageDefaults { width: 65, ..usual() }), 1).await;
    let text = crate::world::spec(PAINTER, "hi");
    let refused = world.coordinator.submit_job(PayerId::local(), None, text).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::InvalidRequest);
    assert!(refused.to_string().contains("/v1/images/generations"), "{refused}");
    for _ in 0..3 {
        submit(&world, 1).await;
        let lease = first.lease().await;
        first.submit(&lease, picture(&job(1))).await;
        first.settled().await;
    }
    let models = world.coordinator.jobs_overview().models;
    assert_eq!(models[&ModelId::new(PAINTER).unwrap()], 1, "the others serve something else");
}

#[tokio::test]
async fn a_picture_goes_with_its_job_and_garbage_goes_once_it_is_an_hour_old() {
    let limits = Limits { payload_keep_ms: 3_600_000, ..short_limits() };
    let mut world = World::with(limits).await;
    let mut node = painter(&world.coordinator, 1).await;
    submit(&world, 1).await;
    let lease = node.lease().await;
    node.submit(&lease, picture(&job(1))).await;
    let receipt = node.settled().await;
    let kept = files(&world);
    assert_eq!(kept.len(), 1);
    // As a crash between the file and its payment leaves it.
    let folder = world.file().with_file_name("practice-pictures");
    std::fs::write(folder.join(format!("{}.png", "0".repeat(64))), "unpaid").unwrap();
    std::fs::write(folder.join(".writing-abc"), "half").unwrap();
    // What another coordinator on the same folder may be about to pay for.
    let young = format!("{}.png", "1".repeat(64));
    age_all(&folder);
    std::fs::write(folder.join(&young), "just written").unwrap();
    world.restart().await;
    let left = sorted([kept, vec![b"just written".to_vec()]].concat());
    eventually("the garbage is gone", async || sorted(files(&world)) == left).await;
    std::fs::remove_file(folder.join(young)).unwrap();
    world.forget_payloads().await;
    eventually("the picture is gone", async || files(&world).is_empty()).await;
    let gone = world.coordinator.watch_job(receipt.job).await.map(drop).unwrap_err();
    assert_eq!(gone.code, ErrorCode::PayloadShredded);
    world.assert_books_hold().await;
}

/// Makes all files of a folder two hours old.
fn age_all(folder: &Path) {
    let old = SystemTime::now() - Duration::from_hours(2);
    for file in std::fs::read_dir(folder).unwrap() {
        let file = std::fs::File::options().write(true).open(file.unwrap().path()).unwrap();
        file.set_modified(old).unwrap();
    }
}

fn sorted(mut files: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    files.sort();
    files
}

#[tokio::test]
async fn a_kept_picture_is_not_paid_again_for_another_seed() {
    let world = World::new().await;
    let mut node = painter(&world.coordinator, 1).await;
    let ask = async |seed| {
        let spec = JobSpec::Image(job(seed));
        world.coordinator.submit_job(PayerId::local(), None, spec).await.unwrap()
    };
    ask(1).await;
    let lease = node.lease().await;
    let kept = picture(asked(&lease));
    node.submit(&lease, kept.clone()).await;
    node.settled().await;
    ask(2).await;
    let lease = node.lease().await;
    node.submit(&lease, kept.clone()).await;
    assert_eq!(node.rejected().await, ErrorCode::InvalidRequest);
    let lease = node.lease().await;
    node.submit(&lease, picture(asked(&lease))).await;
    node.settled().await;
    // The same request is the same picture, and so is one whose seed starts the same noise.
    for seed in [1, 1 + (1 << 32)] {
        ask(seed).await;
        let lease = node.lease().await;
        node.submit(&lease, kept.clone()).await;
        node.settled().await;
    }
    world.assert_books_hold().await;
}
