//! The grammar of `neurino coordinator gateway`, and of what a coordinator with gateways is told.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

/// The certificate of a listener.
#[derive(Debug, Args)]
pub struct TlsArgs {
    /// Encrypt with this certificate, a PEM file with those that lead to a known one after it. It is read
    /// again when it is renewed.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's private key, a PEM file.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
}

/// The way between a coordinator and its gateways.
#[derive(Debug, Args)]
pub struct FabricArgs {
    /// Where NATS is: `nats://HOST:PORT` on this machine, `tls://HOST:PORT` elsewhere, several with
    /// commas between them. A password belongs into `NEURINO_NATS_URL`, which other users cannot read.
    #[arg(long, value_name = "ADDRESS")]
    pub nats: Option<String>,
    /// The file with the credentials that NATS wants.
    #[arg(long, value_name = "FILE")]
    pub nats_credentials: Option<PathBuf>,
    /// The key that coordinator and gateways share; without it `coordinator/fabric.key` in
    /// the data folder.
    #[arg(long, value_name = "FILE")]
    pub fabric_key: Option<PathBuf>,
}

/// `neurino coordinator gateway`
#[derive(Debug, Args)]
pub struct GatewayArgs {
    /// Where the coordinator is reached.
    #[command(flatten)]
    pub fabric: FabricArgs,
    /// Name of the coordinator's network.
    #[arg(long, value_name = "NAME", default_value = "club")]
    pub network: String,
    /// Address and port to listen at; for other machines it takes a certificate, or a TLS proxy in front.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:43110")]
    pub listen: SocketAddr,
    /// Encryption of that address.
    #[command(flatten)]
    pub tls: TlsArgs,
    /// Allow an address that other machines can reach, because a TLS proxy stands in front.
    #[arg(long)]
    pub behind_proxy: bool,
    /// Header in which that proxy alone says whom it asks for, like `x-forwarded-for`; limits new nodes.
    #[arg(long, value_name = "NAME", requires = "behind_proxy")]
    pub for_header: Option<String>,
}
