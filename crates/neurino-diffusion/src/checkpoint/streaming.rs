//! Layers that are on the device only while their turn is, for networks that do not fit as a whole: the
//! rest of the time their weights lie in host memory.
//!
//! A network puts each of its heavy layers into a [`Place`]. If they stream, a [`Conveyor`] brings the
//! next one while one computes, on a thread of its own, so that two at most are on the device; between
//! two passes none is. That thread waits until the device is through with the layer before the one that
//! computes, whose memory the next one needs, so that whoever gives the device its work need not. What is
//! computed is the same as with all layers there.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use burn::tensor::{Tensor, TensorData};
use neurino_nn::Fence;
use neurino_nn::device::page_locked;

use super::{Component, Loading, Precision, Tensors, Weight, stored_type};
use crate::DiffusionError;
use crate::lora::{HeldUpdates, Layer, LowRankPart};
use crate::pulse::Pulse;

/// Between two looks at whether somebody needs the thread that waits for a layer.
const LOOK: Duration = Duration::from_millis(1);

/// A layer with its share of the count of what is on the device.
type Brought = Box<dyn Any + Send>;
type Bring = Arc<dyn Fn() -> Brought + Send + Sync>;
type Arrival = Receiver<thread::Result<Brought>>;
/// Waits until a device is through with what a layer computed. If that failed, whoever reads it hears of it.
type End = Box<dyn FnOnce() + Send>;

/// What is to be brought.
struct Task {
    bring: Bring,
    /// What has to be done before: only then is there memory for it.
    behind: Vec<End>,
    to: SyncSender<thread::Result<Brought>>,
}

/// What a layer computes.
pub(crate) trait Computed {
    /// Where the device is through with it; nothing if it is already.
    fn ends(&self) -> Vec<End>;
}

impl<const D: usize> Computed for Tensor<D> {
    fn ends(&self) -> Vec<End> {
        let values = self.dims().iter().product::<usize>();
        match Fence::behind(&self.clone().reshape([values])) {
            Ok(fence) if fence.is_reached() => Vec::new(),
            Ok(fence) => vec![Box::new(move || drop(fence.wait())) as End],
            Err(_) => {
                // There is no such place: all that the device was given has to be done.
                let _ = self.device().sync();
                Vec::new()
            }
        }
    }
}

impl<A: Computed, B: Computed> Computed for (A, B) {
    fn ends(&self) -> Vec<End> {
        let mut ends = self.0.ends();
        ends.extend(self.1.ends());
        ends
    }
}

/// The layers of a network in the order in which they are computed, and the thread that brings them.
pub struct Conveyor {
    state: Mutex<State>,
    porter: Porter,
    count: Arc<Count>,
}

#[derive(Default)]
struct State {
    layers: Vec<Waiting>,
    /// The one on its way.
    coming: Option<(usize, Arrival)>,
    /// What the layer computed that was taken last; the next one that is sent for comes behind it.
    computed: Vec<End>,
}

/// A layer in host memory.
struct Waiting {
    bring: Bring,
    device_bytes: u64,
}

/// What is on the device.
#[derive(Default)]
struct Count {
    held_bytes: AtomicU64,
    peak_bytes: AtomicU64,
    brought: AtomicU64,
}

impl fmt::Debug for Conveyor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conveyor").field("layers", &self.state().layers.len()).finish()
    }
}

impl Conveyor {
    pub(super) fn new() -> Self {
        Self { state: Mutex::default(), porter: Porter::new(), count: Arc::default() }
    }

    /// Layers that come and go.
    pub fn layers(&self) -> usize {
        self.state().layers.len()
    }

    /// Memory of two layers that follow one another, at most: what the device must have for them.
    pub fn window_bytes(&self) -> u64 {
        let state = self.state();
        let sizes: Vec<u64> = state.layers.iter().map(|layer| layer.device_bytes).collect();
        window_bytes(&sizes)
    }

    /// Memory of all layers, which the host keeps.
    pub fn host_bytes(&self) -> u64 {
        self.state().layers.iter().map(|layer| layer.device_bytes).sum()
    }

    /// Memory of the layers that are on the device now.
    pub fn held_bytes(&self) -> u64 {
        self.count.held_bytes.load(Ordering::SeqCst)
    }

    /// The most that it has been.
    pub fn peak_bytes(&self) -> u64 {
        self.count.peak_bytes.load(Ordering::SeqCst)
    }

    /// How often a layer was brought.
    pub fn brought(&self) -> u64 {
        self.count.brought.load(Ordering::SeqCst)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, layer: Waiting) -> usize {
        let mut state = self.state();
        state.layers.push(layer);
        state.layers.len() - 1
    }

    /// A layer, and the one behind it on its way: it comes once the device is through with the layer before
    /// this one.
    fn take(&self, index: usize) -> Brought {
        let layer = self.take_alone(index);
        if index + 1 < self.layers() {
            let arrival = self.send_for(index + 1);
            self.state().coming = Some((index + 1, arrival));
        }
        layer
    }

    /// A layer by itself.
    fn take_alone(&self, index: usize) -> Brought {
        let coming = self.state().coming.take();
        let arrival = match coming {
            Some((on_its_way, arrival)) if on_its_way == index => arrival,
            // The pass that wanted it was given up.
            Some((_, arrival)) => {
                drop(arrived(&arrival));
                self.send_for(index)
            }
            None => self.send_for(index),
        };
        arrived(&arrival).unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// The layer that was taken last has computed this, as far as the host has to do with it.
    fn is_behind(&self, computed: &impl Computed) {
        let ends = computed.ends();
        self.state().computed = ends;
    }

    fn send_for(&self, index: usize) -> Arrival {
        let (bring, behind) = {
            let mut state = self.state();
            (Arc::clone(&state.layers[index].bring), std::mem::take(&mut state.computed))
        };
        self.porter.send(bring, behind)
    }
}

/// The most of two neighbours.
pub(crate) fn window_bytes(sizes: &[u64]) -> u64 {
    let pairs = sizes.windows(2).map(|pair| pair.iter().sum());
    pairs.chain(sizes.iter().copied()).max().unwrap_or(0)
}

fn arrived(arrival: &Arrival) -> thread::Result<Brought> {
    loop {
        match arrival.recv_timeout(LOOK) {
            Ok(brought) => return brought,
            // On the CPU this may be the only thread that can help to make the layer.
            Err(RecvTimeoutError::Timeout) => drop(rayon::yield_now()),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Box::new("the thread that brings layers has ended"));
            }
        }
    }
}

/// The thread that brings layers: one, because each thread has memory of its own on a card.
struct Porter {
    tasks: Option<SyncSender<Task>>,
    thread: Option<JoinHandle<()>>,
}

impl Porter {
    fn new() -> Self {
        let (tasks, received) = mpsc::sync_channel::<Task>(1);
        let work = move || {
            while let Ok(Task { bring, behind, to }) = received.recv() {
                for end in behind {
                    end();
                }
                // A lack of memory is a panic, which whoever waits has to hear.
                let brought = catch_unwind(AssertUnwindSafe(|| bring()));
                // Nobody waits if the pass was given up.
                let _ = to.send(brought);
            }
        };
        let thread = thread::Builder::new().name("layers".into()).spawn(work).ok();
        Self { tasks: Some(tasks), thread }
    }

    fn send(&self, bring: Bring, behind: Vec<End>) -> Arrival {
        let (to, arrival) = mpsc::sync_channel(1);
        if let Some(tasks) = &self.tasks {
            // If the thread has ended, the arrival says so.
            let _ = tasks.send(Task { bring, behind, to });
        }
        arrival
    }
}

impl Drop for Porter {
    fn drop(&mut self) {
        self.tasks = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A heavy layer, wherever it is.
#[derive(Debug)]
pub(crate) struct Place<T> {
    is: Where<T>,
    pulse: Pulse,
}

/// Where a layer is.
#[derive(Debug)]
enum Where<T> {
    /// On the device.
    Stays(T),
    /// In host memory, and on the device while its turn is.
    Comes(Coming),
}

/// A layer that a conveyor brings.
#[derive(Debug)]
struct Coming {
    conveyor: Arc<Conveyor>,
    index: usize,
    updates: Arc<Mutex<Vec<HeldUpdates>>>,
}

/// A layer on the device for its turn.
struct OnDevice<T> {
    layer: T,
    _counted: Counted,
}

/// Bytes that count as long as it lives.
struct Counted {
    count: Arc<Count>,
    bytes: u64,
}

impl Counted {
    fn new(count: Arc<Count>, bytes: u64) -> Self {
        let held_bytes = count.held_bytes.fetch_add(bytes, Ordering::SeqCst) + bytes;
        count.peak_bytes.fetch_max(held_bytes, Ordering::SeqCst);
        count.brought.fetch_add(1, Ordering::SeqCst);
        Self { count, bytes }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.count.held_bytes.fetch_sub(self.bytes, Ordering::SeqCst);
    }
}

impl<T: LowRankPart + Send + 'static> Place<T> {
    /// The layer that `load` makes of `part`, which must be loaded in the order in which layers are
    /// computed.
    ///
    /// # Errors
    /// Those of `load`.
    pub(crate) fn load(
        part: &Component<'_>,
        load: impl Fn(&Component<'_>) -> Result<T, DiffusionError> + Send + Sync + 'static,
    ) -> Result<Self, DiffusionError> {
        let pulse = part.pulse();
        let Some(conveyor) = &part.loading.conveyor else {
            return Ok(Self { is: Where::Stays(load(part)?), pulse });
        };
        let (device, precision) = (part.loading.device, part.precision);
        // It is made once, so that whatever is wrong with it shows now.
        let keeper = Keeper::new(part.tensors, precision, part.loading);
        let own = Loading::new(device, precision, &|_| {}, part.loading.cancelled);
        let prefix = part.prefix.clone();
        drop(load(&Component {
            tensors: &keeper,
            loading: &own,
            precision,
            prefix: prefix.clone(),
        })?);
        part.loading.count(keeper.read_bytes.get(), 0)?;

        let (device, count) = (device.clone(), Arc::clone(&conveyor.count));
        let (host, device_bytes) = (Host(keeper.kept.into_inner()), own.held_bytes());
        let updates = Arc::<Mutex<Vec<HeldUpdates>>>::default();
        let held = Arc::clone(&updates);
        let bring = move || -> Brought {
            let counted = Counted::new(Arc::clone(&count), device_bytes);
            let loading = Loading::quiet(&device, precision);
            let part =
                Component { tensors: &host, loading: &loading, precision, prefix: prefix.clone() };
            let mut layer = load(&part).expect("a layer that was made once can be made again");
            let held = held.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let mut held = held.into_iter();
            layer.low_rank_layers("", &mut |_, layer| {
                if let Some(updates) = held.next() {
                    updates.put(layer);
                }
            });
            Box::new(OnDevice { layer, _counted: counted })
        };
        let index = conveyor.add(Waiting { bring: Arc::new(bring), device_bytes });
        let is = Where::Comes(Coming { conveyor: Arc::clone(conveyor), index, updates });
        Ok(Self { is, pulse })
    }

    /// Computes with the layer, and has the next one brought meanwhile.
    pub(crate) fn with<R: Computed>(&self, compute: impl FnOnce(&T) -> R) -> R {
        self.pulse.beat();
        match &self.is {
            Where::Stays(layer) => compute(layer),
            Where::Comes(coming) => {
                let brought = coming.conveyor.take(coming.index);
                let computed = compute(&of_type::<T>(&*brought).layer);
                drop(brought);
                coming.conveyor.is_behind(&computed);
                computed
            }
        }
    }

    /// Computes with a layer that is brought by itself.
    pub(crate) fn with_alone<R>(&self, compute: impl FnOnce(&T) -> R) -> R {
        match &self.is {
            Where::Stays(layer) => compute(layer),
            Where::Comes(coming) => {
                let brought = coming.conveyor.take_alone(coming.index);
                compute(&of_type::<T>(&*brought).layer)
            }
        }
    }

    /// Whether it is on the device only while it computes.
    pub(crate) fn visits(&self) -> bool {
        matches!(self.is, Where::Comes(_))
    }
}

fn of_type<T: 'static>(brought: &(dyn Any + Send)) -> &OnDevice<T> {
    brought.downcast_ref().expect("a layer comes as what it was loaded as")
}

impl<T: LowRankPart + Send + 'static> LowRankPart for Place<T> {
    fn low_rank_layers(&mut self, path: &str, visit: &mut dyn FnMut(&str, Layer<'_>)) {
        let coming = match &mut self.is {
            Where::Stays(layer) => return layer.low_rank_layers(path, visit),
            Where::Comes(coming) => coming,
        };
        let brought = coming.conveyor.take_alone(coming.index);
        let mut brought = brought
            .downcast::<OnDevice<T>>()
            .unwrap_or_else(|_| unreachable!("a layer comes as what it was loaded as"));
        brought.layer.low_rank_layers(path, visit);
        let mut updates = Vec::new();
        brought.layer.low_rank_layers("", &mut |_, layer| updates.push(HeldUpdates::of(&layer)));
        *coming.updates.lock().unwrap_or_else(PoisonError::into_inner) = updates;
    }
}

/// Tensors of one layer in host memory, as the device takes them: whoever reads them shares their bytes.
struct Host(HashMap<String, (Vec<usize>, Weight)>);

impl Tensors for Host {
    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.0.get(name).map(|(shape, _)| shape.clone())
    }

    fn read(&self, name: &str, _: &[usize]) -> Result<Weight, DiffusionError> {
        let absent = || DiffusionError::Config {
            file: name.into(),
            problem: "was not read when the layer was made".into(),
        };
        self.0.get(name).map(|(_, weight)| weight.clone()).ok_or_else(absent)
    }
}

/// Keeps what is read.
struct Keeper<'a> {
    tensors: &'a dyn Tensors,
    precision: Precision,
    loading: &'a Loading<'a>,
    kept: RefCell<HashMap<String, (Vec<usize>, Weight)>>,
    /// As stored.
    read_bytes: Cell<usize>,
}

impl<'a> Keeper<'a> {
    fn new(tensors: &'a dyn Tensors, precision: Precision, loading: &'a Loading<'a>) -> Self {
        Self { tensors, precision, loading, kept: RefCell::default(), read_bytes: Cell::new(0) }
    }
}

impl Tensors for Keeper<'_> {
    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.tensors.shape(name)
    }

    fn read(&self, name: &str, shape: &[usize]) -> Result<Weight, DiffusionError> {
        let weight = self.tensors.read(name, shape)?;
        self.read_bytes.set(self.read_bytes.get() + weight.size_bytes());
        let kept = as_kept(weight, shape, self.precision, self.loading);
        self.kept.borrow_mut().insert(name.to_owned(), (shape.to_vec(), kept.clone()));
        Ok(kept)
    }
}

/// Plain weights in the numbers that the device keeps, so that nothing is converted on their way, and
/// shared, so that nothing is copied either; page-locked as far as the `loading` allows, so that the card
/// fetches them itself.
fn as_kept(weight: Weight, shape: &[usize], precision: Precision, loading: &Loading<'_>) -> Weight {
    let Weight::Plain { dtype, bytes } = weight else { return weight };
    let (stored, kept) = (stored_type(dtype), precision.kept(dtype));
    let (Some(stored), Some(kept_dtype)) = (stored, super::weight_type(kept)) else {
        return Weight::Plain { dtype, bytes: bytes.shared() };
    };
    let mut data = TensorData::from_bytes(bytes, shape.to_vec(), stored).convert_dtype(kept);
    if loading.locks(data.bytes().len() as u64) {
        data = page_locked(data, loading.device);
    }
    Weight::Plain { dtype: kept_dtype, bytes: data.into_bytes().shared() }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::sync::atomic::AtomicBool;

    use burn::tensor::Device;
    use neurino_nn::Affine;

    use super::*;
    use crate::checkpoint::random::{RandomFormat, RandomTensors};

    struct One(Affine);

    impl LowRankPart for One {
        fn low_rank_layers(&mut self, path: &str, visit: &mut dyn FnMut(&str, Layer<'_>)) {
            visit(path, Layer::Affine(&mut self.0));
        }
    }

    /// What a layer computes, on a device that is through with it once somebody says so.
    struct At(Arc<Mutex<Option<Receiver<()>>>>);

    impl At {
        fn once() -> Self {
            Self(Arc::default())
        }

        fn told() -> (SyncSender<()>, Self) {
            let (tell, told) = mpsc::sync_channel(1);
            (tell, Self(Arc::new(Mutex::new(Some(told)))))
        }
    }

    impl Computed for At {
        fn ends(&self) -> Vec<End> {
            let told = self.0.lock().unwrap().take();
            told.into_iter().map(|told| -> End { Box::new(move || told.recv().unwrap()) }).collect()
        }
    }

    static FAILS: AtomicBool = AtomicBool::new(false);

    fn one(part: &Component<'_>) -> Result<One, DiffusionError> {
        assert!(!FAILS.load(Ordering::SeqCst), "out of memory");
        Ok(One(part.linear("layer", [8, 4])?))
    }

    /// The same for a test that none of the others may fail.
    fn two(part: &Component<'_>) -> Result<One, DiffusionError> {
        Ok(One(part.linear("layer", [8, 4])?))
    }

    /// Bytes of a layer of 8 by 4 in 16 bits with its bias in 32.
    const LAYER_BYTES: u64 = 2 * 32 + 4 * 8;

    #[test]
    fn two_layers_at_most_are_there_and_none_between_passes() {
        let (device, tensors) = (Device::flex(), RandomTensors::new(RandomFormat::F16, 1));
        let loading = Loading::quiet(&device, Precision::Stored).streaming();
        let part = Component::new(&tensors, &loading);
        let places: Vec<_> = (0..4).map(|_| Place::load(&part, one).unwrap()).collect();
        let conveyor = loading.conveyor().unwrap();
        assert_eq!((conveyor.held_bytes(), conveyor.layers()), (0, 4));
        assert_eq!(loading.held_bytes(), 2 * LAYER_BYTES);
        for passes in 1..=3 {
            for (i, place) in places.iter().enumerate() {
                place.with(|layer| {
                    assert_eq!(layer.0.in_features(), 4);
                    // The next one comes while this one computes; behind the last there is none.
                    let there = if i < 3 { 2 * LAYER_BYTES } else { LAYER_BYTES };
                    let came = (0..10_000).any(|_| {
                        thread::sleep(LOOK);
                        conveyor.held_bytes() == there
                    });
                    assert!(came, "layer {i}: {} bytes", conveyor.held_bytes());
                    At::once()
                });
            }
            assert_eq!((conveyor.held_bytes(), conveyor.brought()), (0, 4 * passes));
        }
        assert_eq!(conveyor.peak_bytes(), 2 * LAYER_BYTES);

        // A pass that was given up leaves the next one on its way, which the next pass throws away.
        places[0].with(|_| At::once());
        places[0].with(|_| At::once());
        for place in &places {
            place.with(|_| At::once());
        }
        assert_eq!(conveyor.held_bytes(), 0);
        assert_eq!(conveyor.peak_bytes(), 2 * LAYER_BYTES);

        // A lack of memory on the thread that brings layers is one of whoever waits.
        FAILS.store(true, Ordering::SeqCst);
        let failed = catch_unwind(AssertUnwindSafe(|| drop(places[0].with(|_| At::once()))));
        let words = failed.unwrap_err().downcast::<&str>().unwrap();
        assert!(words.contains("out of memory"), "{words}");
        FAILS.store(false, Ordering::SeqCst);
        places[0].with(|_| At::once());
    }

    #[test]
    fn the_next_layer_comes_when_the_device_is_through_with_the_one_before_this() {
        let (device, tensors) = (Device::flex(), RandomTensors::new(RandomFormat::F16, 1));
        let loading = Loading::quiet(&device, Precision::Stored).streaming();
        let part = Component::new(&tensors, &loading);
        let places: Vec<_> = (0..3).map(|_| Place::load(&part, two).unwrap()).collect();
        let conveyor = loading.conveyor().unwrap();
        let comes = |bytes: u64| {
            (0..10_000).any(|_| {
                thread::sleep(LOOK);
                conveyor.held_bytes() == bytes
            })
        };
        let (tell, computed) = At::told();
        // The host is not kept by what the device still computes.
        places[0].with(|_| computed);
        places[1].with(|_| {
            assert!(comes(LAYER_BYTES));
            thread::sleep(50 * LOOK);
            assert_eq!(conveyor.held_bytes(), LAYER_BYTES, "the first one may still be there");
            tell.send(()).unwrap();
            assert!(comes(2 * LAYER_BYTES));
            At::once()
        });
        // The first one of the next pass comes behind the last.
        let ((tell, last), told) = (At::told(), AtomicBool::new(false));
        places[2].with(|_| last);
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(50 * LOOK);
                told.store(true, Ordering::SeqCst);
                tell.send(()).unwrap();
            });
            places[0].with(|_| {
                assert!(told.load(Ordering::SeqCst));
                At::once()
            });
        });
        assert_eq!(conveyor.peak_bytes(), 2 * LAYER_BYTES);
    }

    #[test]
    fn page_locks_are_taken_up_to_their_limit_and_for_large_tensors_alone() {
        let device = Device::flex();
        let loading = Loading::quiet(&device, Precision::Half).with_page_locks(5 << 20);
        assert!(!loading.locks(100), "it is not worth it");
        assert!(loading.locks(3 << 20));
        assert!(!loading.locks(3 << 20), "that is too much");
        assert!(loading.locks(2 << 20));
        assert!(!loading.locks(1 << 20));
        assert!(!Loading::quiet(&device, Precision::Half).locks(1 << 20));
    }

    #[test]
    fn layers_share_the_bytes_of_the_host() {
        for (format, precision) in [
            (RandomFormat::Bf16, Precision::Half),
            (RandomFormat::F32, Precision::Half),
            (RandomFormat::Nf4, Precision::Half),
            (RandomFormat::Hqq, Precision::Half),
        ] {
            let (device, tensors) = (Device::flex(), RandomTensors::new(format, 1));
            let loading = Loading::quiet(&device, precision).with_page_locks(u64::MAX);
            let keeper = Keeper::new(&tensors, precision, &loading);
            let shape = [64, 64];
            keeper.read("a.weight", &shape).unwrap();
            let host = Host(keeper.kept.into_inner());
            let place = || match host.read("a.weight", &shape).unwrap() {
                Weight::Plain { bytes, .. } => bytes.as_ptr(),
                Weight::Nf4(matrix) => matrix.quants.as_ptr(),
                Weight::Hqq(matrix) => matrix.quants.as_ptr(),
            };
            assert_eq!(place(), place(), "{format:?}");
        }
    }

    #[test]
    fn the_window_is_the_largest_pair_of_neighbours() {
        assert_eq!(window_bytes(&[]), 0);
        assert_eq!(window_bytes(&[7]), 7);
        assert_eq!(window_bytes(&[1, 9, 2, 5, 5]), 11);
    }
}
