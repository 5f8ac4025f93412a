//! The certificate of a listener, from files that are read again when they are renewed.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

/// Where a certificate and its key are, both in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, and after it those that lead to one that clients know.
    pub certificates: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error(
        "{path} cannot be read as PEM; check that the file is there and that this user may read it"
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: pem::Error,
    },
    /// A file holds something else.
    #[error("{path} holds no {wanted} in PEM; `--tls-cert` and `--tls-key` may be mixed up")]
    Missing {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        wanted: &'static str,
    },
    /// The two files do not go together, or their kind is not known.
    #[error("the certificate {certificates} and the key {key} cannot be used together: {source}")]
    Unusable {
        /// The certificate's file.
        certificates: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// The cause.
        #[source]
        source: rustls::Error,
    },
}

/// What a listener encrypts with.
pub struct Tls {
    files: TlsFiles,
    state: Mutex<State>,
}

struct State {
    config: Arc<ServerConfig>,
    /// When the files were written that were read last, well or not.
    written: [Option<SystemTime>; 2],
}

impl Tls {
    /// Reads certificate and key.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn open(files: TlsFiles) -> Result<Self, TlsError> {
        // Before the files: what is written meanwhile is read again.
        let written = files.written();
        let config = files.read()?;
        Ok(Self { files, state: Mutex::new(State { config, written }) })
    }

    /// What new connections begin with.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(Arc::clone(&state.config))
    }

    /// Reads the files again if they were written. Those that cannot be used change nothing.
    pub(crate) fn renew(&self) {
        let written = self.files.written();
        let known = self.state.lock().unwrap_or_else(PoisonError::into_inner).written;
        if written == known {
            return;
        }
        let read = self.files.read();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.written = written;
        match read {
            Ok(config) => {
                tracing::info!("the certificate was renewed");
                state.config = config;
            }
            Err(error) => tracing::warn!(%error, "the former certificate stays in use"),
        }
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

impl TlsFiles {
    fn written(&self) -> [Option<SystemTime>; 2] {
        let written = |path: &Path| std::fs::metadata(path).and_then(|m| m.modified()).ok();
        [written(&self.certificates), written(&self.key)]
    }

    fn read(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let chain = CertificateDer::pem_file_iter(&self.certificates)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|source| unusable(&self.certificates, "certificate", source))?;
        if chain.is_empty() {
            let path = self.certificates.clone();
            return Err(TlsError::Missing { path, wanted: "certificate" });
        }
        let key = PrivateKeyDer::from_pem_file(&self.key)
            .map_err(|source| unusable(&self.key, "private key", source))?;
        // Named, because a program that links two providers has no default one.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring supports the default versions of TLS")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|source| TlsError::Unusable {
                certificates: self.certificates.clone(),
                key: self.key.clone(),
                source,
            })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

fn unusable(path: &Path, wanted: &'static str, source: pem::Error) -> TlsError {
    let path = path.to_owned();
    match source {
        pem::Error::NoItemsFound => TlsError::Missing { path, wanted },
        source => TlsError::Unreadable { path, source },
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    /// A certificate of its own for this machine.
    fn written(folder: &Path) -> TlsFiles {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let files = TlsFiles { certificates: folder.join("cert.pem"), key: folder.join("key.pem") };
        std::fs::write(&files.certificates, made.cert.pem()).unwrap();
        std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        files
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let files = written(folder.path());
        let refused = |files: &TlsFiles| Tls::open(files.clone()).unwrap_err();
        let swapped = TlsFiles { certificates: files.key.clone(), key: files.certificates.clone() };
        assert!(matches!(refused(&swapped), TlsError::Missing { wanted: "certificate", .. }));
        let no_key = TlsFiles { key: files.certificates.clone(), ..files.clone() };
        assert!(matches!(refused(&no_key), TlsError::Missing { wanted: "private key", .. }));
        let gone = TlsFiles { key: folder.path().join("gone"), ..files.clone() };
        let error = refused(&gone);
        assert!(matches!(error, TlsError::Unreadable { .. }), "{error}");
        assert!(error.to_string().contains("gone"), "{error}");
        let other = tempfile::tempdir().unwrap();
        let stranger = TlsFiles { key: written(other.path()).key, ..files.clone() };
        assert!(matches!(refused(&stranger), TlsError::Unusable { .. }));
        assert!(Tls::open(files).is_ok());
    }

    #[test]
    fn a_renewed_certificate_is_taken_and_a_broken_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let tls = Tls::open(written(folder.path())).unwrap();
        let config = |tls: &Tls| Arc::as_ptr(&tls.state.lock().unwrap().config);
        let first = config(&tls);
        tls.renew();
        assert_eq!(config(&tls), first, "nothing was written");
        let later = SystemTime::now() + std::time::Duration::from_secs(5);
        let touch = |files: &TlsFiles| {
            let file = std::fs::File::options().append(true).open(&files.certificates).unwrap();
            file.set_modified(later).unwrap();
        };
        touch(&written(folder.path()));
        tls.renew();
        let second = config(&tls);
        assert_ne!(second, first);
        std::fs::write(folder.path().join("cert.pem"), "not PEM").unwrap();
        tls.renew();
        assert_eq!(config(&tls), second, "the former one stays");
    }
}
