// SPDX-License-Identifier: GPL-3.0-or-later
//! Plans on real disks: which one is chosen, and what is told of a machine that is not here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::path::Path;

use signing::process::Cmd;
use support::{DISK_SIZE, Disk, Medium, SERIAL, answer, can_check, run};

#[test]
fn a_faulty_disk_hinders_no_other_and_is_never_chosen() {
    if !can_check() {
        return;
    }
    let (medium, good, faulty) = (Medium::new(), Disk::new(), Disk::of_size("faulty.img", DISK_SIZE));
    faulty.fail();
    let devices: &[&Path] = &[&good.node, &faulty.node];
    let inventory = run(medium.program("inventory", devices).arg("--json")).ends(0).json();
    let disks = inventory["disks"].as_array().unwrap();
    let seen = |disk: &Disk| {
        disks
            .iter()
            .find(|one| one["path"] == disk.node.to_str().unwrap())
            .unwrap()
    };
    assert!(seen(&good)["unreadable"].is_null());
    assert!(
        seen(&faulty)["unreadable"].as_str().unwrap().contains("rror"),
        "{inventory}"
    );
    let text = run(medium.program("inventory", devices)).ok();
    assert!(text.contains("unreadable data"), "{text}");
    let plan = |answer: &str| {
        let answer = medium.answer("answer.toml", answer);
        run(medium.program("plan", devices).arg("--answer").arg(answer))
    };
    plan("").ok();
    let place = medium.at("other.toml");
    fs::write(
        &place,
        answer("wipe = \"faulty.img\"").replace(&format!("serial = \"{SERIAL}\""), "serial = \"faulty.img\""),
    )
    .unwrap();
    run(medium.program("plan", devices).arg("--answer").arg(&place))
        .fails(3, &["cannot be looked into", "another disk"]);
}

#[test]
fn a_disk_in_use_or_too_small_is_refused() {
    if !can_check() {
        return;
    }
    let medium = Medium::new();
    let small = Disk::of_size(SERIAL, 1 << 30);
    let answer = medium.answer("answer.toml", "");
    let ended = run(medium.program("plan", &[&small.node]).arg("--answer").arg(&answer));
    assert_eq!(ended.code, Some(3), "{}", ended.err);
    assert!(ended.err.contains("too small"), "{}", ended.err);

    let disk = Disk::new();
    Cmd::new("mkfs.ext4").args(["-q", "-F"]).arg(&disk.node).run().unwrap();
    let point = tempfile::tempdir().unwrap();
    Cmd::new("mount").arg(&disk.node).arg(point.path()).run().unwrap();
    let wiping = medium.answer("wiping.toml", &format!("wipe = \"{SERIAL}\""));
    let ended = run(medium
        .program("run", &[&disk.node])
        .arg("--answer")
        .arg(&wiping)
        .arg("--yes"));
    Cmd::new("umount").arg("--lazy").arg(point.path()).run().unwrap();
    assert_eq!(ended.code, Some(3), "{}", ended.err);
    assert!(ended.err.contains("is in use"), "{}", ended.err);
}

/// The answer names a card that no machine has, and demands nothing of the firmware.
#[test]
fn a_plan_for_another_machine_tells_nothing_of_this_one() {
    if !can_check() {
        return;
    }
    let (medium, disk) = (Medium::new(), Disk::new());
    let place = medium.at("answer.toml");
    let card = "[[network.interface]]\nmac = \"02:00:00:00:00:99\"\ndhcp = true\n";
    fs::write(&place, answer("") + card).unwrap();
    let attempt = || medium.program("plan", &[&disk.node]).arg("--answer").arg(&place);
    let text = run(attempt()).ok();
    assert!(text.contains("Firmware  not looked at: another machine"), "{text}");
    assert!(text.contains("cards   not looked at: another machine"), "{text}");
    assert!(!text.contains("NOT enforced"), "{text}");
    assert_eq!(
        run(attempt().arg("--json")).ends(0).json()["secure_boot"],
        "other-machine"
    );
    let text = run(medium.program("inventory", &[&disk.node])).ok();
    assert!(text.contains("Firmware  not looked at: another machine"), "{text}");
    assert!(text.lines().all(|line| line == line.trim_end()), "{text}");
    fs::write(&place, answer("") + "[secure_boot]\nrequire = true\n").unwrap();
    run(attempt()).fails(3, &["secure_boot.require", "another machine"]);
}

#[test]
fn without_yes_the_plan_is_shown_and_the_words_to_type() {
    if !can_check() {
        return;
    }
    let (medium, disk) = (Medium::new(), Disk::new());
    let answer = medium.answer("answer.toml", "");
    let said = run(medium.program("run", &[&disk.node]).arg("--answer").arg(&answer)).ends(2);
    assert!(said.out.contains("nothing is lost"), "{}", said.out);
    let (_, words) = said.err.split_once("bastide-install run ").unwrap();
    assert!(words.trim_end().ends_with("answer.toml --yes"), "{words}");
    assert!(disk.partitions().is_empty());
    let unsaid = medium.program("run", &[&disk.node]).arg("--json").arg("--answer");
    assert_eq!(run(unsaid.arg(&answer)).ends(2).json()["kind"], "usage");
    // What it says to type is the command that installs.
    run(Cmd::new(support::PROGRAM).arg("run").args(words.split_whitespace())).ok();
    assert!(disk.boots());
    // The last of the events as JSON lines is the refusal.
    let again = medium.program("run", &[&disk.node]).args(["--yes", "--json"]);
    let said = run(again.arg("--answer").arg(&answer)).ends(3);
    let last: serde_json::Value = serde_json::from_str(said.out.lines().last().unwrap()).unwrap();
    assert_eq!(last["kind"], "refused", "{}", said.out);
}
