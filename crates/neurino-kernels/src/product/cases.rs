//! The products as PTX, in the forms that Llama-3-8B needs.

use half::{bf16, f16};

use super::few::few_kernel;
use super::many::many_kernel;
use super::plan::{FEW_ROWS, Plan, Stored, Taken, Unit, plan};
use crate::format::Format;
use crate::ptx::{BUFFER, Case, device, settings_of, target};

pub(crate) fn ptx_cases() -> Vec<crate::ptx::Case> {
    let packed = Stored::Packed;
    let mut cases = Vec::new();
    // Turing has the shorter instruction, and no bf16.
    let (wide, odd) = ([4096, 4096, 32], [216, 2080, 32]);
    for (shape, stored, depth, rows) in [
        (wide, Stored::F16, 16, &[1, 16, 32, 64, 200, 300, 1024][..]),
        (wide, Stored::Bf16, 16, &[1, 1024]),
        (wide, packed(Format::Q4), 16, &[1, 32, 1024]),
        (wide, packed(Format::Q4Offset), 16, &[1, 1024]),
        (wide, packed(Format::Q4Zero), 16, &[1, 1024]),
        (wide, packed(Format::Q8), 16, &[1, 1024]),
        // Parts that are no multiple of what is loaded together.
        (odd, Stored::F16, 16, &[1, 64, 200]),
        (wide, Stored::F16, 8, &[1, 1024]),
        (wide, packed(Format::Q4), 8, &[1, 1024]),
    ] {
        for &rows in rows {
            let plan = plan(shape, stored, Unit::TensorCores(depth), rows);
            // Lists of experts on the way.
            let taken = if rows == 200 { Taken::Listed(2) } else { Taken::All };
            let plan = Plan { taken, ..plan };
            let few = rows <= FEW_ROWS;
            let warps = if few { plan.split } else { plan.warps[0] * plan.warps[1] };
            let settings = settings_of(plan.dim(warps));
            let name = format!("tiles of {stored:?} {shape:?} by {depth}, rows {rows}");
            macro_rules! case {
                ($kernel:ident :: $name:ident, $float:ty) => {
                    Case::new(
                        name,
                        $kernel::$name::<$float>::new(
                            settings,
                            device(),
                            target(),
                            BUFFER,
                            BUFFER,
                            BUFFER,
                            BUFFER,
                            BUFFER,
                            BUFFER,
                            (),
                            (),
                            (),
                            (),
                            stored.unit_words(),
                            plan,
                        ),
                    )
                };
            }
            let case = match (few, stored) {
                (true, Stored::Bf16) => case!(few_kernel::FewKernel, bf16),
                (true, _) => case!(few_kernel::FewKernel, f16),
                (false, Stored::Bf16) => case!(many_kernel::ManyKernel, bf16),
                (false, _) => case!(many_kernel::ManyKernel, f16),
            };
            cases.push(if depth == 16 { case.since(80) } else { case.until(75) });
        }
    }
    cases
}
