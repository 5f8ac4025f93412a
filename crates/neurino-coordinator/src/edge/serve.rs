//! Connections: how many, how long they may take to speak, how they end.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::Request;
use axum::response::Response;
use axum::{Extension, Router};
use hyper::body::Incoming;
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
use tower::Service;

use super::newcomers::far_network;
use super::{Peer, Tls};
use crate::config::Limits;

/// How long running requests may go on once the server stops.
const GRACE: Duration = Duration::from_millis(500);
/// How long they may take to end then: answers that are not there end with an error that says so.
const DRAIN: Duration = Duration::from_secs(1);
/// One address may have this part of all connections.
const ADDRESS_SHARE: usize = 8;
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
    let leaving = CancellationToken::new();
    let router = router.layer(Extension(Leaving(leaving.clone())));
    let crowd = Arc::new(Crowd::new(limits.connections_max / ADDRESS_SHARE));
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
        let Some(place) = crowd.enter(peer.0) else {
            tracing::debug!("one address has too many connections");
            continue;
        };
        let (router, closing) = (FromPeer { router: router.clone(), peer }, closing.clone());
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
            drop((permit, place));
        });
    }
    drop(listener);
    closing.cancel();
    connections.close();
    if tokio::time::timeout(GRACE, connections.wait()).await.is_err() {
        leaving.cancel();
        if tokio::time::timeout(DRAIN, connections.wait()).await.is_err() {
            tracing::info!(
                connections.open = connections.len(),
                "some requests were still running"
            );
        }
    }
    Ok(())
}

/// Tells a request that came by a connection when to end: a server that stops waits no longer for its
/// answer. Those behind a gateway go on with whoever takes over.
#[derive(Clone)]
pub(super) struct Leaving(CancellationToken);

impl Leaving {
    /// The token of a request; none of one that came another way.
    pub(super) fn of(request: &axum::extract::Request) -> Option<CancellationToken> {
        request.extensions().get::<Self>().map(|leaving| leaving.0.clone())
    }
}

/// How many connections each address has open. Those of this machine and its private network are not
/// counted: there is the proxy that encrypts for all of them.
struct Crowd {
    most: usize,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// A connection that is counted, until it is dropped.
struct Place(Option<(Arc<Crowd>, IpAddr)>);

impl Crowd {
    fn new(most: usize) -> Self {
        Self { most: most.max(1), open: Mutex::default() }
    }

    /// Counts one more connection; none if its address has as many as it may.
    fn enter(self: &Arc<Self>, from: IpAddr) -> Option<Place> {
        let Some(from) = far_network(from) else { return Some(Place(None)) };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(from).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Place(Some((Arc::clone(self), from))))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((crowd, from)) = &self.0 else { return };
        let mut open = crowd.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(from) {
            *count -= 1;
            if *count == 0 {
                open.remove(from);
            }
        }
    }
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

/// The router for one connection: its requests know where they come from. A layer would make a copy of all
/// routes for each connection, which an idle node holds for as long as it is connected.
#[derive(Clone)]
struct FromPeer {
    router: Router,
    peer: Peer,
}

impl Service<Request<Incoming>> for FromPeer {
    type Response = Response;
    type Error = Infallible;
    type Future = <Router as Service<Request<Incoming>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request<Incoming>>::poll_ready(&mut self.router, cx)
    }

    fn call(&mut self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.peer);
        self.router.call(request)
    }
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: FromPeer,
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
            match tokio::time::timeout(GRACE + DRAIN, connection).await {
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn one_address_does_not_take_all_connections() {
        let crowd = Arc::new(Crowd::new(2));
        let enter = |from: &str| crowd.enter(from.parse().unwrap());
        let (one, two) = (enter("203.0.113.7"), enter("203.0.113.7"));
        assert!(one.is_some() && two.is_some());
        assert!(enter("203.0.113.7").is_none());
        assert!(enter("::ffff:203.0.113.7").is_none(), "the same one");
        assert!(enter("203.0.113.8").is_some(), "another");
        drop(one);
        let again = enter("203.0.113.7");
        assert!(again.is_some() && enter("203.0.113.7").is_none());
        let of_a_house = [enter("2001:db8::1"), enter("2001:db8::2")];
        assert!(of_a_house.iter().all(Option::is_some) && enter("2001:db8::3").is_none());
        let near: Vec<_> = (0..100).map(|_| enter("127.0.0.1").zip(enter("10.0.0.2"))).collect();
        assert!(near.iter().all(Option::is_some), "a proxy asks for many");
        drop((two, again, of_a_house, near));
        assert!(crowd.open.lock().unwrap().is_empty());
    }
}
