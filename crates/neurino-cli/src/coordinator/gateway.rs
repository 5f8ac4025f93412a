//! `neurino coordinator gateway`: connections of nodes and clients, for a coordinator that is reached
//! over NATS. And what a coordinator with gateways is opened with.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Context as _;
use neurino_config::env;
use neurino_coordinator::{
    FabricAddress, FabricConfig, FabricKey, Gateway, GatewayConfig, Limits, Tls, TlsFiles,
    check_listen_address,
};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::folder;
use crate::args::{FabricArgs, GatewayArgs, TlsArgs};
use crate::output::{self, Format};
use crate::{Setting, interrupted};

/// The key that coordinator and gateways share, beside the network's books.
const KEY_FILE: &str = "fabric.key";

/// Where NATS is, if it was named. An address that is not text names nothing, and is not shown.
pub(super) fn address(args: &FabricArgs) -> anyhow::Result<Option<FabricAddress>> {
    let secret = |address: OsString| address.into_string().unwrap_or_default();
    let Some(address) = args.nats.clone().or_else(|| env::var(env::NATS_URL).map(secret)) else {
        return Ok(None);
    };
    let credentials = args.nats_credentials.clone();
    let credentials = credentials.or_else(|| env::var(env::NATS_CREDENTIALS).map(PathBuf::from));
    Ok(Some(FabricAddress::new(address.trim(), credentials)?))
}

/// Where the shared key lies.
pub(super) fn key_file(setting: &Setting, args: &FabricArgs) -> PathBuf {
    args.fabric_key.clone().unwrap_or_else(|| folder(setting).join(KEY_FILE))
}

/// The certificate, if one was named.
pub(super) fn certificate(args: &TlsArgs) -> anyhow::Result<Option<Tls>> {
    let (Some(certificates), Some(key)) = (args.tls_cert.clone(), args.tls_key.clone()) else {
        return Ok(None);
    };
    Ok(Some(Tls::open(TlsFiles { certificates, key })?))
}

pub(super) async fn run(setting: &Setting, args: &GatewayArgs) -> anyhow::Result<()> {
    let tls = certificate(&args.tls)?;
    check_listen_address(args.listen, args.behind_proxy || tls.is_some())?;
    let address = address(&args.fabric)?
        .context("say where NATS is: --nats nats://127.0.0.1:4222, or NEURINO_NATS_URL")?;
    let key = FabricKey::load(&key_file(setting, &args.fabric))?;
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("{} cannot be listened on", args.listen))?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{}", listener.local_addr()?);
    let config = GatewayConfig {
        network: args.network.clone(),
        fabric: FabricConfig { address: address.clone(), key },
        limits: Limits::default(),
        client_address_header: args.for_header.clone(),
    };
    let stop = CancellationToken::new();
    let gateway = Gateway::open(config, stop.clone()).await?;
    match setting.format {
        Format::Json => output::json_line(&json!({
            "event": "started", "gateway_url": format!("{url}/v1"), "network": args.network,
        }))?,
        Format::Text => {
            output::line(format!(
                "Gateway   of the network {}, over NATS at {address}",
                args.network
            ));
            output::line(format!("Mine for it:        neurino node --coordinator {url}"));
            output::line(format!("Send requests to:   {url}/v1  (OpenAI-compatible)"));
            output::line("Ctrl-C ends.");
        }
    }
    let serving = gateway.serve(listener, tls);
    tokio::pin!(serving);
    tokio::select! {
        ended = &mut serving => ended?,
        () = interrupted() => {
            stop.cancel();
            serving.await?;
        }
    }
    Ok(())
}
