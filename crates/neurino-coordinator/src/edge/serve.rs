//! Connections: how many, how long they may take to speak, how they end.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1::Builder;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Sleep, interval};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Peer, Tls};
use crate::config::Limits;

/// How long running requests may take to end once the server stops.
const DRAIN: Duration = Duration::from_secs(5);
/// Rest after a failed accept: out of file descriptors, mostly.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// How often the files of a certificate are looked at.
const RENEW: Duration = Duration::from_mins(1);

/// Serves until `stop` or `ended` is cancelled, encrypted if there is a certificate.
pub(crate) async fn serve(
    limits: &Limits,
    ended: &CancellationToken,
    router: Router,
    (listener, tls): (TcpListener, Option<Tls>),
    stop: CancellationToken,
) -> Result<(), std::io::Error> {
    let address = listener.local_addr()?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    tracing::info!(%address, "serving on {scheme}://{address}");
    let mut renew = interval(RENEW);
    let room = Arc::new(Semaphore::new(limits.connections_max));
    let head_wait = Duration::from_millis(limits.request_read_ms);
    let write_wait = Duration::from_millis(limits.response_write_ms);
    let connections = TaskTracker::new();
    // Ends the connections whichever of the two stops.
    let closing = stop.child_token();
    loop {
        let accepted = tokio::select! {
            _ = renew.tick() => {
                if let Some(tls) = &tls {
                    tls.renew();
                }
                continue;
            }
            () = stop.cancelled() => break,
            () = ended.cancelled() => break,
            accepted = accept(&listener, &room) => accepted,
        };
        let Some((stream, peer, permit)) = accepted else {
            tokio::time::sleep(ACCEPT_RETRY).await;
            continue;
        };
        let (router, closing) = (router.clone().layer(Extension(peer)), closing.clone());
        let acceptor = tls.as_ref().map(Tls::acceptor);
        connections.spawn(async move {
            // Tokens are small; waiting for company would be felt.
            let _ = stream.set_nodelay(true);
            match acceptor {
                None => connection(stream, router, head_wait, write_wait, closing).await,
                Some(acceptor) => {
                    if let Some(stream) = greeted(acceptor, stream, head_wait, &closing).await {
                        connection(stream, router, head_wait, write_wait, closing).await;
                    }
                }
            }
            drop(permit);
        });
    }
    drop(listener);
    closing.cancel();
    connections.close();
    if tokio::time::timeout(DRAIN, connections.wait()).await.is_err() {
        tracing::info!(connections.open = connections.len(), "some requests were still running");
    }
    Ok(())
}

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> Option<(TcpStream, Peer, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(room).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, address)) => Some((stream, Peer(address.ip()), permit)),
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            None
        }
    }
}

/// The encrypted stream, unless the other side speaks otherwise or too slowly.
async fn greeted(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    within: Duration,
    closing: &CancellationToken,
) -> Option<TlsStream<TcpStream>> {
    let greeted = tokio::select! {
        () = closing.cancelled() => return None,
        greeted = tokio::time::timeout(within, acceptor.accept(stream)) => greeted,
    };
    match greeted {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a connection did not begin with TLS");
            None
        }
        Err(_) => None,
    }
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    head_wait: Duration,
    write_wait: Duration,
    closing: CancellationToken,
) {
    let stream = Impatient { stream, wait: write_wait, stuck: None };
    // Not the builder that tells HTTP/1 from HTTP/2: it waits for the first bytes forever, and its
    // HTTP/2 knows none of these limits.
    let connection = Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_wait)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(DRAIN, connection).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended badly");
    }
}

/// A connection that ends once its other side has taken nothing for a time: an answer that nobody reads
/// holds a place, and the memory of what is not sent yet.
struct Impatient<S> {
    stream: S,
    wait: Duration,
    /// Runs while a write waits for room.
    stuck: Option<Pin<Box<Sleep>>>,
}

impl<S> Impatient<S> {
    fn waited<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<std::io::Result<T>>,
    ) -> Poll<std::io::Result<T>> {
        if polled.is_ready() {
            self.stuck = None;
            return polled;
        }
        let wait = self.wait;
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(tokio::time::sleep(wait)));
        stuck.as_mut().poll(cx).map(|()| Err(std::io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.waited(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.waited(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.waited(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.waited(cx, polled)
    }
}
