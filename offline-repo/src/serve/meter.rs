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
    /// Of these, those that were dropped because they made no headway.
    pub slow: AtomicU64,
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
        self.bodies.lock().unwrap_or_else(PoisonError::into_inner).push(watched);
        sent
    }

    /// Whether the connection made headway since this was asked before: some of each file that was on its way then was sent;
    /// where none was, a request came.
    #[must_use]
    pub fn headway(&self) -> bool {
        let requests = self.requests.swap(0, Ordering::Relaxed);
        let mut bodies = self.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        bodies.retain(|body| body.sent.strong_count() > 0);
        let mut moved = !bodies.is_empty() || requests > 0;
        for body in bodies.iter_mut() {
            let sent = body.sent.upgrade().map(|sent| sent.load(Ordering::Relaxed));
            moved &= sent.is_none() || sent != body.before;
            body.before = sent;
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_makes_no_headway_is_noticed() {
        let meter = Meter::default();
        assert!(!meter.headway(), "nothing was asked for");
        meter.request();
        assert!(meter.headway());
        assert!(!meter.headway(), "nor again");
        meter.request();
        let sent = meter.body();
        assert!(meter.headway(), "it has only begun");
        sent.store(1, Ordering::Relaxed);
        assert!(meter.headway());
        // Further requests do not make up for a file that stands still.
        meter.request();
        let other = meter.body();
        other.store(5, Ordering::Relaxed);
        assert!(!meter.headway());
        drop(sent);
        other.store(6, Ordering::Relaxed);
        assert!(meter.headway());
        drop(other);
        assert!(!meter.headway());
    }
}
