//! How busy a program keeps the graphics card under Windows, from the counters that the Task Manager
//! shows. Drivers of consumer cards do not tell it there.

use windows::Win32::System::Performance::{
    PDH_CSTATUS_NEW_DATA, PDH_CSTATUS_VALID_DATA, PDH_FMT_COUNTERVALUE_ITEM_W, PDH_FMT_DOUBLE,
    PDH_HCOUNTER, PDH_HQUERY, PDH_MORE_DATA, PdhAddEnglishCounterW, PdhCloseQuery,
    PdhCollectQueryData, PdhGetFormattedCounterArrayW, PdhOpenQueryW,
};
use windows::core::{PCWSTR, w};

/// The 3D engines of all cards, one instance for each process that uses one; English under any language.
const COUNTER: PCWSTR = w!(r"\GPU Engine(*engtype_3D)\Utilization Percentage");
/// No machine has more instances; a wrong length must not take all memory.
const ARRAY_BYTES_MAX: u32 = 16 << 20;

/// The counters, and how far they were read.
pub(crate) struct CardLoad {
    query: PDH_HQUERY,
    counter: PDH_HCOUNTER,
}

// SAFETY: a query belongs to the process and not to a thread; `&mut self` lets one thread use it at a time.
unsafe impl Send for CardLoad {}

impl CardLoad {
    /// Opens the counters; `None` before Windows 10 1709 and where they are switched off.
    pub(crate) fn open() -> Option<Self> {
        let mut query = PDH_HQUERY::default();
        // SAFETY: the handle is written to a local; no source means the machine as it runs.
        if unsafe { PdhOpenQueryW(PCWSTR::null(), 0, &raw mut query) } != 0 {
            return None;
        }
        let mut load = Self { query, counter: PDH_HCOUNTER::default() };
        // SAFETY: the query is open, the text ends with a zero, the handle is written to our own field.
        let added = unsafe { PdhAddEnglishCounterW(load.query, COUNTER, 0, &raw mut load.counter) };
        // Rates need two looks; this is the first.
        (added == 0 && load.collect()).then_some(load)
    }

    /// The share of the card that a process takes since the last look, in per cent.
    pub(crate) fn of(&mut self, process: u32) -> Option<u8> {
        if !self.collect() {
            return None;
        }
        let (mut bytes, mut count) = (0, 0);
        // SAFETY: without a buffer the call writes the length alone.
        let asked = unsafe {
            PdhGetFormattedCounterArrayW(
                self.counter,
                PDH_FMT_DOUBLE,
                &raw mut bytes,
                &raw mut count,
                None,
            )
        };
        if asked != PDH_MORE_DATA || bytes > ARRAY_BYTES_MAX {
            return None;
        }
        // The texts lie behind the items in the same buffer, which must be aligned for the items.
        let length = (bytes as usize).div_ceil(size_of::<PDH_FMT_COUNTERVALUE_ITEM_W>());
        let mut items = vec![PDH_FMT_COUNTERVALUE_ITEM_W::default(); length];
        // SAFETY: the buffer has at least `bytes`, and the call says how many items it wrote.
        let got = unsafe {
            PdhGetFormattedCounterArrayW(
                self.counter,
                PDH_FMT_DOUBLE,
                &raw mut bytes,
                &raw mut count,
                Some(items.as_mut_ptr()),
            )
        };
        if got != 0 {
            return None;
        }
        let mark = format!("pid_{process}_");
        let mut percent = 0.0_f64;
        for item in items.get(..count as usize)? {
            if ![PDH_CSTATUS_VALID_DATA, PDH_CSTATUS_NEW_DATA].contains(&item.FmtValue.CStatus) {
                continue;
            }
            // SAFETY: the call wrote texts with an end, which live as long as the buffer.
            let name = unsafe { item.szName.to_string() }.unwrap_or_default();
            if name.starts_with(&mark) {
                // SAFETY: the format that was asked for is the double.
                percent += unsafe { item.FmtValue.Anonymous.doubleValue };
            }
        }
        Some(percent.clamp(0.0, 100.0).round() as u8)
    }

    fn collect(&mut self) -> bool {
        // SAFETY: the query is open until it is dropped.
        unsafe { PdhCollectQueryData(self.query) == 0 }
    }
}

impl Drop for CardLoad {
    fn drop(&mut self) {
        // SAFETY: the query was opened by us and is closed once; its counter goes with it.
        unsafe { PdhCloseQuery(self.query) };
    }
}
