// SPDX-License-Identifier: GPL-3.0-or-later
//! The commands from outside: help that is true, answers judged, exit codes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use clap::CommandFactory;
use installer::cli::Cli;
use signing::process::Cmd;

fn program() -> Cmd {
    Cmd::new(env!("CARGO_BIN_EXE_bastide-install"))
}

fn run(cmd: Cmd) -> (Option<i32>, String, String) {
    let (status, stdout, stderr) = cmd.status().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

#[test]
fn every_help_fits_80_columns_and_every_example_in_it_is_understood() {
    let mut command = Cli::command();
    command.build();
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    let mut seen = 0;
    for name in names.iter().filter(|name| *name != "help") {
        let (code, help, _) = run(program().args([name.as_str(), "--help"]));
        assert_eq!(code, Some(0));
        for line in help.lines() {
            assert!(line.chars().count() <= 80, "{name}: {line}");
        }
        let (_, examples) = help
            .split_once("Examples:")
            .unwrap_or_else(|| panic!("{name} has no examples"));
        // A line that ends with a backslash goes on; a redirection is the shell's.
        let joined = examples.replace("\\\n", " ");
        for line in joined
            .lines()
            .filter(|line| line.trim_start().starts_with("bastide-install"))
        {
            let words = line.split_ascii_whitespace().take_while(|word| *word != ">");
            let parsed = Cli::command().try_get_matches_from(words);
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
            seen += 1;
        }
    }
    assert!(seen >= names.len() - 1);
    let (_, help, _) = run(program().arg("--help"));
    assert!(
        help.contains("Examples:") && help.lines().all(|line| line.chars().count() <= 80),
        "{help}"
    );
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
fn the_schema_is_json_and_a_closed_pipe_is_no_panic() {
    let (code, schema, _) = run(program().arg("schema"));
    assert_eq!(code, Some(0));
    let schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
    assert_eq!(schema["additionalProperties"], false);
    let mut child = program().arg("schema").spawn(Stdio::piped(), Stdio::piped()).unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(!String::from_utf8_lossy(&output.stderr).contains("panicked"));
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
    assert!(code == Some(1) && said.contains("pinned root"), "{said}");
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
