// SPDX-License-Identifier: GPL-3.0-or-later
//! The program `bastide-host` as a user meets it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../signing/tests/common/mod.rs"]
mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use clap::Parser;
use common::Said;
use hypervisor::cli::Args;
use signing::process::Cmd;

const PROGRAM: &str = env!("CARGO_BIN_EXE_bastide-host");

/// The guard always prints JSON, and a console is what a guest wrote.
const WITHOUT_JSON: [&str; 2] = ["guest log", "health-guard"];

fn host(args: &[&str]) -> (i32, String, String) {
    let said = Said::of(Cmd::new(PROGRAM).args(args));
    (said.code.unwrap(), said.out, said.err)
}

#[test]
fn every_example_in_the_help_is_understood() {
    for example in common::helps(PROGRAM, &WITHOUT_JSON)
        .into_iter()
        .flat_map(|help| help.examples)
    {
        let words = std::iter::once("bastide-host").chain(example.split_whitespace());
        let parsed = Args::try_parse_from(words);
        assert!(parsed.is_ok(), "{example}: {}", parsed.unwrap_err());
    }
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    for args in [
        &["frobnicate"][..],
        &["update", "--dry-run", "--reboot"],
        &["rollback", "--dry-run", "--reboot"],
        &["update", "a.bundle", "--device", "/dev/sdb"],
        &["update", "a.bundle", "--from", "https://gateway"],
        &["update", "--from", "http://gateway"],
        &["update", "--cacert", "gateway.pem"],
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
    // Nobody writes into the pipe: who opened it would wait for ever.
    Cmd::new("mkfifo").arg(path("pipe")).run().unwrap();
    for (place, kind) in [
        (path("."), "a directory"),
        ("/dev/zero".into(), "no file"),
        (path("pipe"), "no file"),
    ] {
        let (code, _, err) = host(&["update", "--dry-run", &place]);
        assert!(code == 1 && err.contains(&place) && err.contains(kind), "{err}");
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
    let (code, out, err) = host(&["status", "--json"]);
    assert_eq!(code, 4);
    assert!(
        err.contains("could not check: nothing") && err.lines().count() == 1,
        "{err}"
    );
    let status: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(status["health"]["healthy"], false);
    assert!(status["running"]["slot"].is_null());
    assert!(!status["could_not_read"].as_array().unwrap().is_empty());
    let (code, text, _) = host(&["status"]);
    assert_eq!(code, 4);
    assert!(text.contains("NOT healthy") && text.contains("secure boot"), "{text}");
    for args in [
        &["rollback"][..],
        &["rollback", "--dry-run"],
        &["confirm"],
        &["health-guard", "--deadline", "0"],
    ] {
        let (code, _, err) = host(args);
        assert_eq!(code, 1, "{args:?}");
        assert_eq!(err.lines().count(), 1, "{err}");
    }
}

#[test]
fn a_failure_is_told_in_json_to_whom_asked_for_it() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("foreign.bundle"), vec![b'x'; 4096]).unwrap();
    for (line, code, kind) in [
        ("update foreign.bundle --json", 3, "refused"),
        ("update foreign.bundle --dry-run --json", 3, "refused"),
        ("update missing.bundle --json", 1, "failed"),
        ("update --from https://gateway --cacert missing.pem --json", 1, "failed"),
        ("confirm --json", 1, "failed"),
        ("rollback --dry-run --json", 1, "failed"),
        ("guest run tiny --kernel none --json", 1, "failed"),
        ("guest stop tiny --json", 1, "failed"),
    ] {
        let said = Said::of(common::command(PROGRAM, directory.path(), line)).ends(code);
        let told: serde_json::Value = serde_json::from_str(said.out.lines().last().unwrap()).unwrap();
        assert_eq!((&told["kind"], &told["exit"]), (&kind.into(), &code.into()), "{line}");
    }
}

/// As an ordinary user, where the tests run as root: what may not be read is named, and nothing is a panic.
#[test]
fn no_permission_is_named() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("a.bundle"), vec![b'x'; 4096]).unwrap();
    fs::set_permissions(directory.path().join("a.bundle"), fs::Permissions::from_mode(0o600)).unwrap();
    let run = |line: &str| common::as_nobody(PROGRAM, directory.path(), line);
    let Some(said) = run("update a.bundle") else {
        return;
    };
    said.fails(1, &["a.bundle", "Permission denied"]);
    assert_eq!(run("status --json").unwrap().ends(4).json()["health"]["healthy"], false);
    for line in [
        "rollback",
        "confirm",
        "guest list",
        "guest stop tiny",
        "guest log tiny",
        "guest run tiny",
    ] {
        run(line).unwrap().ends(1);
    }
}

#[test]
fn a_closed_pipe_is_no_panic() {
    for line in ["status", "status --json"] {
        common::assert_closed_pipe(Cmd::new(PROGRAM).args(line.split(' ')));
    }
}
