//! The certificate of a run that is encrypted: made for it, and believed by nobody else.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::Context as _;
use neurino_coordinator::{Tls, TlsFiles};

/// Whom it is for.
pub(crate) const HOST: &str = "localhost";
/// Names the file of certificates that a program believes instead of its system's. It is read once, and so
/// it is set before the program begins.
const BELIEVED: &str = "SSL_CERT_FILE";
const CERTIFICATE: &str = "neurino-sim.pem";

/// The folder of the certificate that this program believes, if it was begun by [`believing`].
pub fn believed() -> Option<PathBuf> {
    let file = PathBuf::from(std::env::var_os(BELIEVED)?);
    (file.file_name()? == CERTIFICATE).then(|| file.parent().map(Path::to_owned))?
}

/// Whether this program was begun by [`believing`].
pub fn is_believed() -> bool {
    believed().is_some()
}

/// Runs this program again with the same arguments, believing a new certificate.
///
/// # Errors
/// A folder that cannot be written, or a program that cannot be started.
pub fn believing() -> anyhow::Result<ExitCode> {
    let folder = tempfile::tempdir()?;
    let made = rcgen::generate_simple_self_signed([HOST.to_owned()])?;
    let file = folder.path().join(CERTIFICATE);
    std::fs::write(&file, made.cert.pem())?;
    std::fs::write(key(folder.path()), made.signing_key.serialize_pem())?;
    let mut again = Command::new(std::env::current_exe()?);
    let status = again.args(std::env::args_os().skip(1)).env(BELIEVED, &file).status()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What a listener encrypts with.
pub(crate) fn open(folder: &Path) -> anyhow::Result<Tls> {
    let files = TlsFiles { certificates: folder.join(CERTIFICATE), key: key(folder) };
    Tls::open(files).context("the certificate of the run")
}

fn key(folder: &Path) -> PathBuf {
    folder.join("key.pem")
}
