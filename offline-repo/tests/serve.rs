// SPDX-License-Identifier: GPL-3.0-or-later
//! `serve`: what it gives, to whom it gives nothing, and its pages. Its limits and its end are in `serve_limits.rs`.

#![allow(clippy::unwrap_used)]
#![cfg(feature = "serve")]

mod support;

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use signing::clock;
use signing::keys::{Algorithm, PrivateKey};
use signing::openpgp;
use signing::release;
use signing::site::Trust;
use signing::tuf::{Client, Datastore, Limits, MultiClient, Offer, Stores, TufError};
use support::common::{self, host_receipt, other_site};
use support::low::Low;
use support::served::{BIG, Http, Served};
use support::{PROGRAM, build, passphrase_file, published, site, trust};

fn repository() -> PathBuf {
    published().join("repository")
}

/// What a site's client begins with, as a host's does: by both kinds of signature.
fn memory(trust: &Path) -> Datastore {
    let trust = Trust::open(trust).unwrap();
    let release = openpgp::read_keyring(&trust.release_keyring()).unwrap();
    Datastore::ephemeral(&trust.root().unwrap()).unwrap().demanding(release)
}

#[test]
fn a_client_fetches_and_verifies_a_release() {
    let served = Served::plain(&repository());
    let http = |metadata| Http {
        address: served.address,
        metadata,
    };
    let mut client = Client::open(memory(&trust()), http("/metadata"), Limits::default(), clock::now()).unwrap();
    client.refresh().unwrap();
    let targets = client.targets().unwrap();
    assert_eq!(release::offered(&targets).unwrap().len(), 1);
    for target in &targets {
        let mut bytes = Vec::new();
        client.fetch(target, &mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, target.length);
    }
    // Another site's client is given the same bytes, and believes none of them.
    let stranger = other_site().join("trust");
    let mut client = Client::open(memory(&stranger), http("/metadata"), Limits::default(), clock::now()).unwrap();
    assert!(client.refresh().unwrap_err().is_refusal());
}

#[test]
fn a_client_of_two_sovereigns_is_given_what_was_approved() {
    let low = Low::published();
    symlink(site().join("trust"), low.at("vendor")).unwrap();
    symlink(other_site(), low.at("office")).unwrap();
    fs::copy(passphrase_file(), low.at("passphrase")).unwrap();
    low.run("import 1.bundle --repo gateway --trust vendor").ok();
    let served = Served::of(&low.at("gateway"), "--plain");
    assert_eq!(served.get("/metadata/timestamp.json").status, 200);
    assert_eq!(served.get("/site/metadata/timestamp.json").status, 404);
    let approve = "approve 1.0.0 --repo gateway --trust vendor --site office --passphrase-file passphrase";
    low.run(approve).ok();
    // The running server follows.
    assert_eq!(served.get("/metadata/timestamp.json").status, 404);
    assert_eq!(served.get("/metadata/1.timestamp.json").status, 200);
    let http = |metadata| Http {
        address: served.address,
        metadata,
    };
    let offer = Offer {
        vendor: http("/metadata"),
        site: Some(http("/site/metadata")),
    };
    let stores = Stores::Both {
        vendor: memory(&low.at("vendor")),
        site: memory(&low.at("office/trust")),
    };
    let mut client = MultiClient::open(stores, offer, Limits::default(), clock::now()).unwrap();
    client.refresh().unwrap();
    let targets = client.targets().unwrap();
    assert_eq!(targets.len(), 6);
    let mut client = client.into_vendor();
    for target in &targets {
        client.fetch(target, &mut io::sink()).unwrap();
    }
    // The vendor's word alone is not to be had here.
    let vendor = memory(&low.at("vendor"));
    let mut alone = Client::open(vendor, http("/metadata"), Limits::default(), clock::now()).unwrap();
    let error: TufError = alone.refresh().unwrap_err();
    assert!(error.to_string().contains("timestamp.json"), "{error}");
    let status = |more: &str| {
        let vendor = format!("--plain --trust {}/vendor {more}", low.directory.path().display());
        served_status(&Served::of(&low.at("gateway"), &vendor))
    };
    assert_eq!(status("")["metadata_verified"], false, "the site's root is not pinned");
    let both = format!("--site-trust {}/office/trust", low.directory.path().display());
    let told = status(&both);
    assert_eq!(
        (&told["metadata_verified"], &told["problems"]),
        (&true.into(), &serde_json::json!([]))
    );
    assert!(told["releases"][0]["approved"].is_string(), "{told}");
    assert_eq!(told["newest"]["what"], "import");
    let of: Vec<_> = told["metadata"]
        .as_array()
        .unwrap()
        .iter()
        .map(|role| &role["of"])
        .collect();
    assert_eq!(of, [["site"; 5], ["vendor"; 5]].concat());
    // The vendor gives the version another content: that one nobody has approved.
    let other = Low::new();
    let build = build(other.directory.path(), "1.0.0");
    support::replace_part(&build, signing::release::Part::Sbom, b"another bill");
    other.publish_build(&build, &[]).ends(0);
    fs::remove_dir_all(low.at("gateway/metadata")).unwrap();
    common::copy(&other.repository(), &low.at("gateway"));
    let told = status(&both);
    assert_eq!(
        (&told["problems"], &told["releases"][0]["approved"]),
        (&serde_json::json!([]), &serde_json::Value::Null)
    );
}

fn served_status(served: &Served) -> serde_json::Value {
    let answer = served.get("/status.json");
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, "application/json")
    );
    serde_json::from_slice(&answer.body).unwrap()
}

/// A repository with everything in it that nobody is to have.
fn littered() -> Low {
    let low = Low::published();
    let root = low.repository();
    let at = |name: &str| root.join(name);
    fs::write(low.at("secret.json"), "secret").unwrap();
    fs::create_dir_all(at("datastore")).unwrap();
    for name in [
        ".lock",
        "datastore/1.root.json",
        "metadata/.incomplete-timestamp.json-abcdef",
        "metadata/notes.txt",
        "targets/host/1.0.0/readme",
        "targets/.incomplete-x",
    ] {
        fs::write(at(name), "secret").unwrap();
    }
    symlink("../../secret.json", at("metadata/90.root.json")).unwrap();
    symlink("1.root.json", at("metadata/91.root.json")).unwrap();
    symlink("/etc/passwd", at("metadata/92.root.json")).unwrap();
    symlink("host", at("targets/linked")).unwrap();
    fs::create_dir(at("metadata/93.root.json")).unwrap();
    nix::unistd::mkfifo(&at("metadata/94.root.json"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    drop(std::os::unix::net::UnixListener::bind(at("metadata/95.root.json")).unwrap());
    low
}

#[test]
fn only_what_was_published_is_given() {
    let low = littered();
    let served = Served::plain(&low.repository());
    let root = served.get("/metadata/1.root.json");
    assert_eq!(
        (root.status, root.header("cache-control")),
        (200, "max-age=31536000, immutable")
    );
    assert_eq!(
        root.body,
        fs::read(low.repository().join("metadata/1.root.json")).unwrap()
    );
    assert_eq!(served.get("/metadata/%31.root.json?x=../y").body, root.body);
    assert_eq!(
        served.get("/metadata/timestamp.json").header("cache-control"),
        "no-cache"
    );
    assert_eq!(served.get("/metadata/1.timestamp.json.asc").status, 200);
    let part = fs::read_dir(low.repository().join("targets/host/1.0.0")).unwrap();
    let part = part.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let part = part.filter(|name| name != "readme").min().unwrap();
    assert_eq!(served.get(&format!("/targets/host/1.0.0/{part}")).status, 200);

    let linked = format!("/targets/linked/1.0.0/{part}");
    let double = format!("/targets/host//1.0.0/{part}");
    let quoted = format!("/targets/host%2f1.0.0%2f{part}");
    let around = format!("/targets/host/1.0.0/../1.0.0/{part}");
    for path in [
        &linked,
        &double,
        &quoted,
        &around,
        "/metadata",
        "/metadata/",
        "/targets/",
        "/targets/host/",
        "/targets/host/1.0.0",
        "/targets/host/1.0.0/readme",
        "/targets/.incomplete-x",
        "/.lock",
        "/metadata/.lock",
        "/metadata/../.lock",
        "/metadata/%2e%2e/.lock",
        "/metadata/..%2f.lock",
        "/metadata/%2e%2e%2f.lock",
        "/metadata/%252e%252e/.lock",
        "/metadata/../../secret.json",
        "/datastore/1.root.json",
        "/metadata/../datastore/1.root.json",
        "/metadata/..%2fdatastore%2f1.root.json",
        "/metadata/.incomplete-timestamp.json-abcdef",
        "/metadata/notes.txt",
        "/metadata/timestamp.json%00",
        "/metadata/timestamp.json%00.json",
        "/metadata//timestamp.json",
        "//metadata/timestamp.json",
        "/metadata/timestamp.json/",
        "/metadata/./timestamp.json",
        "/metadata/90.root.json",
        "/metadata/91.root.json",
        "/metadata/92.root.json",
        "/metadata/93.root.json",
        "/metadata/94.root.json",
        "/metadata/95.root.json",
        "/metadata/2.root.json",
        "/receipts/",
        "/site/metadata/timestamp.json",
        "/etc/passwd",
        "/index.html",
    ] {
        let answer = served.get(path);
        assert_eq!(
            (answer.status, answer.header("cache-control")),
            (404, "no-cache"),
            "{path}"
        );
        assert!(!answer.text().contains("secret"), "{path}");
    }
    // What is no address at all.
    for path in [
        "/metadata/\0",
        "metadata/timestamp.json",
        "/metadata/timestamp.json\x01",
    ] {
        assert_eq!(served.get(path).status, 400, "{path:?}");
    }
}

#[test]
fn a_part_is_given_where_it_is_asked_for() {
    let low = Low::published();
    let place = low.repository().join(BIG);
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    let content: Vec<u8> = (0..1_000_000_u32).map(|number| (number / 3) as u8).collect();
    fs::write(&place, &content).unwrap();
    let served = Served::plain(&low.repository());
    let path = format!("/{BIG}");
    let whole = served.get(&path);
    assert_eq!((whole.status, whole.header("content-length")), (200, "1000000"));
    assert!(whole.body == content);
    let (tag, date) = (whole.header("etag"), whole.header("last-modified"));
    for (range, wanted) in [
        ("bytes=0-0", 0..1),
        ("bytes=131000-140000", 131_000..140_001),
        ("bytes=999990-", 999_990..1_000_000),
        ("bytes=-7", 999_993..1_000_000),
        ("bytes=500000-2000000", 500_000..1_000_000),
    ] {
        let range = format!("Range: {range}");
        for more in [
            vec![],
            vec![format!("If-Range: {tag}")],
            vec![format!("If-Range: {date}")],
        ] {
            let lines: Vec<&str> = more.iter().chain([&range]).map(String::as_str).collect();
            let part = served.ask("GET", &path, &lines);
            let (first, last) = (wanted.start, wanted.end - 1);
            assert_eq!(part.status, 206, "{lines:?}");
            assert_eq!(part.header("content-range"), format!("bytes {first}-{last}/1000000"));
            assert!(part.body == content[wanted.clone()], "{lines:?}");
        }
        let other = served.ask("GET", &path, &[&range, "If-Range: \"another\""]);
        assert_eq!(
            (other.status, other.body.len()),
            (200, content.len()),
            "of another file it wants all"
        );
    }
    for range in ["bytes=1000000-", "bytes=-0"] {
        let none = served.ask("GET", &path, &[&format!("Range: {range}")]);
        assert_eq!((none.status, none.header("content-range")), (416, "bytes */1000000"));
        assert!(none.body.is_empty());
    }
    assert_eq!(served.ask("GET", &path, &["Range: bytes=0-1,5-6"]).status, 200);
    // Who has it is told so.
    for known in [
        format!("If-None-Match: \"x\", W/{tag}"),
        "If-None-Match: *".into(),
        format!("If-Modified-Since: {date}"),
    ] {
        let answer = served.ask("GET", &path, &[&known]);
        assert_eq!(
            (answer.status, answer.body.len(), answer.header("etag")),
            (304, 0, tag),
            "{known}"
        );
    }
    assert_eq!(served.ask("GET", &path, &["If-None-Match: \"x\""]).status, 200);
    let head = served.ask("HEAD", &path, &["Range: bytes=0-0"]);
    assert_eq!(
        (head.status, head.header("content-length"), head.body.len()),
        (200, "1000000", 0)
    );
    // Another content has another tag, in the same second as well.
    fs::write(&place, vec![0; content.len()]).unwrap();
    assert_ne!(served.get(&path).header("etag"), tag);
}

#[test]
fn nobody_can_do_anything_but_read() {
    let served = Served::plain(&repository());
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "BREW"] {
        for path in ["/metadata/timestamp.json", "/", "/nothing"] {
            let answer = served.ask(method, path, &[]);
            assert_eq!(
                (answer.status, answer.header("allow")),
                (405, "GET, HEAD"),
                "{method} {path}"
            );
        }
    }
    for (header, body) in [
        ("Content-Length: 3", "abc"),
        ("Transfer-Encoding: chunked", "3\r\nabc\r\n0\r\n\r\n"),
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: gateway\r\n{header}\r\n\r\n{body}");
        assert_eq!(served.raw(request.as_bytes()).status, 413, "{header}");
    }
    assert_eq!(served.ask("GET", "/", &["Content-Length: 0"]).status, 200);
    let long = format!("X: {}", "x".repeat(100_000));
    assert_eq!(served.ask("GET", "/", &[&long]).status, 431);
    let many = vec!["X: y"; 100];
    assert_eq!(served.ask("GET", "/", &many).status, 431);
    assert_eq!(served.metric("bastide_repo_requests_total{status=\"4xx\"}"), 23);
}

#[test]
fn the_pages_tell_what_is_here() {
    let low = Low::published();
    let key = PrivateKey::generate(Algorithm::Ed25519).unwrap();
    let mut receipt = host_receipt("rack4", 1, "1.0.0");
    if let signing::receipt::Holder::Host(host) = &mut receipt.holder {
        host.healthy = false;
        host.reasons = format!("<script>alert(1)</script> & {}", "long".repeat(40));
    }
    let signed = receipt.sign(&key).unwrap();
    fs::write(low.at("1.json"), &signed.bytes).unwrap();
    let fingerprint = signed.fingerprint.to_string();
    low.run(&format!(
        "enrol 1.json --repo repository --name rack4 --fingerprint {fingerprint}"
    ))
    .ok();
    let served = Served::of(&low.repository(), &format!("--plain --trust {}", trust().display()));
    let page = served.get("/");
    assert_eq!(
        (page.status, page.header("content-type")),
        (200, "text/html; charset=utf-8")
    );
    assert!(page.header("content-security-policy").starts_with("default-src 'none'"));
    assert_eq!(page.header("x-content-type-options"), "nosniff");
    let text = page.text();
    for told in [
        "metadata verified from pinned roots",
        "1.0.0 stable, ",
        ", whole\n",
        "vendor timestamp 1, fresh until",
        "rack4: runs 1.0.0, NOT HEALTHY",
        "newest publication",
        " free of ",
    ] {
        assert!(text.contains(told), "{told:?} is not in {text}");
    }
    assert!(!text.contains("<script"), "{text}");
    for line in text.lines().filter(|line| !line.starts_with("<meta")) {
        let shown = line.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
        assert!(shown.chars().count() <= 80, "{line:?}");
    }
    let told = served_status(&served);
    assert_eq!(
        (&told["metadata_verified"], &told["releases"][0]["whole"]),
        (&true.into(), &true.into())
    );
    assert_eq!(
        (&told["holders"][0]["name"], &told["problems"]),
        (&"rack4".into(), &serde_json::json!([]))
    );
    assert!(told["disk"]["free"].as_u64().unwrap() > 0);
    let metrics = served.get("/metrics");
    assert_eq!(
        metrics.header("content-type"),
        "text/plain; version=0.0.4; charset=utf-8"
    );
    for line in metrics.text().lines().filter(|line| !line.starts_with("# ")) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(
            name.starts_with("bastide_repo_") && value.parse::<f64>().is_ok(),
            "{line}"
        );
    }
    assert_eq!(served.metric("bastide_repo_releases{whole=\"yes\",approved=\"no\"}"), 1);
    assert_eq!(
        served.metric("bastide_repo_host_healthy{name=\"rack4\",version=\"1.0.0\"}"),
        0
    );
    assert_eq!(served.get("/healthz").text(), "ok\n");
}

#[test]
fn what_does_not_verify_is_told_and_hides_nothing_else() {
    let low = Low::published();
    let targets = low.repository().join("metadata/1.targets.json");
    support::flip(&targets);
    fs::create_dir_all(low.repository().join("receipts/Not A Name")).unwrap();
    let served = Served::of(&low.repository(), &format!("--plain --trust {}", trust().display()));
    let told = served_status(&served);
    assert_eq!(told["problems"].as_array().unwrap().len(), 2, "{told}");
    assert_eq!(told["metadata_verified"], false);
    assert!(told["disk"]["size"].as_u64().unwrap() > 0);
    assert!(served.get("/").text().contains("<h2>Problems</h2>"));
    assert_eq!(served.metric("bastide_repo_problems"), 2);
    fs::remove_file(low.repository().join("metadata/timestamp.json")).unwrap();
    assert_eq!(served.get("/healthz").status, 503);
}

#[test]
fn what_cannot_be_served_is_refused_at_the_start() {
    let low = Low::published();
    low.run("serve --repo repository").ends(2);
    low.run("serve --repo repository --plain --tls-cert a --tls-key b")
        .ends(2);
    low.run("serve --repo repository --tls-cert a").ends(2);
    low.run("serve --repo repository --plain --listen nowhere").ends(2);
    low.run("serve --repo repository --plain --patience 0").ends(2);
    low.run("serve --repo nothing --plain")
        .fails(1, &["nothing is not a repository"]);
    let taken = Served::plain(&low.repository());
    let line = format!("serve --repo repository --plain --listen {}", taken.address);
    low.run(&line).fails(1, &["cannot listen at", "in use"]);
    assert_eq!(taken.told["repository"], low.repository().to_str().unwrap());
}

/// As the unit runs it: as somebody who may read the repository, and nothing else.
#[test]
fn it_needs_no_root() {
    let low = Low::published();
    let Some((_program, cmd)) = common::nobody(PROGRAM, low.directory.path()) else {
        return;
    };
    let served = Served::by(cmd, &low.repository(), "--plain");
    assert_eq!(served.get("/metadata/timestamp.json").status, 200);
    assert!(served.get("/").text().contains("1.0.0 stable"));
    // What it may not read it does not call missing.
    fs::set_permissions(
        low.repository().join("metadata/1.root.json"),
        fs::Permissions::from_mode(0o600),
    )
    .unwrap();
    assert_eq!(served.get("/metadata/1.root.json").status, 500);
}
