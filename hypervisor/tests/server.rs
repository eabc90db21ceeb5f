// SPDX-License-Identifier: GPL-3.0-or-later
//! Updates from the site's server, over loopback: from one that is honest, and from those that are not.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::fs;
use std::io::{self, Write};
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use hypervisor::events::Event;
use hypervisor::layout::Slot;
use hypervisor::update::server::{Patience, ServerSource, offer};
use hypervisor::update::{self, Depth, Outcome, Step};
use signing::output::Refused;
use signing::tuf::{Offer, Source};
use support::Host;
use support::drive::repository;
use support::repository::Terms;
use support::server::{Asked, Server, certificate, patience};

fn run(host: &Host, offer: Offer<ServerSource>, depth: Depth) -> Result<Outcome> {
    let mut events = |_: Event<Step>| Ok(());
    update::update(&host.machine, offer, depth, &mut events)
}

/// A host with a repository that has a newer release than it.
fn behind() -> Option<(Host, support::repository::Release, tempfile::TempDir)> {
    let host = Host::install()?;
    let new = host.site.release("1.1.0", 2);
    let repository = repository(&host, &[&host.installed, &new], Terms::version(2));
    Some((host, new, repository))
}

fn is_refusal(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.is::<Refused>())
}

#[test]
fn a_release_comes_from_the_server() {
    let Some((host, new, repository)) = behind() else {
        return;
    };
    let server = Server::of(repository.path(), Box::new(|asked, out| asked.honest(out)));
    let before = host.fingerprint();
    let verified = run(&host, server.offer().unwrap(), Depth::VerifyOnly).unwrap();
    assert!(matches!(verified, Outcome::Verified { slot: Slot::B, .. }));
    assert_eq!(host.fingerprint(), before);
    let done = run(&host, server.offer().unwrap(), Depth::Install).unwrap();
    assert!(matches!(done, Outcome::OnTrial { slot: Slot::B, .. }));
    assert!(host.content_is(Slot::B, &new));
    host.assert_nothing_half(&new);
}

#[test]
fn what_breaks_off_goes_on_and_what_is_other_is_refused() {
    let Some((host, new, repository)) = behind() else {
        return;
    };
    let flipped = |asked: &Asked, out: &mut dyn Write| {
        let mut content = asked.content.clone();
        if let Some(byte) = content
            .as_mut()
            .filter(|_| asked.is_target())
            .and_then(|content| content.last_mut())
        {
            *byte ^= 1;
        }
        Asked {
            content,
            path: asked.path.clone(),
            ..*asked
        }
        .honest(out)
    };
    let server = Server::of(repository.path(), Box::new(flipped));
    let error = run(&host, server.offer().unwrap(), Depth::Install).unwrap_err();
    assert!(is_refusal(&error), "{error:#}");
    // Parts that are shorter than what was signed.
    let shorter = |asked: &Asked, out: &mut dyn Write| {
        let content = asked.content.as_ref().map(|content| match asked.is_target() {
            true => content[..content.len() - 1].to_vec(),
            false => content.clone(),
        });
        Asked {
            content,
            path: asked.path.clone(),
            ..*asked
        }
        .honest(out)
    };
    let server = Server::of(repository.path(), Box::new(shorter));
    let error = run(&host, server.offer().unwrap(), Depth::Install).unwrap_err();
    assert!(is_refusal(&error), "{error:#}");
    // Nothing of it is a slot.
    assert_eq!(host.would_start(), "Bastide A");
    let broken = |asked: &Asked, out: &mut dyn Write| {
        if !asked.is_target() || asked.before == 2 {
            return asked.honest(out);
        }
        out.write_all(asked.head(asked.rest().len()).as_bytes())?;
        out.write_all(&asked.rest()[..asked.rest().len() / 2])
    };
    let server = Server::of(repository.path(), Box::new(broken));
    run(&host, server.offer().unwrap(), Depth::Install).unwrap();
    assert!(host.content_is(Slot::B, &new));
    let asked = server.asked();
    let (_, root) = asked.iter().find(|(path, _)| path.ends_with("root.erofs")).unwrap();
    let length = new.root.len();
    assert_eq!(root[..3], [0, length / 2, length / 2 + (length - length / 2) / 2]);
}

/// A repository of one file, and how the server gives it.
fn fetch(
    behave: impl Fn(&Asked, &mut dyn Write) -> io::Result<()> + Send + Sync + 'static,
    patience: Patience,
) -> (Server, Result<Vec<u8>>) {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir_all(directory.path().join("metadata")).unwrap();
    let content: Vec<u8> = (0..50_000_u32).map(|number| (number / 3) as u8).collect();
    fs::write(directory.path().join("metadata/timestamp.json"), content).unwrap();
    let metadata = move |asked: &Asked, out: &mut dyn Write| match asked.path.starts_with("/metadata/") {
        true => behave(asked, out),
        false => asked.honest(out),
    };
    // The server outlives this call, and what it serves is read when it is asked for.
    let directory = directory.keep();
    let server = Server::of(&directory, Box::new(metadata));
    let mut source = offer(&server.url(), &server.pem("tls"), patience).unwrap().vendor;
    let got = source.metadata("timestamp.json", 100_000);
    fs::remove_dir_all(directory).unwrap();
    (server, got.map(Option::unwrap).map_err(Into::into))
}

/// What is said where a server does so, in how much time.
fn complaint(behave: impl Fn(&Asked, &mut dyn Write) -> io::Result<()> + Send + Sync + 'static) -> String {
    let begun = Instant::now();
    let (_, got) = fetch(behave, patience());
    assert!(begun.elapsed() < Duration::from_secs(20));
    format!("{:#}", got.unwrap_err())
}

fn says(text: &str, words: &str) {
    assert!(text.contains(words), "not {words:?}: {text}");
}

#[test]
fn a_server_that_lies_or_lingers_is_left() {
    assert_eq!(
        fetch(|asked, out| asked.honest(out), patience()).1.unwrap().len(),
        50_000
    );
    // It is cut each time without a byte, and says that there is more than comes.
    let said = complaint(|asked, out| out.write_all(asked.head(asked.rest().len()).as_bytes()));
    says(&said, "broke off at byte 0 and 3 times before");
    let said = complaint(|asked, out| {
        out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n")?;
        out.write_all(asked.rest())
    });
    says(&said, "it changed while it was fetched");
    // More than is taken.
    let said = complaint(|_, out| out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100001\r\n\r\n"));
    says(&said, "longer than the 100000 bytes");
    // A byte now and then, in the head and in the body, and nothing at all.
    let slowly = |out: &mut dyn Write, bytes: &[u8]| {
        bytes.iter().try_for_each(|byte| {
            thread::sleep(Duration::from_millis(50));
            out.write_all(&[*byte])?;
            out.flush()
        })
    };
    let said = complaint(move |asked, out| slowly(out, asked.head(5).as_bytes()));
    says(&said, "bytes came in 1 seconds");
    let said = complaint(move |asked, out| {
        out.write_all(asked.head(asked.rest().len()).as_bytes())?;
        slowly(out, asked.rest())
    });
    says(&said, "bytes came in 1 seconds");
    let said = complaint(|_, _| {
        thread::sleep(Duration::from_secs(3));
        Ok(())
    });
    says(&said, "bytes came in 1 seconds");
    // Answers that are none.
    for (answer, words) in [
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "encoded",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx",
            "encoded",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
            "no one Content-Length",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nx",
            "does not say its length",
        ),
        ("HTTP/1.1 200 OK\r\n\r\nx", "does not say its length"),
        ("SSH-2.0-x\r\n\r\n", "malformed"),
        ("HTTP/1.1 500 x\r\n\r\n", "the server answers 500"),
        (
            "HTTP/1.1 302 x\r\nLocation: https://other/\r\n\r\n",
            "the server answers 302",
        ),
    ] {
        says(&complaint(move |_, out| out.write_all(answer.as_bytes())), words);
    }
    // Who answers what is none is not asked again.
    let (server, got) = fetch(|_, out| out.write_all(b"SSH-2.0-x\r\n\r\n"), patience());
    assert!(got.is_err());
    assert_eq!(server.asked()["/metadata/timestamp.json"], [0]);
    let endless = "x".repeat(1 << 20);
    says(
        &complaint(move |_, out| out.write_all(endless.as_bytes())),
        "does not end",
    );
    // It goes on with another part than was asked for.
    let said = complaint(|asked, out| {
        out.write_all(asked.head(asked.rest().len()).replace("bytes 10", "bytes 9").as_bytes())?;
        out.write_all(&asked.rest()[..10])
    });
    says(&said, "another range");
    // Of another file.
    let said = complaint(|asked, out| {
        if asked.from > 0 {
            return out.write_all(
                b"HTTP/1.1 206 Partial Content\r\nContent-Length: 59990\r\nContent-Range: bytes 10-59999/60000\r\n\r\n",
            );
        }
        out.write_all(asked.head(asked.rest().len()).as_bytes())?;
        out.write_all(&asked.rest()[..10])
    });
    says(&said, "it changed while it was fetched");
    // It goes on a little each time, for ever.
    let (server, got) = fetch(
        |asked, out| {
            out.write_all(asked.head(asked.rest().len()).as_bytes())?;
            out.write_all(&asked.rest()[..10])
        },
        patience(),
    );
    says(
        &format!("{:#}", got.unwrap_err()),
        "broke off at byte 40 and 3 times before",
    );
    assert_eq!(server.asked()["/metadata/timestamp.json"], [0, 10, 20, 30]);
}

#[test]
fn only_the_pinned_server_is_asked() {
    let directory = tempfile::tempdir().unwrap();
    let make = |subject: &'static str| {
        Server::with(
            directory.path(),
            Box::new(|asked, out| asked.honest(out)),
            move |place| {
                certificate(place, "ca", "DNS:ca", None);
                certificate(place, "tls", subject, Some("ca"));
                certificate(place, "other", "IP:127.0.0.1", None);
            },
        )
    };
    let named = make("IP:127.0.0.1");
    let other = make("DNS:elsewhere");
    let ask = |server: &Server, pem: &str| offer(&server.url(), &server.pem(pem), patience()).map(drop);
    ask(&named, "ca").unwrap();
    ask(&named, "tls").unwrap();
    // The very certificate needs no name; an authority's word is for the name that it gives.
    ask(&other, "tls").unwrap();
    for (server, pem) in [(&named, "other"), (&other, "ca"), (&other, "other")] {
        let error = ask(server, pem).unwrap_err();
        assert!(is_refusal(&error), "{error:#}");
        says(&format!("{error:#}"), "whose certificate is pinned");
    }
    assert_eq!(named.asked().len(), 1);
    for wrong in ["none", "tls.key"] {
        let error = offer(&named.url(), &named.directory.path().join(wrong), patience()).map(drop);
        says(&format!("{:#}", error.unwrap_err()), wrong);
    }
    // Nobody listens there.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = offer(
        &format!("https://{free}").parse().unwrap(),
        &named.pem("tls"),
        patience(),
    )
    .map(drop)
    .unwrap_err();
    assert!(!is_refusal(&error), "{error:#}");
    says(&format!("{error:#}"), "cannot connect");
}

#[test]
fn the_whole_has_an_end() {
    let short = Patience {
        whole: Duration::from_secs(2),
        ..patience()
    };
    let begun = Instant::now();
    // Fast enough in each second.
    let (_, got) = fetch(
        |asked, out| {
            out.write_all(asked.head(asked.rest().len()).as_bytes())?;
            asked.rest().chunks(100).try_for_each(|bytes| {
                thread::sleep(Duration::from_millis(20));
                out.write_all(bytes)?;
                out.flush()
            })
        },
        short,
    );
    says(&format!("{:#}", got.unwrap_err()), "too long for the whole");
    assert!(begun.elapsed() < Duration::from_secs(8));
}
