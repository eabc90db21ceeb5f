// SPDX-License-Identifier: GPL-3.0-or-later
//! The program `bastide-host` as a user meets it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;

use clap::Parser;
use hypervisor::cli::Args;
use signing::process::Cmd;

fn host(args: &[&str]) -> (i32, String, String) {
    let (status, out, err) = Cmd::new(env!("CARGO_BIN_EXE_bastide-host"))
        .args(args)
        .status()
        .unwrap();
    (
        status.code().unwrap(),
        String::from_utf8(out).unwrap(),
        String::from_utf8(err).unwrap(),
    )
}

const COMMANDS: [&[&str]; 11] = [
    &[],
    &["status"],
    &["update"],
    &["confirm"],
    &["health-guard"],
    &["rollback"],
    &["guest"],
    &["guest", "list"],
    &["guest", "run"],
    &["guest", "stop"],
    &["guest", "log"],
];

#[test]
fn every_help_has_examples_and_fits_a_terminal_and_every_example_is_understood() {
    for command in COMMANDS {
        let (code, help, _) = host(&[command, &["--help"]].concat());
        assert_eq!(code, 0);
        assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
        let (_, examples) = help
            .split_once("Examples:")
            .unwrap_or_else(|| panic!("no examples: {help}"));
        let mut seen = 0;
        for line in examples.lines().filter_map(|line| line.strip_prefix("  bastide-host ")) {
            let words = line.split(' ').map(|word| word.trim_matches('"'));
            let parsed = Args::try_parse_from(std::iter::once("bastide-host").chain(words));
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
            seen += 1;
        }
        assert!(seen > 0, "{help}");
    }
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    for args in [
        &["frobnicate"][..],
        &["update", "--dry-run", "--reboot"],
        &["update", "a.bundle", "--device", "/dev/sdb"],
        &["guest", "run", "../up"],
        &["guest", "run", "--", "-w"],
        &["confirm", "--wait", "soon"],
    ] {
        assert_eq!(host(args).0, 2, "{args:?}");
    }
}

#[test]
fn a_foreign_or_cut_file_is_refused_and_a_missing_one_is_a_failure() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
    fs::write(path("empty.bundle"), "").unwrap();
    fs::write(path("foreign.bundle"), vec![b'x'; 4096]).unwrap();
    for name in ["empty.bundle", "foreign.bundle"] {
        let (code, out, err) = host(&["update", &path(name)]);
        assert_eq!((code, out.as_str()), (3, ""), "{err}");
        assert!(
            err.starts_with("bastide-host: refused: ") && err.lines().count() == 1,
            "{err}"
        );
    }
    let (code, _, err) = host(&["update", &path("missing.bundle")]);
    assert_eq!(code, 1);
    assert!(err.contains("missing.bundle") && err.lines().count() == 1, "{err}");
}

#[test]
fn a_machine_that_is_no_host_says_so() {
    assert!(
        !Path::new("/state/bastide").exists(),
        "this test is not for an installed host"
    );
    let (code, out, _) = host(&["status", "--json"]);
    assert_eq!(code, 0);
    let status: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(status["health"]["healthy"], false);
    assert!(status["running"]["slot"].is_null());
    assert!(!status["could_not_read"].as_array().unwrap().is_empty());
    let (code, text, _) = host(&["status"]);
    assert_eq!(code, 0);
    assert!(text.contains("NOT healthy") && text.contains("secure boot"), "{text}");
    for args in [&["rollback"][..], &["confirm"], &["health-guard", "--deadline", "0"]] {
        let (code, _, err) = host(args);
        assert_eq!(code, 1, "{args:?}");
        assert_eq!(err.lines().count(), 1, "{err}");
    }
}

#[test]
fn a_closed_pipe_is_no_panic() {
    let program = env!("CARGO_BIN_EXE_bastide-host");
    let (status, _, err) = Cmd::new("sh")
        .args([
            "-c",
            &format!("{program} --help | true; {program} status --json | head -c 1"),
        ])
        .status()
        .unwrap();
    assert!(status.success());
    assert!(!String::from_utf8_lossy(&err).contains("panicked"));
}
