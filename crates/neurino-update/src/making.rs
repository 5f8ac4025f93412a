//! The other side: what a release is made of. Whoever makes releases packs folders, names the packages
//! and signs the list.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use jiff::Timestamp;
use neurino_model_store::Digest;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::LIST_NAME;
use crate::error::UpdateError;
use crate::release::{Edition, Package, PackageKind, Release};
use crate::version::Version;

/// What a list says beside its packages.
#[derive(Debug, Clone)]
pub struct Terms {
    /// The version of the packages.
    pub version: Version,
    /// The oldest version that it can replace by itself.
    pub minimum: Version,
    /// From then on the list is not believed any more.
    pub expires: Timestamp,
    /// What is new, by language.
    pub notes: BTreeMap<String, String>,
}

/// Packs a folder as the package of a folder: the same bytes for the same files.
///
/// # Errors
/// [`UpdateError::Io`].
pub fn pack(folder: &Path, package: &Path) -> Result<(), UpdateError> {
    let pack = || -> io::Result<()> {
        let mut files = Vec::new();
        crate::swap::list(folder, Path::new(""), &mut files)?;
        files.sort();
        let mut zip = ZipWriter::new(File::create(package)?);
        for file in files {
            let path = folder.join(&file);
            let name = file.to_string_lossy().replace('\\', "/");
            let options = SimpleFileOptions::default()
                .compression_method(CompressionMethod::Deflated)
                .large_file(fs::metadata(&path)?.len() >= u64::from(u32::MAX))
                .unix_permissions(if runs(&path)? { 0o755 } else { 0o644 });
            zip.start_file(name, options).map_err(io::Error::other)?;
            io::copy(&mut File::open(&path)?, &mut zip)?;
        }
        zip.finish().map_err(io::Error::other)?.sync_all()
    };
    pack().map_err(UpdateError::io("packing", folder))
}

#[cfg(unix)]
fn runs(path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(fs::metadata(path)?.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn runs(path: &Path) -> io::Result<bool> {
    Ok(path.extension().is_some_and(|extension| extension == "exe" || extension == "com"))
}

/// Writes the signed list of the packages in `folder` beside them, and returns it. Files whose names
/// are not those of packages of this version are left out.
///
/// # Errors
/// [`UpdateError::Io`], [`UpdateError::Untrusted`] where the seed is no key,
/// [`UpdateError::NoPackage`] where the folder has none.
pub fn sign(folder: &Path, terms: Terms, seed: &[u8; 32]) -> Result<Release, UpdateError> {
    let Terms { version, minimum, expires, notes } = terms;
    let read = || -> io::Result<Vec<Package>> {
        let mut packages = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let file = entry.file_name().to_string_lossy().into_owned();
            let Some((platform, kind, edition)) = named(&file, version) else { continue };
            let (size_bytes, sha256) = (entry.metadata()?.len(), Digest::of_file(&entry.path())?);
            packages.push(Package { platform, kind, edition, file, size_bytes, sha256 });
        }
        packages.sort_by(|a, b| a.file.cmp(&b.file));
        Ok(packages)
    };
    let packages = read().map_err(UpdateError::io("reading", folder))?;
    if packages.is_empty() {
        let platform = "any machine".into();
        return Err(UpdateError::NoPackage { offered: version, platform });
    }
    let release = Release { version, minimum, expires, notes, packages };
    let path = folder.join(LIST_NAME);
    fs::write(&path, release.seal(seed)?).map_err(UpdateError::io("writing", &path))?;
    Ok(release)
}

/// What a file of a release is for, by the name that `cargo xtask dist` gives it.
fn named(file: &str, version: Version) -> Option<(String, PackageKind, Edition)> {
    let (edition, rest) = match file.strip_prefix("neurino-server") {
        Some(rest) => (Edition::Server, rest),
        None => (Edition::Desktop, file.strip_prefix("neurino")?),
    };
    let version = version.to_string();
    let machine = |text: &str| match text {
        "amd64" | "x86_64" => Some("x86_64"),
        "arm64" | "aarch64" => Some("aarch64"),
        _ => None,
    };
    if let Some(rest) = rest.strip_prefix(&format!("_{version}_")) {
        let machine = machine(rest.strip_suffix(".deb")?)?;
        return Some((format!("linux-{machine}"), PackageKind::Deb, edition));
    }
    let rest = rest.strip_prefix(&format!("-{version}-"))?;
    if let Some(rest) = rest.strip_suffix(".zip") {
        let (system, name) = rest.split_once('-')?;
        let system = Some(system).filter(|s| ["linux", "windows", "macos"].contains(s))?;
        return Some((format!("{system}-{}", machine(name)?), PackageKind::Folder, edition));
    }
    if let Some(rest) = rest.strip_suffix(".AppImage") {
        return Some((format!("linux-{}", machine(rest)?), PackageKind::AppImage, edition));
    }
    let (_, rest) = rest.strip_suffix(".rpm")?.rsplit_once('.')?;
    Some((format!("linux-{}", machine(rest)?), PackageKind::Rpm, edition))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use crate::release::public_key;

    #[test]
    fn packages_are_known_by_their_names() {
        use Edition::{Desktop, Server};
        use PackageKind::{AppImage, Deb, Folder, Rpm};
        let version = Version::new(0, 2, 0);
        let check = |file: &str, platform: &str, kind, edition| {
            assert_eq!(named(file, version), Some((platform.into(), kind, edition)), "{file}");
        };
        check("neurino_0.2.0_amd64.deb", "linux-x86_64", Deb, Desktop);
        check("neurino-server_0.2.0_arm64.deb", "linux-aarch64", Deb, Server);
        check("neurino-0.2.0-1.x86_64.rpm", "linux-x86_64", Rpm, Desktop);
        check("neurino-0.2.0-x86_64.AppImage", "linux-x86_64", AppImage, Desktop);
        check("neurino-0.2.0-linux-x86_64.zip", "linux-x86_64", Folder, Desktop);
        check("neurino-server-0.2.0-linux-x86_64.zip", "linux-x86_64", Folder, Server);
        check("neurino-0.2.0-windows-x86_64.zip", "windows-x86_64", Folder, Desktop);
        for other in ["neurino_0.1.0_amd64.deb", "SHA256SUMS", "neurino-0.2.0-setup.exe", "x.zip"] {
            assert_eq!(named(other, version), None, "{other}");
        }
    }

    #[test]
    fn a_folder_is_packed_named_and_signed() {
        let folder = tempfile::tempdir().unwrap();
        let (tree, out) = (folder.path().join("tree"), folder.path().join("out"));
        fs::create_dir_all(tree.join("resources")).unwrap();
        fs::create_dir_all(&out).unwrap();
        fs::write(tree.join("neurino"), "program").unwrap();
        fs::write(tree.join("resources/a"), "a").unwrap();
        let package = out.join("neurino-0.2.0-linux-x86_64.zip");
        pack(&tree, &package).unwrap();
        let first = fs::read(&package).unwrap();
        pack(&tree, &package).unwrap();
        assert!(first == fs::read(&package).unwrap(), "the same bytes");
        let terms = || Terms {
            version: Version::new(0, 2, 0),
            minimum: Version::new(0, 1, 0),
            expires: "2030-01-01T00:00:00Z".parse().unwrap(),
            notes: BTreeMap::new(),
        };
        let signed = sign(&out, terms(), &[7; 32]).unwrap();
        let text = fs::read_to_string(out.join(LIST_NAME)).unwrap();
        let read = Release::open(&text, &public_key(&[7; 32]).unwrap()).unwrap();
        assert_eq!((&read, read.packages.len()), (&signed, 1));
        assert_eq!(read.packages[0].size_bytes, first.len() as u64);
        let none = sign(&tree, terms(), &[7; 32]);
        assert!(matches!(none, Err(UpdateError::NoPackage { .. })));
    }
}
