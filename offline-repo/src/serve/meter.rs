// SPDX-License-Identifier: GPL-3.0-or-later
//! What is counted: for the operator over the life of the server, and on each connection, so that one which makes no headway
//! is noticed. Bytes count when the connection takes them; between it and a reader who takes none are only buffers, which
//! are bounded.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Over the life of the server.
#[derive(Debug, Default)]
pub struct Totals {
    /// Answers by the first digit of their status, from 2 on.
    pub answers: [AtomicU64; 4],
    /// Bytes of files that were sent.
    pub bytes: AtomicU64,
    /// Connections that were taken.
    pub connections: AtomicU64,
    /// Of these, those that are open.
    pub open: AtomicU64,
    /// Of these, those that were dropped because they did not take a file that they had asked for.
    pub slow: AtomicU64,
    /// Of these, those that were closed because nothing was asked for.
    pub idle: AtomicU64,
    /// Of these, those whose TLS handshake failed.
    pub strangers: AtomicU64,
}

impl Totals {
    /// One more.
    pub fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an answer.
    pub fn answered(&self, status: u16) {
        if let Some(counter) = usize::from(status / 100)
            .checked_sub(2)
            .and_then(|class| self.answers.get(class))
        {
            Self::count(counter);
        }
    }
}

/// What a connection did for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Headway {
    /// Some of each file that was on its way was sent; where none was, a request came.
    Made,
    /// A file that was on its way stands still.
    Stuck,
    /// No file was on its way, and no request came whole.
    Idle,
}

/// On one connection.
#[derive(Debug, Default)]
pub struct Meter {
    requests: AtomicU64,
    bodies: Mutex<Vec<Watched>>,
}

/// A file on its way, and how much of it was sent when it was last looked at.
#[derive(Debug)]
struct Watched {
    sent: Weak<AtomicU64>,
    before: Option<u64>,
}

impl Meter {
    /// A request came.
    pub fn request(&self) {
        Totals::count(&self.requests);
    }

    /// The counter of a file that is sent from now on, until it is dropped.
    #[must_use]
    pub fn body(&self) -> Arc<AtomicU64> {
        let sent = Arc::new(AtomicU64::new(0));
        let watched = Watched {
            sent: Arc::downgrade(&sent),
            before: None,
        };
        let mut bodies = self.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        // So many requests may come between two looks that what ended must not be kept until the next one.
        bodies.retain(|body| body.sent.strong_count() > 0);
        bodies.push(watched);
        sent
    }

    /// What the connection did since this was asked before.
    #[must_use]
    pub fn headway(&self) -> Headway {
        let requests = self.requests.swap(0, Ordering::Relaxed);
        let mut bodies = self.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        bodies.retain(|body| body.sent.strong_count() > 0);
        if bodies.is_empty() && requests == 0 {
            return Headway::Idle;
        }
        let mut moved = true;
        for body in bodies.iter_mut() {
            let sent = body.sent.upgrade().map(|sent| sent.load(Ordering::Relaxed));
            moved &= sent.is_none() || sent != body.before;
            body.before = sent;
        }
        if moved { Headway::Made } else { Headway::Stuck }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_makes_no_headway_is_noticed() {
        let meter = Meter::default();
        assert_eq!(meter.headway(), Headway::Idle);
        meter.request();
        assert_eq!(meter.headway(), Headway::Made);
        assert_eq!(meter.headway(), Headway::Idle);
        meter.request();
        let sent = meter.body();
        assert_eq!(meter.headway(), Headway::Made, "it has only begun");
        sent.store(1, Ordering::Relaxed);
        assert_eq!(meter.headway(), Headway::Made);
        // Further requests do not make up for a file that stands still.
        meter.request();
        let other = meter.body();
        other.store(5, Ordering::Relaxed);
        assert_eq!(meter.headway(), Headway::Stuck);
        drop(sent);
        other.store(6, Ordering::Relaxed);
        assert_eq!(meter.headway(), Headway::Made);
        drop(other);
        assert_eq!(meter.headway(), Headway::Idle);
    }
    #[test]
    fn files_that_ended_are_forgotten() {
        let meter = Meter::default();
        let standing = meter.body();
        for _ in 0..100 {
            drop(meter.body());
        }
        assert!(meter.bodies.lock().unwrap().len() <= 2);
        drop(standing);
    }
}
