//! Which inputs a pixel of a convolution's result sees.
#![expect(
    clippy::inline_always,
    reason = "a function that is not inlined into its caller loses the caller's instruction set"
)]

use std::ops::Range;

use crate::conv::Padding;
use crate::simd::LANES;

/// A picture, a kernel, and the picture that comes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) batch: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) channels: usize,
    kernel_width: usize,
    taps: usize,
    stride: usize,
    padding: Padding,
    pub(crate) out_height: usize,
    pub(crate) out_width: usize,
}

/// The input's pixel under the first place of the kernel; negative in the padding.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Place {
    batch: usize,
    row: isize,
    column: isize,
}

/// Some channels under one place of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    row: isize,
    column: isize,
    pub(super) channels: Range<usize>,
}

/// Inputs that are multiplied together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    /// Place of the kernel by place, channel by channel.
    pub(super) inputs: Range<usize>,
    pub(super) segments: Vec<Segment>,
}

impl Geometry {
    /// A convolution of `[batch, height, width, channels]` with a kernel of `[height, width]`.
    pub(crate) fn new(
        [batch, height, width, channels]: [usize; 4],
        [kernel_height, kernel_width]: [usize; 2],
        stride: usize,
        padding: Padding,
    ) -> Self {
        let steps = |input: usize, kernel: usize| (input + stride).saturating_sub(kernel) / stride;
        Self {
            batch,
            height,
            width,
            channels,
            kernel_width,
            taps: kernel_height * kernel_width,
            stride,
            padding,
            out_height: steps(padding.top + height + padding.bottom, kernel_height),
            out_width: steps(padding.left + width + padding.right, kernel_width),
        }
    }

    /// A plain product with `rows` rows of `inputs`.
    pub(crate) fn rows(rows: usize, inputs: usize) -> Self {
        Self::new([1, 1, rows, inputs], [1, 1], 1, Padding::default())
    }

    pub(crate) fn out_pixels(&self) -> usize {
        self.batch * self.out_height * self.out_width
    }

    /// Inputs of a feature.
    pub(crate) fn inputs(&self) -> usize {
        self.taps * self.channels
    }

    /// What the result's pixel `index` sees.
    pub(super) fn place(&self, index: usize) -> Place {
        let (rest, column) = (index / self.out_width, index % self.out_width);
        let (batch, row) = (rest / self.out_height, rest % self.out_height);
        let at = |step: usize, padding: usize| (step * self.stride) as isize - padding as isize;
        Place { batch, row: at(row, self.padding.top), column: at(column, self.padding.left) }
    }

    /// The channels of a segment as a pixel sees them.
    #[inline(always)]
    pub(super) fn seen<'a>(
        &self,
        x: &'a [f32],
        zeros: &'a [f32],
        place: Place,
        segment: &Segment,
    ) -> &'a [f32] {
        // A negative place is a huge one without its sign.
        let row = (place.row + segment.row).cast_unsigned();
        let column = (place.column + segment.column).cast_unsigned();
        let Range { start, end } = segment.channels;
        if row >= self.height || column >= self.width {
            return &zeros[start..end];
        }
        let pixel = (place.batch * self.height + row) * self.width + column;
        &x[pixel * self.channels..][start..end]
    }

    /// All inputs in blocks of at most about `limit`: several places of the kernel, or a part of one.
    pub(super) fn blocks(&self, limit: usize) -> Vec<Block> {
        let parts = self.channels.div_ceil(limit).max(1);
        // Whole vectors, so that packed weights are cut where their bytes are.
        let part = self.channels.div_ceil(parts).next_multiple_of(LANES).clamp(1, limit.max(1));
        let taps = (limit / self.channels.max(1)).max(1);
        let mut blocks: Vec<Block> = Vec::new();
        for tap in 0..self.taps {
            let (row, column) = (tap / self.kernel_width, tap % self.kernel_width);
            for start in (0..self.channels).step_by(part) {
                let channels = start..self.channels.min(start + part);
                let first = tap * self.channels + channels.start;
                let end = tap * self.channels + channels.end;
                let segment = Segment { row: row as isize, column: column as isize, channels };
                match blocks.last_mut() {
                    Some(block) if parts == 1 && block.segments.len() < taps => {
                        block.inputs.end = end;
                        block.segments.push(segment);
                    }
                    _ => blocks.push(Block { inputs: first..end, segments: vec![segment] }),
                }
            }
        }
        blocks
    }
}
