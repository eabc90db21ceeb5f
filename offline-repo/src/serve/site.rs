// SPDX-License-Identifier: GPL-3.0-or-later
//! What is asked for, and what is answered.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use http_body::Body as _;
use signing::clock;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::facts::{Facts, Pinned};
use super::files;
use super::meter::{Meter, Totals};
use super::page;
use super::place::{self, Keep};
use crate::archive;

/// How long facts are told again before they are gathered anew: gathering verifies all metadata, and anybody may ask.
const FRESH: Duration = Duration::from_secs(5);
const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The facts, as far as they are known.
#[derive(Debug, Default)]
struct Gathered {
    /// Whether they are just being gathered.
    running: bool,
    newest: Option<(Instant, Arc<Facts>)>,
}

/// What every request sees.
#[derive(Debug)]
pub struct Site {
    repository: PathBuf,
    pinned: Pinned,
    gathered: watch::Sender<Gathered>,
    /// The counters.
    pub totals: Arc<Totals>,
}

impl Site {
    /// The repository in a directory.
    #[must_use]
    pub fn new(repository: &Path, pinned: Pinned) -> Self {
        Self {
            repository: repository.to_path_buf(),
            pinned,
            gathered: watch::Sender::default(),
            totals: Arc::default(),
        }
    }

    /// All that is answered.
    pub fn router(self: Arc<Self>) -> Router {
        Router::new()
            .route("/", get(status))
            .route("/status.json", get(status_json))
            .route("/metrics", get(metrics))
            .route("/healthz", get(health))
            .route("/metadata/{*name}", get(file))
            .route("/site/metadata/{*name}", get(file))
            .route("/targets/{*name}", get(file))
            .route("/apt/{*name}", get(file))
            .fallback(|| async { nothing() })
            .layer(middleware::from_fn_with_state(Arc::clone(&self), guard))
            .with_state(self)
    }

    /// The facts; who asks while they are gathered waits for the same ones. Who goes away meanwhile ends nothing, and so makes
    /// no second round of work by asking again.
    async fn facts(self: &Arc<Self>) -> Result<Arc<Facts>, Response> {
        let mut gathered = self.gathered.subscribe();
        let begins = self.gathered.send_if_modified(|gathered| {
            let fresh = gathered.newest.as_ref().is_some_and(|(at, _)| at.elapsed() < FRESH);
            let begins = !gathered.running && !fresh;
            gathered.running |= begins;
            begins
        });
        if begins {
            let site = Arc::clone(self);
            tokio::spawn(async move {
                let (repository, pinned) = (site.repository.clone(), site.pinned.clone());
                let facts = spawn_blocking(move || Arc::new(Facts::gather(&repository, &pinned, clock::now()))).await;
                let newest = facts.ok().map(|facts| (Instant::now(), facts));
                site.gathered.send_replace(Gathered { running: false, newest });
            });
        }
        let done = gathered.wait_for(|gathered| !gathered.running).await;
        let facts = done
            .ok()
            .and_then(|gathered| gathered.newest.as_ref().map(|(_, facts)| Arc::clone(facts)));
        facts.ok_or_else(|| failed("the status", &io::Error::other("it was not gathered to the end")))
    }
}

/// Reading is all that anybody may do, and no request has content.
async fn guard(
    State(site): State<Arc<Site>>,
    Extension(meter): Extension<Arc<Meter>>,
    request: Request,
    next: Next,
) -> Response {
    meter.request();
    let mut response = if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let text = "405 this server only gives: GET and HEAD\n";
        (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET, HEAD")], text).into_response()
    } else if !request.body().is_end_stream() {
        let text = "413 a request has no content here\n";
        (StatusCode::PAYLOAD_TOO_LARGE, [(header::CONNECTION, "close")], text).into_response()
    } else {
        next.run(request).await
    };
    site.totals.answered(response.status().as_u16());
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Nobody is to remember that there was no next root.
    let ask = HeaderValue::from_static("no-cache");
    headers.entry(header::CACHE_CONTROL).or_insert(ask);
    response
}

fn nothing() -> Response {
    (StatusCode::NOT_FOUND, "404 there is nothing of this name\n").into_response()
}

fn failed(what: &str, error: &dyn std::error::Error) -> Response {
    complain(&format!("cannot give {what}: {error}"));
    (StatusCode::INTERNAL_SERVER_ERROR, "500 the server cannot say\n").into_response()
}

/// Tells the operator. Nobody may be left to tell.
pub fn complain(text: &str) {
    drop(writeln!(io::stderr(), "bastide-repo: {text}"));
}

/// A file of the repository by its address.
async fn file(
    State(site): State<Arc<Site>>,
    Extension(meter): Extension<Arc<Meter>>,
    method: Method,
    uri: Uri,
    mut asking: HeaderMap,
) -> Response {
    // A range is of what is sent.
    if method != Method::GET {
        asking.remove(header::RANGE);
    }
    let path = uri.path().to_owned();
    let repository = site.repository.clone();
    let opened = spawn_blocking(move || {
        let Some((path, keep)) = locate(&repository, &path)? else {
            return Ok(None);
        };
        Ok(files::open(&repository, &path)?.map(|opened| (opened, path, keep)))
    });
    match opened.await {
        Ok(Ok(Some((opened, path, keep)))) => opened.answer(&path, keep, &asking, &meter, Arc::clone(&site.totals)),
        Ok(Ok(None)) => nothing(),
        Ok(Err(error)) => failed(uri.path(), &error as &io::Error),
        Err(error) => failed(uri.path(), &error),
    }
}

/// The file for an address. Where a site approves, it decides which of the vendor's metadata are seen, as
/// [`crate::repository::offer`] has it.
fn locate(repository: &Path, path: &str) -> io::Result<Option<(String, Keep)>> {
    let below = |directory: &str, place: Option<(String, Keep)>| {
        place.map(|(name, keep)| (format!("{directory}/{name}"), keep))
    };
    if let Some(name) = path.strip_prefix("/targets/") {
        return Ok(below("targets", place::target(name)));
    }
    if let Some(name) = path.strip_prefix("/apt/") {
        return Ok(below(archive::ARCHIVE, place::archive(name)));
    }
    let approved = || files::open(repository, "site/metadata/timestamp.json").map(|file| file.is_some());
    if let Some(name) = path.strip_prefix("/site/metadata/") {
        return Ok(below("site/metadata", place::metadata(name)));
    }
    let Some(place) = path.strip_prefix("/metadata/").and_then(place::metadata) else {
        return Ok(None);
    };
    let directory = if approved()? { "site/vendor" } else { "metadata" };
    Ok(below(directory, Some(place)))
}

async fn status(State(site): State<Arc<Site>>) -> Response {
    let policy = (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; frame-ancestors 'none'",
    );
    match site.facts().await {
        Ok(facts) => ([(header::CONTENT_TYPE, HTML), policy], page::html(&facts)).into_response(),
        Err(failed) => failed,
    }
}

async fn status_json(State(site): State<Arc<Site>>) -> Response {
    let facts = match site.facts().await {
        Ok(facts) => facts,
        Err(failed) => return failed,
    };
    match serde_json::to_string_pretty(&*facts) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text + "\n").into_response(),
        Err(error) => failed("the status", &error),
    }
}

async fn metrics(State(site): State<Arc<Site>>) -> Response {
    match site.facts().await {
        Ok(facts) => ([(header::CONTENT_TYPE, METRICS)], page::metrics(&facts, &site.totals)).into_response(),
        Err(failed) => failed,
    }
}

/// Whether there is something to serve, which needs the disk. Whether it is fresh, the status says.
async fn health(State(site): State<Arc<Site>>) -> Response {
    let repository = site.repository.clone();
    let look = move || {
        for path in ["site/metadata/timestamp.json", "metadata/timestamp.json"] {
            if files::open(&repository, path)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    };
    let plain = [(header::CONTENT_TYPE, TEXT)];
    match spawn_blocking(look).await {
        Ok(Ok(true)) => (plain, "ok\n").into_response(),
        Ok(Ok(false)) => (
            StatusCode::SERVICE_UNAVAILABLE,
            plain,
            "503 nothing was published here\n",
        )
            .into_response(),
        Ok(Err(error)) => failed("the repository", &error as &io::Error),
        Err(error) => failed("the repository", &error),
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    #[test]
    fn who_asks_and_goes_away_makes_no_work_twice() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let site = Arc::new(Site::new(directory.path(), Pinned::default()));
            {
                let mut asked = pin!(site.facts());
                assert!(
                    asked
                        .as_mut()
                        .poll(&mut Context::from_waker(Waker::noop()))
                        .is_pending()
                );
            }
            let mut gathered = site.gathered.subscribe();
            drop(gathered.wait_for(|gathered| !gathered.running).await.unwrap());
            let before = clock::now();
            assert!(
                site.facts().await.unwrap().at < before,
                "they were gathered for the second one anew"
            );
        });
    }
}
