//! Whose certificates are believed: those of the authorities that browsers know, and those that this
//! machine's owner has added. A club may have one of its own, and many a virus scanner reads along.

use std::sync::{Arc, OnceLock};

use rustls::{ClientConfig, RootCertStore};

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
