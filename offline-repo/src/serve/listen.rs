// SPDX-License-Identifier: GPL-3.0-or-later
//! Connections: taken as long as there is room, kept as long as they make headway, and ended in good order.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, interval_at, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::Limits;
use super::meter::{Headway, Meter, Totals};
use super::site::complain;

/// What the kernel keeps of one connection that its reader has not taken. Small, so that reading is noticed soon: about this
/// much must be taken in the time in which there must be headway.
const SEND_BUFFER: u32 = 128 << 10;
/// What hyper keeps of it in addition.
const BUFFER: usize = 64 << 10;
/// The longest list of headers of a request.
const HEADERS: u32 = 16 << 10;
/// How many requests one HTTP/2 connection makes at once.
const STREAMS: u32 = 8;

/// SIGTERM or SIGINT.
pub struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    /// From now on they are heard here.
    ///
    /// # Errors
    /// When they cannot be.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

/// Listens at an address.
///
/// # Errors
/// When that cannot be done.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    socket.set_reuseaddr(true)?;
    // Each connection has it from the listener.
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(address)?;
    socket.listen(128)
}

/// How connections are answered.
pub struct Server {
    /// By whom.
    pub router: Router,
    /// Behind TLS, where that is wanted.
    pub tls: Option<TlsAcceptor>,
    /// Within which limits.
    pub limits: Limits,
    /// What is counted.
    pub totals: Arc<Totals>,
}

impl Server {
    /// Answers until a signal comes, and then lets downloads come to their end; gives the number of those that did not.
    pub async fn run(self, listener: TcpListener, mut signals: Signals) -> usize {
        let server = Arc::new(self);
        let room = Arc::new(Semaphore::new(server.limits.connections));
        let (stop, stopped) = watch::channel(false);
        loop {
            // Where there is no room, who comes waits in the kernel's queue.
            let place = tokio::select! {
                place = Arc::clone(&room).acquire_owned() => place,
                () = signals.next() => break,
            };
            let taken = tokio::select! {
                taken = listener.accept() => taken,
                () = signals.next() => break,
            };
            match taken {
                Ok((stream, _)) => {
                    let (server, stopped) = (Arc::clone(&server), stopped.clone());
                    tokio::spawn(async move {
                        server.connection(stream, stopped).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    // Out of descriptors, or the other side is gone already. Others end meanwhile.
                    complain(&format!("cannot take a connection: {error}"));
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
        drop(listener);
        // Nobody hears it where no connection is open.
        stop.send_replace(true);
        let all = u32::try_from(server.limits.connections).unwrap_or(u32::MAX);
        tokio::select! {
            ended = timeout(server.limits.grace, room.acquire_many(all)) => drop(ended),
            () = signals.next() => {}
        }
        usize::try_from(server.totals.open.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }

    async fn connection(&self, stream: TcpStream, mut stopped: watch::Receiver<bool>) {
        Totals::count(&self.totals.connections);
        Totals::count(&self.totals.open);
        // Slower otherwise, and no more than that.
        drop(stream.set_nodelay(true));
        match &self.tls {
            None => self.http(stream, stopped).await,
            Some(tls) => {
                let secured = tokio::select! {
                    secured = timeout(self.limits.patience, tls.accept(stream)) => Some(secured),
                    _ = stopped.wait_for(|stop| *stop) => None,
                };
                match secured {
                    Some(Ok(Ok(stream))) => self.http(stream, stopped).await,
                    Some(_) => Totals::count(&self.totals.strangers),
                    None => {}
                }
            }
        }
        self.totals.open.fetch_sub(1, Ordering::Relaxed);
    }

    async fn http(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        mut stopped: watch::Receiver<bool>,
    ) {
        let patience = self.limits.patience;
        let meter = Arc::new(Meter::default());
        let answers = TowerToHyperService::new(self.router.clone());
        let service = service_fn(|mut request: Request<Incoming>| {
            request.extensions_mut().insert(Arc::clone(&meter));
            answers.call(request.map(Body::new))
        });
        let mut builder = Builder::new(TokioExecutor::new());
        // A header that never ends is no headway, as below.
        builder
            .http1()
            .header_read_timeout(None)
            .max_buf_size(BUFFER)
            .max_headers(64);
        builder
            .http2()
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(HEADERS)
            .max_send_buf_size(BUFFER);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let mut look = interval_at(Instant::now() + patience, patience);
        let mut stopping = false;
        loop {
            tokio::select! {
                // It ended, or broke off: its other side knows why.
                _ = connection.as_mut() => return,
                _ = stopped.wait_for(|stop| *stop), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
                _ = look.tick() => {
                    let counter = match meter.headway() {
                        Headway::Made => continue,
                        Headway::Stuck => &self.totals.slow,
                        Headway::Idle => &self.totals.idle,
                    };
                    Totals::count(counter);
                    return;
                }
            }
        }
    }
}
