//! Whose certificates are believed: those of the authorities that browsers know, and those that this
//! machine's owner has added. A club may have one of its own, and many a virus scanner reads along.

use std::error::Error;
use std::io;
use std::sync::{Arc, OnceLock};

use rustls::{CertificateError, ClientConfig, RootCertStore};

/// How a WebSocket's other side is checked; read once, for a list of the system takes a while.
pub(crate) fn believed() -> Arc<ClientConfig> {
    static BELIEVED: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    Arc::clone(BELIEVED.get_or_init(|| {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let own = rustls_native_certs::load_native_certs();
        for error in &own.errors {
            tracing::debug!(%error, "a certificate of this machine cannot be read");
        }
        // Old ones among them that nobody can use any more are passed over.
        roots.add_parsable_certificates(own.certs);
        // Named, because a program that links two providers has no default one.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring supports the default versions of TLS")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(tls)
    }))
}

/// What helps where the other side's certificate is not believed; `None` for errors of another kind.
pub fn distrust(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(rustls::Error::InvalidCertificate(why)) = error.downcast_ref() {
            return Some(what_helps(why));
        }
        // Asked for its source, such an error passes over what it holds itself.
        let held = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = held.map(|held| held as &(dyn Error + 'static)).or_else(|| error.source());
    }
    None
}

fn what_helps(why: &CertificateError) -> &'static str {
    use CertificateError::{
        Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet,
        NotValidYetContext,
    };
    match why {
        Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. } => {
            "check this machine's date; if that is right, the certificate has to be renewed"
        }
        NotValidForName | NotValidForNameContext { .. } => {
            "check the address: the certificate is for another name"
        }
        _ => {
            "add the certificate of its authority to the system's store, or name its file in \
             SSL_CERT_FILE"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ClientError;

    fn refused(why: CertificateError) -> io::Error {
        let tls = rustls::Error::InvalidCertificate(why);
        io::Error::other(io::Error::new(io::ErrorKind::InvalidData, tls))
    }

    #[test]
    fn a_certificate_is_told_from_a_network_that_fails() {
        assert_eq!(distrust(&io::Error::from(io::ErrorKind::ConnectionRefused)), None);
        assert_eq!(distrust(&io::Error::other("no route")), None);
        let hint = |why| distrust(&refused(why)).expect("found");
        assert!(hint(CertificateError::UnknownIssuer).contains("SSL_CERT_FILE"));
        assert!(hint(CertificateError::Expired).contains("date"));
        assert!(hint(CertificateError::NotValidForName).contains("address"));

        let error = ClientError::unreachable("https://x", refused(CertificateError::UnknownIssuer));
        assert!(matches!(error, ClientError::Untrusted { .. }), "{error}");
        let body = error.body();
        assert!(body.message.contains("certificate"), "{body:?}");
        assert!(body.hint.is_some_and(|hint| hint.contains("SSL_CERT_FILE")));
        let error = ClientError::unreachable("https://x", "no route");
        assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    }
}
