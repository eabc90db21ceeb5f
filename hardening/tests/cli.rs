// SPDX-License-Identifier: GPL-3.0-or-later
//! `bastide-audit` as a user types it: reports, exit codes, help, bad input.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use signing::process::Cmd;
use signing::release::Part;
use support::common::{self, Said, assert_closed_pipe, contents};
use support::host::{Host, UPPER};
use support::{Findings, PROGRAM, audit, part};

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
    let said = audit(["verify", repo, "--trust", &trust(), "--json"]).ends(3);
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
        "verify",
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
    let arguments = ["verify", iso.to_str().unwrap(), "--trust", &trust(), "--json", "-"];
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
    let said = audit(["verify", &at("no.iso"), "--trust", &trust()]).ends(1);
    assert!(said.err.contains("no.iso"), "{}", said.err);
    let said = audit(["verify", &at("no"), "--trust", &at("trust")]).ends(1);
    assert!(said.err.contains("--trust"), "{}", said.err);
    fs::write(at("text.bundle"), "not a bundle").unwrap();
    let said = audit(["verify", &at("text.bundle"), "--trust", &trust(), "--json", "-"]).ends(3);
    said.finding("bundle", "fail");
    audit(["host", "--from", &at("no"), "--trust", &trust()]).ends(1);
    audit(["host", "--profile", "none", "--trust", &trust()]).ends(1);
    audit(["recipe"]).ends(2);
    audit(["profile", "explain", "NO-01"]).ends(1);
    let said = audit([
        "verify",
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
fn who_asked_for_json_is_told_a_failure_in_json() {
    let directory = tempfile::tempdir().unwrap();
    let empty = directory.path().to_str().unwrap();
    let said = audit(["verify", empty, "--trust", &trust(), "--json"]).ends(3);
    assert_eq!(said.json()["kind"], "refused");
    let said = audit(["verify", "/nowhere.iso", "--trust", &trust(), "--json", "-"]).ends(1);
    assert_eq!(
        (&said.json()["kind"], &said.json()["exit"]),
        (&"failed".into(), &1.into())
    );
    assert!(said.json()["error"].as_str().unwrap().contains("/nowhere.iso"));
    let said = audit(["profile", "explain", "NO-01", "--json"]).ends(1);
    assert!(said.json()["error"].as_str().unwrap().contains("NO-01"));
    // A report that goes to a file leaves standard output to people.
    let file = directory.path().join("a.json");
    let said = audit([
        "verify",
        "/nowhere.iso",
        "--trust",
        &trust(),
        "--json",
        file.to_str().unwrap(),
    ])
    .ends(1);
    assert!(said.out.is_empty() && !file.exists());
}

#[test]
fn the_page_can_go_to_standard_output_alone() {
    let bench = bench();
    let run = |line: &str| Said::of(common::command(PROGRAM, bench.path(), line));
    let page = run("host --from host --trust trust --html -").ok();
    assert!(page.starts_with("<!DOCTYPE html>") && page.trim_end().ends_with("</html>"));
    assert!(!bench.path().join("-").exists());
    run("host --from host --trust trust --html - --json -").fails(2, &["--html", "--json"]);
}

/// What is told to be done by hand has the names of what was audited, and holds where it is said to be typed.
#[test]
fn the_steps_by_hand_can_be_typed_as_they_are() {
    let bench = bench();
    let run = |line: &str| Said::of(common::command(PROGRAM, bench.path(), line));
    for (line, name) in [("verify repository", "repository/metadata"), ("verify x.iso", "x.iso")] {
        let report = run(&format!("{line} --trust trust --json -")).json();
        let text = report["by_hand"].to_string();
        let place = bench.path().join(name).display().to_string();
        assert!(text.contains(&place), "{text}");
        assert!(!text.contains("VERSION") && !text.contains("X."), "{text}");
        let empty = tempfile::tempdir().unwrap();
        for step in report["by_hand"].as_array().unwrap() {
            assert!(step["directory"].as_str().unwrap().contains("one empty directory"));
            let commands = step["commands"].as_array().unwrap().iter();
            let script: Vec<&str> = commands.map(|command| command.as_str().unwrap()).collect();
            // python-tuf is not everywhere, a test's packages are not Debian's, and the keyring of gpg is the user's.
            if script
                .iter()
                .any(|line| line.starts_with("python3") || line.starts_with("gpg"))
            {
                continue;
            }
            Cmd::new("sh")
                .args(["-euc", &script.join("\n")])
                .dir(empty.path())
                .run()
                .unwrap();
        }
        assert!(empty.path().join("root/etc/version").exists());
    }
}

/// Paths and identifiers stay whole; all else fits.
#[test]
fn what_is_told_fits_a_terminal() {
    let bench = bench();
    let run = |line: &str| Said::of(common::command(PROGRAM, bench.path(), line)).out;
    let checks = audit(["profile", "list", "base", "--json"]).ends(0).json();
    let mut told = vec![run("profile list base"), run("verify repository --trust trust")];
    for check in checks.as_array().unwrap() {
        told.push(run(&format!("profile explain {}", check["id"].as_str().unwrap())));
    }
    fs::write(bench.path().join("repository/targets/stray"), "x").unwrap();
    told.push(run("verify repository --trust trust --at 2090-01-01T00:00:00Z"));
    for line in told.iter().flat_map(|text| text.lines()) {
        let words = line.split_whitespace().filter(|word| *word != "│").count();
        assert!(line.chars().count() <= 80 || words == 1, "{line}");
    }
}

/// A directory in which `repository`, `trust`, a recording `host` and a signed `x.iso` lie.
fn bench() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    support::copy(&repository(), &place.join("repository"));
    support::copy(&support::trust(), &place.join("trust"));
    fs::create_dir(place.join("host")).unwrap();
    Host::of(&repository()).record(&place.join("host"));
    let iso = support::medium::iso(place, &repository(), &support::medium::Recipe::default());
    assert_eq!(iso, place.join("x.iso"));
    directory
}

#[test]
fn a_recipe_shows_the_root_of_trust_that_every_report_shows() {
    let bench = bench();
    let run = |line: &str| Said::of(common::command(PROGRAM, bench.path(), line));
    let made = run("recipe repository --trust trust --json").ends(0).json();
    let root = made["anchor"].as_str().unwrap();
    assert_eq!((root.len(), &made["kind"]), (49, &"repository".into()));
    let script = made["script"].as_str().unwrap();
    assert!(script.starts_with("#!/bin/sh\n") && script.contains(&format!("FINGERPRINT='{root}'\n")));
    assert_eq!(run("recipe repository --trust trust").ok(), script);
    assert!(run("recipe repository --trust trust --out x.sh").ok().contains(root));
    assert_eq!(fs::read_to_string(bench.path().join("x.sh")).unwrap(), script);
    assert!(run("verify repository --trust trust").ends(3).out.contains(root));
    run("recipe none --trust trust").fails(1, &["none"]);
    run("recipe trust --trust trust").fails(3, &["no repository"]);
    run("recipe repository --trust trust --out x.sh").fails(3, &["x.sh exists"]);
    run("recipe repository --trust repository --out y.sh").fails(1, &["repository/root.json", "trust directory"]);
    // Another trust directory than the one it was written for is refused before anything else, and a missing tool is named.
    fs::write(bench.path().join("trust/root.json"), "{}").unwrap();
    let sh = |python: &Path| Said::of(Cmd::new("sh").arg("x.sh").env("PYTHON", python).dir(bench.path()));
    if let Some(python) = support::agree::python() {
        let said = sh(&python).ends(3);
        assert!(
            said.out.contains("REFUSED") && !said.out.contains("Signatures"),
            "{}",
            said.out
        );
    }
    sh(Path::new("/nowhere/python")).fails(4, &["missing: /nowhere/python"]);
}

#[test]
fn cut_and_foreign_media_fail_and_are_named() {
    let bench = bench();
    let run = |line: &str| Said::of(common::command(PROGRAM, bench.path(), line));
    let whole = fs::read(bench.path().join("x.iso")).unwrap();
    for cut in common::cuts(&whole, 4096) {
        fs::write(bench.path().join("cut.iso"), cut).unwrap();
        let said = run("verify cut.iso --trust trust --json -").ends(3);
        assert!(!said.failures().is_empty());
    }
    fs::write(bench.path().join("cut.iso"), vec![0xff; 1 << 20]).unwrap();
    run("verify cut.iso --trust trust").ends(3);
    run("verify trust --trust trust").fails(3, &["no repository"]);
    fs::write(bench.path().join("trust/root.json"), "{").unwrap();
    assert!(run("verify x.iso --trust trust").ends(3).out.contains("trust.root"));
    fs::remove_file(bench.path().join("trust/root.json")).unwrap();
    run("verify x.iso --trust trust").fails(1, &["root.json"]);
}

#[test]
fn a_recording_that_is_none_is_named() {
    let bench = bench();
    let run = || Said::of(common::command(PROGRAM, bench.path(), "host --from host --trust trust"));
    let index = bench.path().join("host/index.json");
    let whole = fs::read_to_string(&index).unwrap();
    let mut altered: serde_json::Value = serde_json::from_str(&whole).unwrap();
    altered["surprise"] = 1.into();
    fs::write(&index, altered.to_string()).unwrap();
    run().fails(1, &["index.json", "surprise"]);
    altered.as_object_mut().unwrap().remove("surprise");
    altered["format"] = 2.into();
    fs::write(&index, altered.to_string()).unwrap();
    run().fails(1, &["index.json", "format is 2"]);
    for foreign in ["", "[]", &whole[..whole.len() / 2]] {
        fs::write(&index, foreign).unwrap();
        run().fails(1, &["index.json"]);
    }
    fs::remove_file(&index).unwrap();
    run().fails(1, &["index.json", "No such file"]);
}

/// Reports and recordings: what does not fit is named, and the old report stays.
#[test]
fn a_full_disk_is_named_and_loses_nothing() {
    let bench = bench();
    let full = bench.path().join("full");
    fs::create_dir(&full).unwrap();
    for name in ["a.json", "a.html"] {
        fs::write(full.join(name), "old").unwrap();
    }
    let old = contents(&full);
    for (line, name) in [
        ("repo repository --trust trust --json full/a.json", "full/a.json"),
        ("repo repository --trust trust --html full/a.html", "full/a.html"),
    ] {
        let Some((said, left)) = common::on_small_disk(PROGRAM, bench.path(), line, &full, "12k") else {
            return;
        };
        // What it printed is in there too: the verdict is not lost with the report.
        said.fails(1, &[name, "No space left", "fail: repository"]);
        assert_eq!(left, old, "{line}");
    }
}

/// The recipe: kill a recording once it has begun.
#[test]
fn a_killed_recording_is_none() {
    let bench = bench();
    let run = |line: &str| Said::of(common::command(PROGRAM, bench.path(), line));
    let record = "host --record cut --trust trust";
    let begun = bench.path().join("cut/files");
    if common::killed(common::command(PROGRAM, bench.path(), record), bench.path(), || {
        begun.exists()
    }) {
        run("host --from cut --trust trust").fails(1, &["cut/index.json"]);
    }
    run(record).fails(1, &["cut", "not empty"]);
}

/// As an ordinary user, where the tests run as root: the super-user may read everything.
#[test]
fn no_permission_is_named() {
    let bench = bench();
    let run = |line: &str| common::as_nobody(PROGRAM, bench.path(), line);
    let Some(said) = run("host --from host --trust trust") else {
        return;
    };
    said.ok();
    let fails = |line: &str, reasons: &[&str]| run(line).unwrap().fails(1, reasons);
    fails(
        "host --from host --trust trust --html a.html",
        &["a.html", "Permission denied"],
    );
    fails(
        "host --from host --trust trust --json a.json",
        &["a.json", "Permission denied"],
    );
    fails("host --record new --trust trust", &["new", "Permission denied"]);
    let close = |name: &str| fs::set_permissions(bench.path().join(name), fs::Permissions::from_mode(0o600)).unwrap();
    close("x.iso");
    fails("iso x.iso --trust trust", &["x.iso", "Permission denied"]);
    close("repository");
    assert_ne!(run("verify repository --trust trust").unwrap().code, Some(0));
    close("trust/root.json");
    fails("host --from host --trust trust", &["root.json", "Permission denied"]);
}

/// The machine, with every directory of its root a file system of its own: what is looked for everywhere is then looked for
/// in a small place, and the test takes as long on a machine with millions of files. Nothing where one may not mount.
fn in_a_small_root(directory: &Path, args: &[&str]) -> Option<Said> {
    let spaces = if common::is_root() { "-m" } else { "-rm" };
    let script = "root=$1; shift; mount -t tmpfs tmpfs \"$root\" || exit 77
        for one in /*; do
            if [ -L \"$one\" ]; then cp -a \"$one\" \"$root$one\"
            elif [ -d \"$one\" ]; then mkdir \"$root$one\" && mount --rbind \"$one\" \"$root$one\" || exit 77
            fi
        done
        exec chroot \"$root\" \"$@\"";
    let root = directory.join("root");
    fs::create_dir_all(&root).unwrap();
    let cmd = Cmd::new("unshare").args([spaces, "--propagation", "private", "sh", "-c", script, "sh"]);
    let said = Said::of(cmd.arg(&root).arg(PROGRAM).args(args));
    (said.code != Some(77)).then_some(said)
}

#[test]
fn a_recording_of_this_machine_gives_the_same_report() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    let at_time = ["--at", "2026-01-01T00:00:00Z", "--json", "-", "--trust", &trust()];
    let record = at("rec");
    let arguments: Vec<&str> = ["host", "--record", &record].into_iter().chain(at_time).collect();
    let live = in_a_small_root(directory.path(), &arguments).unwrap_or_else(|| audit(&arguments));
    let again = audit(["host", "--from", &at("rec")].iter().copied().chain(at_time));
    assert_eq!(live.code, again.code, "{}", live.err);
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
        assert_eq!(audit(["profile", "explain", id, "--json"]).ends(0).json(), *check);
        if id.ends_with("-03") {
            break;
        }
    }
}

#[test]
fn every_example_in_the_help_is_understood() {
    let bench = bench();
    fs::rename(bench.path().join("x.iso"), bench.path().join("bastide-1.0.0.iso")).unwrap();
    for example in common::helps(PROGRAM, &[]).into_iter().flat_map(|help| help.examples) {
        // The running host is audited by a test of its own, and takes its time.
        let live = ["host --html", "host --json", "--record"]
            .iter()
            .any(|part| example.contains(part));
        let line = format!("{example}{}", if live { " --help" } else { "" });
        // Two pages of the help have the same example, and a script is not written over.
        drop(fs::remove_file(bench.path().join("check.sh")));
        let said = Said::of(common::command(PROGRAM, bench.path(), &line));
        assert_ne!(said.code, Some(2), "{line}: {}", said.err);
        // What is here does what the example says: an upstream that is not Debian's fails, and a failure is no breakdown.
        if !live && example.contains("1.0.0.iso") {
            said.ends(if example.starts_with("recipe") { 0 } else { 3 });
        }
    }
}

#[test]
fn a_closed_pipe_is_no_panic() {
    let bench = bench();
    for line in [
        "host --from host --trust trust",
        "host --from host --trust trust --json -",
        "repo repository --trust trust --json",
        "profile list",
        "profile list base --json",
        "profile explain SSH-01",
    ] {
        assert_closed_pipe(common::command(PROGRAM, bench.path(), line));
    }
}
