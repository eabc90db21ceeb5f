// SPDX-License-Identifier: GPL-3.0-or-later
//! `bastide-audit` as a user types it: reports, exit codes, help, bad input.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use signing::process::Cmd;
use signing::release::Part;
use support::host::{Host, UPPER};
use support::{audit, part};

/// A repository of one release. Its upstream is a stranger to the program, which knows Debian's keys only: whoever reads
/// the verdicts below finds that one failure everywhere.
fn repository() -> PathBuf {
    support::honest()
}

fn trust() -> String {
    support::trust().display().to_string()
}

fn recording(change: impl FnOnce(&mut Host)) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let mut host = Host::of(&repository());
    change(&mut host);
    host.record(directory.path());
    directory
}

#[test]
fn a_host_that_holds_ends_with_0_and_both_reports_say_so() {
    let recording = recording(|_| ());
    let out = tempfile::tempdir().unwrap();
    let (json, html) = (out.path().join("a.json"), out.path().join("a.html"));
    let said = audit([
        "host",
        "--from",
        recording.path().to_str().unwrap(),
        "--trust",
        &trust(),
        "--json",
        json.to_str().unwrap(),
        "--html",
        html.to_str().unwrap(),
    ])
    .ends(0);
    assert!(said.out.starts_with("pass: host host-17"), "{}", said.out);
    let report: serde_json::Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
    assert_eq!((&report["format"], &report["outcome"]), (&1.into(), &"pass".into()));
    assert_eq!(report["subject"]["kind"], "host");
    let page = fs::read_to_string(html).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.contains("host-17") && page.contains("SSH-01"));
}

#[test]
fn the_exit_code_tells_failed_from_could_not_check() {
    let run = |recording: &tempfile::TempDir| {
        audit([
            "host",
            "--from",
            recording.path().to_str().unwrap(),
            "--trust",
            &trust(),
            "--json",
            "-",
        ])
    };
    let could_not = recording(|host| host.fails("/usr/sbin/sshd -T"));
    let said = run(&could_not).ends(4);
    assert!(said.finding("SSH-01", "could-not-check").contains("status 1"));
    let failed = recording(|host| {
        host.fails("/usr/sbin/sshd -T");
        host.found(
            "all",
            UPPER,
            Host::entry(&format!("{UPPER}/ld.so.preload"), "file", 0o644, b"/evil.so"),
        );
    });
    run(&failed).ends(3).finding("/etc/ld.so.preload", "fail");
}

#[test]
fn a_repository_is_followed_to_every_file() {
    let repo = repository();
    let repo = repo.to_str().unwrap();
    let said = audit(["repo", repo, "--trust", &trust(), "--json"]).ends(3);
    for part in Part::ALL {
        said.finding(&format!("target.host/1.0.0/{}", part.file()), "pass");
    }
    // All else holds: the one failure is the upstream that is not Debian.
    assert_eq!(said.failures().lines().count(), 1, "{}", said.failures());
    said.finding("packages.1.0.0.upstream", "fail");
}

#[test]
fn a_flipped_bit_and_an_extra_file_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("repository");
    support::copy(&repository(), &copy);
    support::flip(&part(&copy, "1.0.0", Part::Xen));
    fs::write(copy.join("targets/host/1.0.0/<script>"), "x").unwrap();
    let html = directory.path().join("page.html");
    let said = audit([
        "repo",
        copy.to_str().unwrap(),
        "--trust",
        &trust(),
        "--json",
        "-",
        "--html",
        html.to_str().unwrap(),
    ])
    .ends(3);
    said.finding("target.host/1.0.0/xen.efi", "fail");
    said.finding("file.targets.host/1.0.0/<script>", "fail");
    assert!(!fs::read_to_string(html).unwrap().contains("<script"));
}

#[test]
fn an_iso_is_audited_and_a_missing_tool_is_never_a_pass() {
    let directory = tempfile::tempdir().unwrap();
    let iso = support::medium::iso(directory.path(), &repository(), &support::medium::Recipe::default());
    let arguments = ["iso", iso.to_str().unwrap(), "--trust", &trust(), "--json", "-"];
    let said = audit(arguments).ends(3);
    said.finding("medium.slack", "pass");
    said.finding("medium.openpgp", "pass");
    assert_eq!(said.failures().lines().count(), 1, "{}", said.failures());
    // A search path without unsquashfs. The door to processes adds sbin, where it is not.
    let (_, out, _) = Cmd::new(env!("CARGO_BIN_EXE_bastide-audit"))
        .args(arguments)
        .env("PATH", "/nowhere")
        .status()
        .unwrap();
    let out = String::from_utf8(out).unwrap();
    assert!(
        out.contains("squashfs-tools") && out.contains("could-not-check"),
        "{out}"
    );
    fs::remove_file(format!("{}.asc", iso.display())).unwrap();
    audit(arguments).finding("medium.openpgp", "could-not-check");
}

#[test]
fn bad_input_is_told_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    let said = audit(["iso", &at("no.iso"), "--trust", &trust()]).ends(1);
    assert!(said.err.contains("no.iso"), "{}", said.err);
    let said = audit(["repo", &at("no"), "--trust", &at("trust")]).ends(1);
    assert!(said.err.contains("--trust"), "{}", said.err);
    fs::write(at("text"), "not a bundle").unwrap();
    let said = audit(["bundle", &at("text"), "--trust", &trust(), "--json", "-"]).ends(3);
    said.finding("bundle", "fail");
    audit(["host", "--from", &at("no"), "--trust", &trust()]).ends(1);
    audit(["host", "--profile", "none", "--trust", &trust()]).ends(1);
    audit(["iso"]).ends(2);
    audit(["profile", "explain", "NO-01"]).ends(1);
    let said = audit([
        "repo",
        repository().to_str().unwrap(),
        "--trust",
        &trust(),
        "--html",
        &at("no/page.html"),
    ])
    .ends(1);
    assert!(said.err.contains("no/page.html"), "{}", said.err);
}

#[test]
fn a_recording_of_this_machine_gives_the_same_report() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    let at_time = ["--at", "2026-01-01T00:00:00Z", "--json", "-", "--trust", &trust()];
    let live = audit(["host", "--record", &at("rec")].iter().copied().chain(at_time));
    let again = audit(["host", "--from", &at("rec")].iter().copied().chain(at_time));
    assert_eq!(live.status.code(), again.status.code());
    assert_eq!(live.json()["sections"], again.json()["sections"]);
    audit(["host", "--record", &at("rec"), "--trust", &trust()]).ends(1);
}

#[test]
fn profiles_are_listed_and_explained() {
    assert!(audit(["profile", "list"]).ends(0).out.starts_with("base: "));
    let checks = audit(["profile", "list", "base", "--json"]).ends(0).json();
    for check in checks.as_array().unwrap() {
        let id = check["id"].as_str().unwrap();
        let said = audit(["profile", "explain", id]).ends(0).out;
        for part in ["why", "looks at", "remedy", "references"] {
            assert!(said.contains(part), "{id}: {said}");
        }
        if id.ends_with("-03") {
            break;
        }
    }
}

#[test]
fn help_is_narrow_and_its_examples_are_understood() {
    for command in [
        vec![],
        vec!["iso"],
        vec!["repo"],
        vec!["bundle"],
        vec!["host"],
        vec!["profile"],
    ] {
        let help = audit(command.iter().copied().chain(["--help"])).ends(0).out;
        assert!(help.contains("Examples:"), "{help}");
        let wide: Vec<&str> = help.lines().filter(|line| line.chars().count() > 80).collect();
        assert!(wide.is_empty(), "{wide:?}");
        for line in help
            .lines()
            .filter_map(|line| line.trim().strip_prefix("bastide-audit "))
        {
            let words: Vec<&str> = line.split_whitespace().collect();
            // The files of the examples are not here: all but the command line itself may fail.
            let directory = tempfile::tempdir().unwrap();
            let (status, _, err) = Cmd::new(env!("CARGO_BIN_EXE_bastide-audit"))
                .args(&words)
                .dir(directory.path())
                .status()
                .unwrap();
            assert_ne!(status.code(), Some(2), "{line}: {}", String::from_utf8_lossy(&err));
        }
    }
}

#[test]
fn a_closed_pipe_is_no_panic() {
    let recording = recording(|_| ());
    let mut child = Cmd::new(env!("CARGO_BIN_EXE_bastide-audit"))
        .args([
            "host",
            "--json",
            "-",
            "--from",
            recording.path().to_str().unwrap(),
            "--trust",
            &trust(),
        ])
        .spawn(Stdio::piped(), Stdio::piped())
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!said.contains("panic"), "{said}");
}
