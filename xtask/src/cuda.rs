//! What the NVIDIA engine needs: LLVM when it is built, one file of CUDA's when it runs.
//!
//! burn's CUDA backend writes PTX through a statically linked LLVM, which its build script would
//! download from a code-hosting site. We put the same tree where that script looks first, from two
//! pinned wheels (docs/adr/0001). At run time the kernels need `libdevice.10.bc`, NVIDIA's
//! mathematical functions as bitcode, which CUDA's licence lets an application carry.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::shell::{Cmd, say};
use crate::system::loader_finds;
use crate::wheels::{self, Wheel};

/// `tracel-llvm-bundler` looks for a folder of its own full version; `Cargo.lock` must agree.
const BUNDLER_VERSION: &str = "23.1.0-4";
const SENTINEL: &str = ".tracel-llvm-installed";

/// LLVM 23.1 as static libraries (Apache-2.0 WITH LLVM-exception); the second wheel holds NVPTX.
const LLVM: [Wheel; 2] = [
    Wheel {
        package: "mlc-llvm-static",
        version: "23.1.1.post0",
        platform: "manylinux_2_28_x86_64",
        sha256: "dcfec888abfaa418be77d41af585805f31463584cf9c90582992c00f392c1ac5",
        size_mb: 60,
    },
    Wheel {
        package: "mlc-llvm-static-extra-targets",
        version: "23.1.1.post0",
        platform: "manylinux_2_28_x86_64",
        sha256: "c36e834d9a4e9cf9759f27fece65711ece7a2fc2b5a96dbb15d66f5e9e787929",
        size_mb: 32,
    },
];

const NVCC: Wheel = Wheel {
    package: "nvidia-cuda-nvcc-cu12",
    version: "12.9.86",
    platform: "manylinux_2_12_x86_64",
    sha256: "5d6a0d32fdc7ea39917c20065614ae93add6f577d840233237ff08e9a38f58f0",
    size_mb: 41,
};

/// Where libdevice lies below `CUDA_PATH`.
pub(crate) const LIBDEVICE: &str = "nvvm/libdevice/libdevice.10.bc";
const LIBDEVICE_SHA256: &str = "9e84b504f25d26ec775ef91f7122e68dac77fa1f776f1044128f5028356265d8";

/// How an NVIDIA driver shows itself on this machine, if it does.
pub(crate) fn driver() -> Option<&'static str> {
    if Path::new("/proc/driver/nvidia/version").is_file() {
        return Some("kernel module loaded");
    }
    if Path::new("/usr/lib/wsl/lib/libcuda.so.1").is_file() {
        return Some("Windows Subsystem for Linux");
    }
    let here = Path::new(".");
    // `nvidia-smi` is installed on machines without a card too; only its answer counts.
    if Cmd::new(here, "nvidia-smi").arg("-L").output().is_ok_and(|list| list.contains("GPU ")) {
        return Some("nvidia-smi lists a card");
    }
    (Path::new("/dev/nvidiactl").exists() && loader_finds(here, "libcuda.so.1"))
        .then_some("libcuda.so.1")
}

/// The value of `XDG_DATA_HOME` that makes the build script find our LLVM.
pub(crate) fn llvm_data_home(target: &Path) -> PathBuf {
    target.join("llvm")
}

/// The value of `CUDA_PATH` with which kernels find libdevice.
pub(crate) fn cuda_path(target: &Path) -> PathBuf {
    target.join("cuda")
}

/// Puts LLVM and libdevice in place, unless they are. Under Windows, where no wheel has LLVM, its
/// build script fetches what its authors made and checks that against digests of its own.
///
/// # Errors
/// On a platform for which no wheel is pinned, and when fetching or unpacking fails.
pub(crate) fn prepare(target: &Path, lock: &Path) -> Result<()> {
    let downloads = target.join("xtask/wheels");
    if cfg!(all(target_os = "windows", target_arch = "x86_64")) {
        return prepare_libdevice(target, &downloads);
    }
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        bail!(
            "LLVM for the NVIDIA engine is pinned for Linux on x86-64 only; use --cpu here, or let \
             the build script download it: cargo build --release --workspace --features neurino/cuda"
        );
    }
    check_bundler(&fs::read_to_string(lock)?)?;
    prepare_llvm(target, &downloads)?;
    prepare_libdevice(target, &downloads)
}

fn check_bundler(lock: &str) -> Result<()> {
    let wanted = format!("name = \"tracel-llvm-bundler\"\nversion = \"{BUNDLER_VERSION}\"");
    if lock.contains(&wanted) {
        return Ok(());
    }
    bail!(
        "Cargo.lock no longer has tracel-llvm-bundler {BUNDLER_VERSION}: update xtask/src/cuda.rs \
         together with burn"
    )
}

fn prepare_llvm(target: &Path, downloads: &Path) -> Result<()> {
    let home = llvm_data_home(target).join("tracel");
    let place = home.join(format!("tracel-llvm-{BUNDLER_VERSION}"));
    if place.join(SENTINEL).is_file() {
        return Ok(());
    }
    let unpacked = home.join("unpacked");
    if unpacked.exists() {
        fs::remove_dir_all(&unpacked)?;
    }
    for wheel in &LLVM {
        wheels::unpack(&wheel.fetch(downloads)?, &unpacked)?;
    }
    if place.exists() {
        fs::remove_dir_all(&place)?;
    }
    fs::rename(unpacked.join("mlc_llvm_static/static"), &place)
        .context("the LLVM wheels no longer hold mlc_llvm_static/static")?;
    make_executable(&place.join("bin/llvm-config"))?;
    fs::write(place.join(SENTINEL), "")?;
    fs::remove_dir_all(&unpacked)?;
    say(format!("LLVM is ready in {}", place.display()));
    Ok(())
}

fn prepare_libdevice(target: &Path, downloads: &Path) -> Result<()> {
    let file = cuda_path(target).join(LIBDEVICE);
    if file.is_file() && wheels::digest(&file)? == LIBDEVICE_SHA256 {
        return Ok(());
    }
    let unpacked = target.join("xtask/nvcc");
    wheels::unpack(&NVCC.fetch(downloads)?, &unpacked)?;
    let found = unpacked.join("nvidia/cuda_nvcc").join(LIBDEVICE);
    let digest = wheels::digest(&found)?;
    if digest != LIBDEVICE_SHA256 {
        bail!("libdevice.10.bc has SHA-256 {digest}, but {LIBDEVICE_SHA256} is pinned");
    }
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::rename(&found, &file)?;
    fs::remove_dir_all(&unpacked)?;
    Ok(())
}

#[cfg(unix)]
fn make_executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot make {} executable", path.display()))
}

#[cfg(not(unix))]
fn make_executable(_path: &Path) -> Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_file_has_the_bundler_we_prepare_for() -> Result<()> {
        let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock");
        check_bundler(&fs::read_to_string(lock)?)
    }

    #[test]
    fn another_bundler_is_refused() {
        assert!(check_bundler("name = \"tracel-llvm-bundler\"\nversion = \"24.0.0\"\n").is_err());
    }
}
