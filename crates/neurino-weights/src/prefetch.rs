//! Reads tensors ahead of their use: several threads, in a planned order, within a memory budget.
//!
//! The plan only decides what is ready early. A tensor that is asked for out of order, or that the
//! plan does not have, is read on the spot, so that a wrong plan costs time and never the result.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::WeightsError;
use crate::tensor::{StoredTensor, TensorView};

/// Threads that read: enough to keep a fast disk busy.
const READERS: usize = 4;
/// The most that is worth having ready: larger buffers are reused less, and touching new memory costs
/// more than waiting for a disk does.
const BUDGET_BYTES_MAX: u64 = 1 << 28;

/// Reader threads and what they have read. Dropping it stops them and frees all buffers.
#[derive(Debug)]
pub struct Prefetch {
    shared: Arc<Shared>,
    readers: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    plan: Vec<StoredTensor>,
    /// Place in the plan by name.
    places: HashMap<String, usize>,
    budget_bytes: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    slots: Vec<Slot>,
    /// The first place that no reader has looked at.
    next: usize,
    /// Buffers that wait for another tensor.
    spare: Vec<Vec<u8>>,
    spare_bytes: u64,
    /// Buffers in use: being read, ready, or lent out.
    used_bytes: u64,
    peak_bytes: u64,
    stopped: bool,
}

#[derive(Debug)]
enum Slot {
    Waiting,
    Reading,
    Ready(Result<Vec<u8>, WeightsError>),
    /// Given out, or read by whoever asked for it.
    Taken,
}

/// A tensor's bytes, lent: the memory is used again when this is dropped.
#[derive(Debug)]
pub struct Fetched {
    tensor: StoredTensor,
    bytes: Vec<u8>,
    owner: Arc<Shared>,
}

/// The most memory that reading ahead may use, so that it and the largest tensor together stay
/// within half of the largest file: the other half is for what tensors are made into.
///
/// - `largest_file_bytes`, `largest_tensor_bytes`: of the checkpoint
pub fn budget_bytes(largest_file_bytes: u64, largest_tensor_bytes: u64) -> u64 {
    (largest_file_bytes / 2).saturating_sub(largest_tensor_bytes).min(BUDGET_BYTES_MAX)
}

impl Prefetch {
    /// Starts to read `plan` in its order. A tensor larger than `budget_bytes` is read ahead only
    /// while nothing else is.
    pub fn start(plan: Vec<StoredTensor>, budget_bytes: u64) -> Self {
        let places = plan.iter().enumerate().map(|(i, tensor)| (tensor.name.clone(), i)).collect();
        let state = State {
            slots: plan.iter().map(|_| Slot::Waiting).collect(),
            next: 0,
            spare: Vec::new(),
            spare_bytes: 0,
            used_bytes: 0,
            peak_bytes: 0,
            stopped: false,
        };
        let (state, changed) = (Mutex::new(state), Condvar::new());
        let shared = Arc::new(Shared { plan, places, budget_bytes, state, changed });
        let reader = |number| {
            let shared = Arc::clone(&shared);
            let builder = std::thread::Builder::new().name(format!("weights-{number}"));
            // Without a thread the tensors are read when they are asked for.
            builder.spawn(move || shared.read_ahead()).ok()
        };
        let readers = (0..READERS.min(shared.plan.len())).filter_map(reader).collect();
        Self { shared, readers }
    }

    /// As [`Prefetch::start`], of tensors that others read by themselves: as long as it lives,
    /// [`StoredTensor::read`] of any tensor of their files takes what is ready here.
    pub fn serving(plan: Vec<StoredTensor>, budget_bytes: u64) -> Arc<Self> {
        let files: Vec<_> = plan.iter().map(|tensor| Arc::clone(&tensor.file)).collect();
        let ahead = Arc::new(Self::start(plan, budget_bytes));
        for file in files {
            file.set_ahead(&ahead);
        }
        ahead
    }

    /// The bytes of `tensor`, which are ready, waited for, or read now.
    ///
    /// # Errors
    /// `Changed`, `Unreadable`, `UnsupportedDType`; `Stopped` after [`Prefetch::stop`].
    pub fn fetch(&self, tensor: &StoredTensor) -> Result<Fetched, WeightsError> {
        let shared = &self.shared;
        let place = shared.places.get(&tensor.name).copied();
        let place = place.filter(|place| shared.plan[*place].is_at(tensor));
        let mut state = shared.lock();
        loop {
            if state.stopped {
                return Err(WeightsError::Stopped { file: tensor.file().to_owned() });
            }
            let slot = place.map(|place| (place, &mut state.slots[place]));
            match slot {
                Some((_, Slot::Reading)) => {
                    state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                Some((_, slot @ Slot::Ready(_))) => {
                    let Slot::Ready(read) = std::mem::replace(slot, Slot::Taken) else { continue };
                    return Ok(Fetched::new(tensor, read?, shared));
                }
                Some((_, Slot::Waiting | Slot::Taken)) | None => {
                    if let Some((_, slot)) = slot {
                        *slot = Slot::Taken;
                    }
                    let mut bytes = state.buffer(tensor.size_bytes, shared.budget_bytes);
                    drop(state);
                    let read = tensor.read_into(&mut bytes);
                    let fetched = Fetched::new(tensor, bytes, shared);
                    return read.map(|()| fetched);
                }
            }
        }
    }

    /// Stops reading; everything that is ready is freed, and asking for more is an error.
    pub fn stop(&self) {
        let mut state = self.shared.lock();
        state.stopped = true;
        let State { slots, spare, used_bytes, spare_bytes, .. } = &mut *state;
        for slot in slots {
            if let Slot::Ready(Ok(bytes)) = std::mem::replace(slot, Slot::Taken) {
                *used_bytes -= bytes.capacity() as u64;
            }
        }
        spare.clear();
        *spare_bytes = 0;
        self.shared.changed.notify_all();
    }

    /// Memory of all buffers at this moment.
    pub fn held_bytes(&self) -> u64 {
        let state = self.shared.lock();
        state.used_bytes + state.spare_bytes
    }

    /// The most memory that buffers have held at once.
    pub fn peak_bytes(&self) -> u64 {
        self.shared.lock().peak_bytes
    }
}

impl Drop for Prefetch {
    fn drop(&mut self) {
        self.stop();
        for reader in self.readers.drain(..) {
            // A reader cannot panic; if it did, its tensor is read again by nobody.
            let _ = reader.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A reader's life.
    fn read_ahead(&self) {
        let mut state = self.lock();
        loop {
            while state.slots.get(state.next).is_some_and(|slot| !matches!(slot, Slot::Waiting)) {
                state.next += 1;
            }
            let place = state.next;
            if state.stopped || place == self.plan.len() {
                return;
            }
            let tensor = &self.plan[place];
            let fits = state.used_bytes + tensor.size_bytes as u64 <= self.budget_bytes;
            if !fits && state.used_bytes > 0 {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.slots[place] = Slot::Reading;
            state.next += 1;
            let mut bytes = state.buffer(tensor.size_bytes, self.budget_bytes);
            drop(state);
            let read = tensor.read_into(&mut bytes);
            state = self.lock();
            let read = match read {
                Ok(()) if !state.stopped => Ok(bytes),
                other => {
                    state.used_bytes -= bytes.capacity() as u64;
                    other.map(|()| Vec::new())
                }
            };
            state.slots[place] = if state.stopped { Slot::Taken } else { Slot::Ready(read) };
            self.changed.notify_all();
        }
    }
}

impl State {
    /// A buffer of exactly `size` bytes, from a spare one of that size if there is one. Spare buffers
    /// go first when the budget is short.
    fn buffer(&mut self, size: usize, budget_bytes: u64) -> Vec<u8> {
        let fitting = self.spare.iter().position(|spare| spare.capacity() == size);
        let bytes = if let Some(place) = fitting {
            let spare = self.spare.swap_remove(place);
            self.spare_bytes -= spare.capacity() as u64;
            spare
        } else {
            while self.used_bytes + self.spare_bytes + size as u64 > budget_bytes
                && let Some(spare) = self.spare.pop()
            {
                self.spare_bytes -= spare.capacity() as u64;
            }
            vec![0; size]
        };
        self.used_bytes += bytes.capacity() as u64;
        self.peak_bytes = self.peak_bytes.max(self.used_bytes + self.spare_bytes);
        bytes
    }
}

impl Fetched {
    fn new(tensor: &StoredTensor, bytes: Vec<u8>, owner: &Arc<Shared>) -> Self {
        Self { tensor: tensor.clone(), bytes, owner: Arc::clone(owner) }
    }

    /// Where it came from.
    pub fn tensor(&self) -> &StoredTensor {
        &self.tensor
    }

    /// The bytes with their meaning.
    pub fn view(&self) -> TensorView<'_> {
        self.tensor.view(&self.bytes)
    }

    /// The bytes, to keep: their memory does not come back.
    pub fn into_vec(mut self) -> Vec<u8> {
        let bytes = std::mem::take(&mut self.bytes);
        self.owner.lock().used_bytes -= bytes.capacity() as u64;
        self.owner.changed.notify_all();
        bytes
    }
}

impl Deref for Fetched {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Fetched {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let size = bytes.capacity() as u64;
        let mut state = self.owner.lock();
        state.used_bytes -= size;
        let fits = state.used_bytes + state.spare_bytes + size <= self.owner.budget_bytes;
        if fits && !state.stopped && size > 0 {
            state.spare_bytes += size;
            state.spare.push(bytes);
        }
        drop(state);
        self.owner.changed.notify_all();
    }
}
