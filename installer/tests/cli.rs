// SPDX-License-Identifier: GPL-3.0-or-later
//! The commands from outside: help that is true, answers judged, exit codes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use clap::CommandFactory;
use installer::cli::Cli;
use signing::process::Cmd;
use support::common::{self, Said};
use support::{Disk, PROGRAM, can_check};

/// The schema is JSON, the others are for a person at a screen.
const WITHOUT_JSON: [&str; 3] = ["schema", "service", "tui"];

fn program() -> Cmd {
    Cmd::new(PROGRAM)
}

fn run(cmd: Cmd) -> (Option<i32>, String, String) {
    let said = Said::of(cmd);
    (said.code, said.out, said.err)
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

#[test]
fn every_example_in_the_help_is_understood() {
    for example in common::helps(PROGRAM, &WITHOUT_JSON)
        .into_iter()
        .flat_map(|help| help.examples)
    {
        let words = std::iter::once("bastide-install").chain(example.split_whitespace());
        let parsed = Cli::command().try_get_matches_from(words);
        assert!(parsed.is_ok(), "{example}: {}", parsed.unwrap_err());
    }
}

#[test]
fn the_examples_that_only_look_work() {
    let disk = can_check().then(Disk::new);
    let directory = tempfile::tempdir().unwrap();
    fs::copy(
        examples().join("minimal.toml"),
        directory.path().join("bastide-answer.toml"),
    )
    .unwrap();
    for example in common::helps(PROGRAM, &WITHOUT_JSON)
        .into_iter()
        .flat_map(|help| help.examples)
    {
        if ["validate", "inventory", "schema"]
            .iter()
            .any(|only| example.starts_with(only))
        {
            // The disks of the machine that tests are not looked at: one may not be allowed to.
            let only = match (example.starts_with("inventory"), &disk) {
                (true, Some(disk)) => format!(" --device {}", disk.node.display()),
                (true, None) => continue,
                (false, _) => String::new(),
            };
            let said = Said::of(common::command(PROGRAM, directory.path(), &format!("{example}{only}"))).ends(0);
            if example.contains("--json") {
                said.json();
            }
        }
    }
}

#[test]
fn good_answers_are_valid_and_bad_ones_are_refused_with_their_place() {
    for entry in fs::read_dir(examples()).unwrap() {
        let (code, said, _) = run(program().arg("validate").arg(entry.unwrap().path()));
        assert!(code == Some(0) && said.contains("valid, sha256 "), "{said}");
    }
    let directory = tempfile::tempdir().unwrap();
    let bad = directory.path().join("bad.toml");
    fs::write(
        &bad,
        "[disk]\nserial = \"S1\"\n[network]\nhostname = \"h\"\npassword = \"x\"\n",
    )
    .unwrap();
    let (code, _, said) = run(program().arg("validate").arg(&bad));
    assert_eq!(code, Some(3));
    assert!(
        said.contains("bad.toml") && said.contains("line 5") && said.contains("password"),
        "{said}"
    );
    let (code, _, said) = run(program().arg("validate").arg(directory.path().join("none.toml")));
    assert!(code == Some(1) && said.contains("none.toml"), "{said}");
    let (code, _, said) = run(program().arg("validate").arg(directory.path()));
    assert!(code == Some(1) && said.contains("cannot read"), "{said}");
    assert_eq!(run(program().arg("validate")).0, Some(2));
}

#[test]
fn a_cut_or_foreign_answer_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("answer.toml");
    let whole = fs::read(examples().join("minimal.toml")).unwrap();
    let large = vec![b'#'; 8 << 20];
    for foreign in [&whole[..whole.len() / 2], b"", b"{}", &[0xff; 512]] {
        fs::write(&place, foreign).unwrap();
        Said::of(program().arg("validate").arg(&place)).fails(3, &["refused", "answer.toml"]);
    }
    fs::write(&place, large).unwrap();
    let said = Said::of(program().arg("validate").arg(&place));
    assert!(
        matches!(said.code, Some(1 | 3)) && said.err.contains("answer.toml"),
        "{}",
        said.err
    );
}

#[test]
fn what_is_in_the_work_directory_stays() {
    let directory = tempfile::tempdir().unwrap();
    let kept = directory.path().join("kept");
    fs::write(&kept, "mine").unwrap();
    let ended = run(program()
        .args(["run", "--yes", "--medium", "/nonexistent", "--answer"])
        .arg(examples().join("minimal.toml"))
        .arg("--work")
        .arg(directory.path()));
    assert_eq!(ended.0, Some(1), "{}", ended.2);
    assert_eq!(fs::read_to_string(kept).unwrap(), "mine");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn the_schema_is_json_and_a_closed_pipe_is_no_panic() {
    let (code, schema, _) = run(program().arg("schema"));
    assert_eq!(code, Some(0));
    let schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
    assert_eq!(schema["additionalProperties"], false);
    let validate = || program().arg("validate").arg(examples().join("minimal.toml"));
    for cmd in [program().arg("schema"), validate(), validate().arg("--json")] {
        common::assert_closed_pipe(cmd);
    }
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let child = validate().spawn(full.into(), Stdio::piped()).unwrap();
    let ended = child.wait_with_output().unwrap();
    let err = String::from_utf8(ended.stderr).unwrap();
    assert!(
        ended.status.code() == Some(1) && err.contains("cannot write the output"),
        "{err}"
    );
    if can_check() {
        let disk = Disk::new();
        let inventory = || program().args(["inventory", "--device"]).arg(&disk.node);
        common::assert_closed_pipe(inventory());
        common::assert_closed_pipe(inventory().arg("--json"));
    }
}

/// As an ordinary user, where the tests run as root: the super-user may read everything.
#[test]
fn no_permission_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("a.toml");
    fs::copy(examples().join("minimal.toml"), &place).unwrap();
    fs::set_permissions(&place, fs::Permissions::from_mode(0o600)).unwrap();
    let run = |line: &str| common::as_nobody(PROGRAM, directory.path(), line);
    let Some(said) = run("validate a.toml") else {
        return;
    };
    said.fails(1, &["a.toml", "Permission denied"]);
    run("plan --answer a.toml")
        .unwrap()
        .fails(1, &["a.toml", "Permission denied"]);
    run("run --answer a.toml --yes")
        .unwrap()
        .fails(1, &["a.toml", "Permission denied"]);
    fs::copy(&place, directory.path().join("a.json")).unwrap();
    fs::set_permissions(directory.path().join("a.json"), fs::Permissions::from_mode(0o600)).unwrap();
    run("verify-record a.json")
        .unwrap()
        .fails(1, &["a.json", "Permission denied"]);
}

#[test]
fn without_a_medium_nothing_is_planned() {
    let directory = tempfile::tempdir().unwrap();
    let place = |name: &str| directory.path().join(name);
    let (code, _, said) = run(program()
        .arg("plan")
        .arg("--answer")
        .arg(examples().join("minimal.toml"))
        .arg("--medium")
        .arg(place("medium"))
        .arg("--trust")
        .arg(place("trust")));
    assert!(code == Some(1) && said.contains("no medium of Bastide"), "{said}");
}

#[test]
fn a_failure_is_told_in_json_to_whom_asked_for_it() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("bad.toml"), "[disk]\nserial = 5\n").unwrap();
    for (line, code, kind) in [
        ("validate --json bad.toml", 3, "refused"),
        ("validate --json none.toml", 1, "failed"),
        ("plan --answer bad.toml --json", 3, "refused"),
        ("run --answer bad.toml --yes --json", 3, "refused"),
        ("verify-medium --medium none --json", 1, "failed"),
        ("inventory --device none --json", 1, "failed"),
        ("verify-record none --json", 1, "failed"),
    ] {
        let said = Said::of(common::command(PROGRAM, directory.path(), line)).ends(code);
        let told = said.json();
        assert_eq!((&told["kind"], &told["exit"]), (&kind.into(), &code.into()), "{line}");
        assert!(said.err.contains(told["error"].as_str().unwrap()), "{line}: {told}");
    }
}

#[test]
fn what_is_no_disk_is_named() {
    for place in ["/tmp", "/dev/null"] {
        Said::of(program().args(["inventory", "--device", place])).fails(1, &[place, "is not a disk"]);
    }
    Said::of(program().args(["inventory", "--device", "/nonexistent"])).fails(1, &["/nonexistent"]);
}

#[test]
fn a_record_that_is_none_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let record = directory.path().join("record.json");
    fs::write(&record, "{}").unwrap();
    fs::write(directory.path().join("record.json.sig"), [0; 64]).unwrap();
    let (code, _, said) = run(program().arg("verify-record").arg(&record));
    assert!(code == Some(3) && said.contains("record.json"), "{said}");
    let (code, _, said) = run(program().arg("verify-record").arg(directory.path().join("none")));
    assert!(code == Some(1) && said.contains("none"), "{said}");
}

#[test]
fn screens_need_a_terminal() {
    let (code, _, said) = run(program().args(["tui", "--medium", "/nonexistent"]));
    assert!(
        code == Some(1) && said.contains("terminal") && !said.contains("panicked"),
        "{said}"
    );
}
