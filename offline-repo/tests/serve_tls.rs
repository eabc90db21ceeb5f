// SPDX-License-Identifier: GPL-3.0-or-later
//! `serve` with TLS, as a stranger's client sees it.

#![allow(clippy::unwrap_used)]
#![cfg(feature = "serve")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use signing::process::Cmd;
use support::Said;
use support::low::Low;
use support::served::{self, BIG, Served};

fn curl(served: &Served, low: &Low, path: &str, more: &str) -> Said {
    let line = format!(
        "-sS --max-time 20 --cacert tls.pem {more} https://{}{path}",
        served.address
    );
    Said::of(Cmd::new("curl").args(line.split_whitespace()).dir(low.directory.path()))
}

#[test]
fn a_stranger_is_served_over_tls() {
    let low = Low::published();
    served::certificate(low.directory.path(), "tls");
    let place = low.repository().join(BIG);
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    let content: Vec<u8> = (0..3_000_000_u32).map(|number| (number / 7) as u8).collect();
    fs::write(&place, &content).unwrap();
    let files = low.directory.path().display().to_string();
    let served = Served::of(
        &low.repository(),
        &format!("--tls-cert {files}/tls.pem --tls-key {files}/tls.key"),
    );
    for (more, version) in [("--http2", "2"), ("--http1.1", "1.1")] {
        let more = format!("{more} --output got --write-out %{{http_version}}/%{{http_code}}");
        let said = curl(&served, &low, &format!("/{BIG}"), &more).ok();
        assert_eq!(said, format!("{version}/200"));
        assert!(fs::read(low.at("got")).unwrap() == content);
        // What was broken off goes on.
        fs::write(low.at("got"), &content[..1_234_567]).unwrap();
        let said = curl(&served, &low, &format!("/{BIG}"), &format!("{more} --continue-at -")).ok();
        assert_eq!(said, format!("{version}/206"));
        assert!(fs::read(low.at("got")).unwrap() == content);
        let said = curl(&served, &low, "/metadata/../.lock", &format!("{more} --path-as-is")).ok();
        assert_eq!(said, format!("{version}/404"));
        let said = curl(&served, &low, "/", &format!("{more} --request DELETE")).ok();
        assert_eq!(said, format!("{version}/405"));
        // Over HTTP/2 curl may see the stream reset before the answer.
        let said = curl(&served, &low, "/", &format!("{more} --request GET --data x"));
        assert!(
            said.code == Some(92) || said.out == format!("{version}/413"),
            "{}",
            said.out
        );
    }
    curl(&served, &low, "/healthz", "--tls-max 1.2").ends(35);
    let plain = Cmd::new("curl").args(["-sS", &format!("http://{}/healthz", served.address)]);
    assert_ne!(Said::of(plain).code, Some(0));
    served_metric_over_tls(&served, &low);

    let line = "serve --repo repository --listen 127.0.0.1:0 --tls-cert tls.pem --tls-key tls.key";
    let (certificate, key) = (
        ["--tls-cert tls.pem", "--tls-cert other"],
        ["--tls-key tls.key", "--tls-key other"],
    );
    let replaced = |[from, to]: [&str; 2]| low.run(&line.replace(from, to));
    let write = |bytes: &[u8]| {
        fs::write(low.at("other"), bytes).unwrap();
        fs::set_permissions(low.at("other"), fs::Permissions::from_mode(0o600)).unwrap();
    };
    write(b"something");
    replaced(certificate).fails(1, &["there is no certificate in PEM in other"]);
    replaced(key).fails(1, &["there is no unencrypted private key in PEM in other"]);
    let first = fs::read(low.at("tls.key")).unwrap();
    served::certificate(low.directory.path(), "tls");
    write(&first);
    replaced(key).fails(1, &["cannot use the certificate tls.pem with the key other"]);
    fs::set_permissions(low.at("other"), fs::Permissions::from_mode(0o640)).unwrap();
    replaced(key).fails(3, &["others can get at", "chmod 600"]);
}

fn served_metric_over_tls(served: &Served, low: &Low) {
    let text = curl(served, low, "/metrics", "").ok();
    assert!(text.contains("\nbastide_repo_handshakes_failed_total 2\n"), "{text}");
}

/// The unit's own words, with this test's paths in them.
#[test]
fn the_unit_starts_it() {
    let unit = include_str!("../systemd/bastide-repo.service").replace("\\\n", " ");
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let low = Low::published();
    served::certificate(low.directory.path(), "tls");
    let mut words = line.split_whitespace();
    assert_eq!(words.next(), Some("/usr/local/bin/bastide-repo"));
    assert_eq!(words.next(), Some("serve"));
    let rest: Vec<&str> = words.collect();
    let (repository, more) = rest.split_first_chunk::<2>().unwrap();
    assert_eq!(repository, &["--repo", "/srv/bastide/repository"]);
    let (listen, files) = more.split_first_chunk::<2>().unwrap();
    assert_eq!(listen, &["--listen", "0.0.0.0:8443"]);
    let here = low.directory.path().display().to_string();
    let served = Served::of(&low.repository(), &files.join(" ").replace("/etc/bastide", &here));
    curl(&served, &low, "/healthz", "").ok();
    // What the unit gives it for the end is more than it takes.
    let said = low.run("serve --help").ok();
    assert!(
        said.contains("[default: 30]") && unit.contains("\nTimeoutStopSec=45\n"),
        "{said}"
    );
}
