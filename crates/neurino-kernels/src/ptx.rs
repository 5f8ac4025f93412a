//! Every kernel as PTX, compiled without a card: for tests of what a card would be given.

use std::ffi::CStr;
use std::sync::Arc;

use cubecl::Compiler;
use cubecl::cmma::MatrixLayout;
use cubecl::ir::features::Features;
use cubecl::ir::nvidia::SmArch;
use cubecl::ir::{
    ContiguousElements, DeviceIdentity, HardwareProperties, MemoryDeviceProperties, MmaProperties,
};
use cubecl::prelude::*;
use cubecl_llvm::nvptx::ptx_version::PtxVersion;
use cubecl_llvm::{LlvmTarget, PlironArtifact, PlironCompiler, PlironOptions};

use crate::lanes::Cut;

/// The architectures that must work: RTX 20, 30, 40 and 50, H100 and H200.
pub const ARCHITECTURES: [(u32, bool); 5] =
    [(75, false), (86, false), (89, false), (90, true), (120, true)];

/// A kernel, ready to be compiled.
pub struct Case {
    /// Which one.
    pub name: String,
    /// Itself.
    pub kernel: Box<dyn CubeKernel>,
    /// The architectures that it is meant for.
    pub architectures: std::ops::RangeInclusive<u32>,
}

impl Case {
    pub(crate) fn new(name: impl Into<String>, kernel: impl CubeKernel) -> Self {
        Self { name: name.into(), kernel: Box::new(kernel), architectures: 0..=u32::MAX }
    }

    /// The same, for cards of `architecture` and later ones.
    pub(crate) fn since(self, architecture: u32) -> Self {
        Self { architectures: architecture..=u32::MAX, ..self }
    }

    /// The same, for cards of `architecture` and earlier ones.
    pub(crate) fn until(self, architecture: u32) -> Self {
        Self { architectures: 0..=architecture, ..self }
    }

    /// PTX for `sm_{architecture}`, with its special instructions if `specific`.
    ///
    /// # Errors
    /// The compiler's, as text.
    pub fn compile(&self, architecture: u32, specific: bool) -> Result<String, String> {
        let mut compiler = PlironCompiler { target: LlvmTarget::Nvptx };
        let options = PlironOptions {
            sm_arch: Some(SmArch::new(architecture, specific)),
            ptx_version: PtxVersion::for_driver(12080),
            ..Default::default()
        };
        let definition = self.kernel.define();
        match compiler.compile(definition, &options).map_err(|error| error.to_string())? {
            PlironArtifact::NvptxCode(module) => {
                // SAFETY: the module's PTX ends with a zero.
                #[expect(unsafe_code, reason = "the compiler hands out C text")]
                let text = unsafe { CStr::from_ptr(module.ptx.as_ptr()) };
                Ok(text.to_string_lossy().into_owned())
            }
            PlironArtifact::Jit(_) => Err("the compiler made no PTX".into()),
        }
    }
}

/// The products in tiles, in the forms that Llama-3-8B needs.
pub fn tile_cases() -> Vec<Case> {
    crate::product::cases::ptx_cases()
}

/// Every other kernel in the forms that Llama-3-8B needs, and its rarer forms.
pub fn cases() -> Vec<Case> {
    let mut cases = crate::matvec::ptx_cases();
    cases.extend(crate::norm::ptx_cases());
    cases.extend(crate::gate::ptx_cases());
    cases.extend(crate::experts::ptx_cases());
    cases.extend(crate::rope::ptx_cases());
    cases.extend(crate::attention::ptx_cases());
    cases.extend(crate::sample::ptx_cases());
    cases.extend(crate::group_norm::ptx_cases());
    cases.extend(crate::nf4::ptx_cases());
    cases
}

pub(crate) fn settings(cut: Cut) -> KernelSettings {
    settings_of(cut.dim())
}

pub(crate) fn settings_of(dim: CubeDim) -> KernelSettings {
    KernelSettings::new(*dim, ExecutionMode::Unchecked, AddressType::U32)
}

/// What CubeCL says of NVIDIA's tensor cores.
pub(crate) fn target() -> Arc<TargetProperties> {
    Arc::new(TargetProperties {
        mma: MmaProperties {
            register_size_bits: 32,
            const_plane_size: 32,
            register_layout_a: MatrixLayout::RowMajor,
            register_layout_b: MatrixLayout::ColMajor,
            register_layout_acc: MatrixLayout::RowMajor,
            register_duplication_a: 1,
            register_duplication_b: 1,
            register_duplication_acc: 1,
            contiguous_elements: ContiguousElements::new(|_, _, _| 2),
        },
    })
}

pub(crate) const BUFFER: BufferCompilationArg = BufferCompilationArg { inplace: None };

/// What every card since Turing has.
pub(crate) fn device() -> Arc<DeviceProperties> {
    let hardware = HardwareProperties {
        load_width: 128,
        vector_register_count: None,
        plane_size_min: 32,
        plane_size_max: 32,
        max_bindings: 32,
        max_shared_memory_size: 48 << 10,
        max_cube_count: (i32::MAX as u32, u32::from(u16::MAX), u32::from(u16::MAX)),
        max_units_per_cube: 1024,
        max_cube_dim: (1024, 1024, 64),
        num_streaming_multiprocessors: None,
        num_tensor_cores: None,
        min_tensor_cores_dim: None,
        num_cpu_cores: None,
        last_level_cache_size: None,
        max_vector_size: 16,
        cube_mma_reserved_shared_memory: 0,
    };
    Arc::new(DeviceProperties::new(
        Features::default(),
        MemoryDeviceProperties::new(u64::MAX, 256),
        hardware,
        cubecl::profile::TimingMethod::Device,
        DeviceIdentity { name: "offline".into(), fingerprint: "offline".into(), physical: None },
    ))
}
