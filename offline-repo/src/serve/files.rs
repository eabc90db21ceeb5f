// SPDX-License-Identifier: GPL-3.0-or-later
//! A file of the repository as an answer: opened without leaving the repository, whole, in part, or not at all where the
//! asker has it already.
//!
//! # Attacks faced
//! A link, a pipe or a device in the tree, also one that comes while the server runs: `openat2` resolves below the
//! repository and through no link, nothing is waited for, and only a regular file is read. A file that becomes shorter while
//! it is sent breaks the connection off, so that the reader does not take it for the end.

use std::fs::File;
use std::future::Future;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use http_body::{Frame, SizeHint};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use tokio::task::{JoinHandle, spawn_blocking};

use super::meter::{Meter, Totals};
use super::place::Keep;
use super::range::{self, Asked};
use crate::archive::CERTIFICATE;

/// How much is read at a time.
const BLOCK: u64 = 64 << 10;

/// A regular file of the repository.
#[derive(Debug)]
pub struct Opened {
    file: File,
    size: u64,
    modified: String,
    /// Another file, or the same one written anew, has another.
    tag: String,
}

/// Opens a path below a directory; nothing where no regular file stands there.
///
/// # Errors
/// When nobody can say.
pub fn open(directory: &Path, path: &str) -> io::Result<Option<Opened>> {
    let directory = File::open(directory)?;
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    let file = match openat2(&directory, path, how) {
        Ok(file) => File::from(file),
        // Missing, behind a file, behind a link, outside, too long, or a socket.
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::EXDEV | Errno::ENAMETOOLONG | Errno::ENXIO) => {
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    let data = file.metadata()?;
    if !data.is_file() {
        return Ok(None);
    }
    let modified: DateTime<Utc> = data.modified()?.into();
    Ok(Some(Opened {
        size: data.len(),
        modified: modified.format("%a, %d %b %Y %H:%M:%S GMT").to_string(),
        tag: format!(
            "\"{:x}-{:x}-{:x}\"",
            data.ino(),
            data.len(),
            modified.timestamp_nanos_opt().unwrap_or_default()
        ),
        file,
    }))
}

impl Opened {
    /// Answers a request for it.
    #[must_use]
    pub fn answer(self, name: &str, keep: Keep, asking: &HeaderMap, meter: &Meter, totals: Arc<Totals>) -> Response {
        let cache = match keep {
            Keep::Forever => "max-age=31536000, immutable",
            Keep::Ask => "no-cache",
        };
        let kind = match name.rsplit('.').next() {
            Some("json") => "application/json",
            Some("asc") if name.ends_with(CERTIFICATE) => "application/pgp-keys",
            Some("asc" | "gpg") => "application/pgp-signature",
            _ => "application/octet-stream",
        };
        let common = [
            (header::ETAG, self.tag.clone()),
            (header::LAST_MODIFIED, self.modified.clone()),
            (header::CACHE_CONTROL, cache.to_owned()),
            (header::ACCEPT_RANGES, "bytes".to_owned()),
        ];
        if self.known(asking) {
            return (StatusCode::NOT_MODIFIED, common).into_response();
        }
        let (status, first, length, range) = match self.asked(asking) {
            Asked::Whole => (StatusCode::OK, 0, self.size, None),
            Asked::Part(first, last) => {
                let range = format!("bytes {first}-{last}/{}", self.size);
                (StatusCode::PARTIAL_CONTENT, first, last - first + 1, Some(range))
            }
            Asked::Nothing => {
                let range = [(header::CONTENT_RANGE, format!("bytes */{}", self.size))];
                return (StatusCode::RANGE_NOT_SATISFIABLE, common, range).into_response();
            }
        };
        let body = Body::new(Sending {
            file: Arc::new(self.file),
            at: first,
            left: length,
            reading: None,
            sent: meter.body(),
            totals,
        });
        let own = [
            (header::CONTENT_TYPE, kind.to_owned()),
            (header::CONTENT_LENGTH, length.to_string()),
        ];
        let range = range.map(|range| [(header::CONTENT_RANGE, range)]);
        match range {
            Some(range) => (status, common, own, range, body).into_response(),
            None => (status, common, own, body).into_response(),
        }
    }

    /// Whether the asker has this very file (RFC 9110, 13.2.2).
    fn known(&self, asking: &HeaderMap) -> bool {
        let text = |name| asking.get(name).and_then(|value| value.to_str().ok());
        match text(header::IF_NONE_MATCH) {
            Some(tags) => tags.split(',').any(|tag| {
                let tag = tag.trim();
                tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == self.tag
            }),
            None => text(header::IF_MODIFIED_SINCE) == Some(&self.modified),
        }
    }

    fn asked(&self, asking: &HeaderMap) -> Asked {
        let text = |name| asking.get(name).and_then(|value| value.to_str().ok());
        // The rest of what it has the beginning of; of another file it wants all.
        let same = asking.get(header::IF_RANGE).is_none()
            || text(header::IF_RANGE).is_some_and(|tag| tag == self.tag || tag == self.modified);
        match text(header::RANGE) {
            Some(range) if same => range::asked(range, self.size),
            _ => Asked::Whole,
        }
    }
}

/// A file, or a part of it, on its way. It is read block by block, as the connection takes them.
struct Sending {
    file: Arc<File>,
    at: u64,
    left: u64,
    reading: Option<JoinHandle<io::Result<Vec<u8>>>>,
    sent: Arc<AtomicU64>,
    totals: Arc<Totals>,
}

impl http_body::Body for Sending {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let (file, at, count) = (Arc::clone(&self.file), self.at, self.left.min(BLOCK));
        let reading = self
            .reading
            .get_or_insert_with(|| spawn_blocking(move || read(&file, at, count)));
        let read = ready!(Pin::new(reading).poll(context));
        self.reading = None;
        let block = read.map_err(io::Error::other)??;
        let count = block.len() as u64;
        self.at += count;
        self.left -= count;
        self.sent.fetch_add(count, Ordering::Relaxed);
        self.totals.bytes.fetch_add(count, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(block.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

fn read(file: &File, at: u64, count: u64) -> io::Result<Vec<u8>> {
    let mut block = vec![0; usize::try_from(count).map_err(io::Error::other)?];
    file.read_exact_at(&mut block, at)?;
    Ok(block)
}
