// SPDX-License-Identifier: GPL-3.0-or-later
//! Installations onto loop devices from a real medium: whole, cut off, refused, and over what others left.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;

use installer::steps::{Event, Phase, Step};
use signing::digest::Sha256;
use signing::process::Cmd;
use signing::release::Part;
use signing::tuf::Datastore;
use support::{DISK_SIZE, Disk, Medium, PROGRAM, Running, SERIAL, answer, can_check, common, common::flip, run};

#[test]
fn an_installation_lays_down_all_that_a_host_needs() {
    if !can_check() {
        return;
    }
    let (medium, disk) = (Medium::new(), Disk::new());
    let answer = medium.answer("answer.toml", "");
    let install = || {
        let cmd = medium.program("run", &[&disk.node]).arg("--answer").arg(&answer);
        cmd.args(["--yes", "--json"])
    };
    let ended = run(install());
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let events: Vec<Event> = ended
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let done: Vec<Step> = events
        .iter()
        .filter(|event| event.state == Phase::Done)
        .map(|event| event.step)
        .collect();
    assert_eq!(done, Step::ALL);

    // The slot: bytes and GUIDs.
    for (name, part) in [("bastide-root-a", Part::Root), ("bastide-verity-a", Part::Verity)] {
        let (start, _) = disk.partition(name);
        assert!(
            disk.read(start, medium.parts[&part].len()) == medium.parts[&part],
            "{name}"
        );
    }
    let table = hypervisor::gpt::Table::read(&disk.node).unwrap();
    let slot = table.slot(hypervisor::layout::Slot::A).unwrap();
    assert!(slot.hold(&Sha256::of(b"root hash")));

    // The boot images, and nothing under a name of the way there.
    for name in ["EFI/BOOT/BOOTX64.EFI", "EFI/bastide/slot-a.efi"] {
        assert!(disk.esp_file(name).unwrap() == medium.parts[&Part::Xen], "{name}");
        assert!(disk.esp_file(&format!("{name}.new")).is_none());
    }

    // The state.
    let slots: hypervisor::slots::Slots = serde_json::from_slice(&disk.state("cat /bastide/slots.json")).unwrap();
    assert_eq!(slots.a.state, hypervisor::slots::State::Confirmed);
    assert_eq!(disk.state_text("cat /overlay/etc/hostname"), "rack1\n");
    assert!(
        disk.state_text("cat /overlay/etc/ssh/authorized_keys.d/root")
            .starts_with("ssh-ed25519 ")
    );
    for (path, mode) in [
        ("/bastide/host-key.pem", "0600"),
        ("/bastide/answer.toml", "0600"),
        ("/overlay/etc", "0755"),
        ("/overlay/etc/ssh", "0755"),
        ("/root", "0700"),
    ] {
        let told = disk.state_text(&format!("stat {path}"));
        assert!(told.contains(&format!("Mode:  {mode}")), "{path}: {told}");
        assert!(told.contains("User:     0   Group:     0"), "{path}: {told}");
    }

    // The record holds, and the memory of trust can be opened.
    let out = tempfile::tempdir().unwrap();
    for name in ["install-record.json", "install-record.json.sig"] {
        fs::write(out.path().join(name), disk.state(&format!("cat /bastide/{name}"))).unwrap();
    }
    let verify = || {
        Cmd::new(env!("CARGO_BIN_EXE_bastide-install"))
            .arg("verify-record")
            .arg(out.path().join("install-record.json"))
    };
    let ended = run(verify());
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(ended.out.contains(SERIAL), "{}", ended.out);
    assert_eq!(run(verify().arg("--key").arg("0".repeat(64))).code, Some(3));
    disk.state(&format!("rdump /bastide/datastore {}", out.path().display()));
    Datastore::open(&out.path().join("datastore")).unwrap();
    assert!(
        !medium.at("memory/work").exists(),
        "the work directory holds the host's key and must be gone"
    );

    // Now the disk holds data: the same answer is refused, and the host is not harmed.
    let ended = run(install());
    assert_eq!(ended.code, Some(3), "{}", ended.err);
    assert!(ended.err.contains("write wipe = "), "{}", ended.err);
    assert!(disk.boots());
}

#[test]
fn a_disk_with_large_sectors_is_served_alike() {
    if !can_check() {
        return;
    }
    let (medium, disk) = (Medium::new(), Disk::of_sectors(SERIAL, DISK_SIZE, 4096));
    let answer = medium.answer("answer.toml", "");
    let cmd = medium.program("run", &[&disk.node]).arg("--answer").arg(&answer);
    let ended = run(cmd.args(["--yes", "--json"]));
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let (start, _) = disk.partition("bastide-root-a");
    assert!(disk.read(start, medium.parts[&Part::Root].len()) == medium.parts[&Part::Root]);
    assert!(disk.esp_file("EFI/BOOT/BOOTX64.EFI").unwrap() == medium.parts[&Part::Xen]);
    assert_eq!(disk.state_text("cat /overlay/etc/hostname"), "rack1\n");
}

#[test]
fn the_disk_under_the_medium_is_never_written() {
    if !can_check() {
        return;
    }
    let (medium, disk) = (Medium::new(), Disk::new());
    Cmd::new("mkfs.ext4")
        .args(["-q", "-F", "-d"])
        .arg(medium.at("medium"))
        .arg(&disk.node)
        .run()
        .unwrap();
    Cmd::new("mount")
        .args(["-o", "ro"])
        .arg(&disk.node)
        .arg(medium.at("medium"))
        .run()
        .unwrap();
    let answer = medium.answer("answer.toml", &format!("wipe = \"{SERIAL}\""));
    let ended = run(medium
        .program("run", &[&disk.node])
        .arg("--answer")
        .arg(&answer)
        .arg("--yes"));
    Cmd::new("umount").arg("--lazy").arg(medium.at("medium")).run().unwrap();
    assert_eq!(ended.code, Some(3), "{}", ended.err);
    assert!(ended.err.contains("medium of this installation"), "{}", ended.err);
}

/// Killed at the beginning of every step and in the midst of those that take their time, over a host that booted before:
/// the disk is untouched, or it does not boot, or the program was faster and all of it is there.
#[test]
fn a_run_that_is_killed_leaves_a_disk_that_does_not_boot() {
    if !can_check() {
        return;
    }
    let (medium, disk) = (Medium::new(), Disk::new());
    let answer = medium.answer("answer.toml", &format!("wipe = \"{SERIAL}\""));
    let install = || {
        let cmd = medium.program("run", &[&disk.node]).arg("--answer").arg(&answer);
        cmd.args(["--yes", "--json"])
    };
    // The two names of the boot image are given one after the other, when all else is written: either may stand alone.
    let whole = || {
        ["EFI/BOOT/BOOTX64.EFI", "EFI/bastide/slot-a.efi"]
            .iter()
            .filter_map(|name| disk.esp_file(name))
            .all(|image| image == medium.parts[&Part::Xen])
            && disk.state_text("cat /overlay/etc/hostname") == "rack1\n"
    };
    let midst = [Step::VerifyMedium, Step::Erase, Step::WriteRoot, Step::ReadBack].map(|step| (step, Phase::Progress));
    let mut cut = 0;
    for (step, state) in Step::ALL.map(|step| (step, Phase::Start)).into_iter().chain(midst) {
        if !disk.boots() {
            let ended = run(install());
            assert_eq!(
                ended.code,
                Some(0),
                "before {step:?} {state:?}: {} {}",
                ended.out,
                ended.err
            );
        }
        assert!(whole());
        let table = disk.read(0, 1 << 20);
        let killed = Running::start(install()).kill_at(|event| event.step == step && event.state == state);
        assert!(killed, "{step:?} {state:?} was not seen");
        let untouched = disk.read(0, 1 << 20) == table;
        assert!(untouched || !disk.boots() || whole(), "{step:?} {state:?}");
        assert!(!untouched || step <= Step::Erase, "{step:?} {state:?}");
        cut += usize::from(!disk.boots());
    }
    assert!(cut >= 8, "only {cut} runs were cut in time");
}

/// The files that are made before they are on the disk lie in a directory in memory, which can be too small.
#[test]
fn a_full_work_directory_is_named_and_the_disk_does_not_boot() {
    if !can_check() {
        return;
    }
    let (medium, disk) = (Medium::new(), Disk::new());
    let answer = medium.answer("answer.toml", &format!("wipe = \"{SERIAL}\""));
    fs::create_dir(medium.at("memory")).unwrap();
    let line = format!(
        "{} --answer {} --yes",
        medium.line("run", &[&disk.node]),
        answer.display()
    );
    for size in ["4k", "24k"] {
        let place = medium.directory.path();
        let Some((said, _)) = common::on_small_disk(PROGRAM, place, &line, &medium.at("memory"), size) else {
            return;
        };
        said.fails(1, &["No space left"]);
        assert!(!disk.boots());
    }
    let cmd = medium.program("run", &[&disk.node]).arg("--answer").arg(&answer);
    run(cmd.arg("--yes")).ok();
    assert!(disk.boots());
}

/// The superblock of an array's member as `md` writes it (version 1.2, 4 KiB into the device). The real mdadm judges it.
fn md_superblock() -> Vec<u8> {
    let mut block = vec![0_u8; 512];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &0xa92b_4efc_u32.to_le_bytes());
    put(4, &1_u32.to_le_bytes());
    put(16, &[0x42; 16]);
    put(32, b"oldhost:7");
    put(72, &1_u32.to_le_bytes());
    put(80, &65536_u64.to_le_bytes());
    put(92, &2_u32.to_le_bytes());
    put(128, &2048_u64.to_le_bytes());
    put(136, &65536_u64.to_le_bytes());
    put(144, &8_u64.to_le_bytes());
    put(168, &[0x43; 16]);
    put(200, &9_u64.to_le_bytes());
    put(208, &u64::MAX.to_le_bytes());
    put(220, &2_u32.to_le_bytes());
    put(258, &1_u16.to_le_bytes());
    let sum: u64 = block[..260]
        .chunks(4)
        .map(|word| u64::from(u32::from_le_bytes(word.try_into().unwrap())))
        .sum();
    let folded = ((sum & 0xffff_ffff) + (sum >> 32)) as u32;
    block[216..220].copy_from_slice(&folded.to_le_bytes());
    block
}

#[test]
fn old_raid_lvm_and_vmfs_are_named_and_wiped() {
    if !can_check() {
        return;
    }
    let (medium, disk) = (Medium::new(), Disk::new());
    let nodes = disk.divide(&[128, 128, 128]);
    let (.., start, _) = disk.partitions().remove(0);
    disk.write(start + 4096, &md_superblock());
    Cmd::new("mdadm")
        .arg("--examine")
        .arg(&nodes[0])
        .run()
        .expect("mdadm knows the recipe's member");
    Cmd::new("pvcreate")
        .args(["--yes", "--force", "--force"])
        .arg(&nodes[1])
        .run()
        .unwrap();
    Cmd::new("vgcreate")
        .args(["--yes", "oldvg"])
        .arg(&nodes[1])
        .run()
        .unwrap();
    // VMFS: the magic numbers of the volume at 1 MiB and of the file system at 2 MiB.
    let vmfs = start + (256 << 20);
    disk.write(vmfs + 0x10_0000, &0xc001_d00d_u32.to_le_bytes());
    disk.write(vmfs + 0x20_0000, &0x2fab_f15e_u32.to_le_bytes());
    let careful = medium.answer("careful.toml", "");
    let ended = run(medium.program("plan", &[&disk.node]).arg("--answer").arg(&careful));
    assert_eq!(ended.code, Some(3), "{}", ended.err);
    for word in [
        "Linux software RAID member (linux_raid_member) \"oldhost:7 raid1\"",
        "LVM physical volume (LVM2_member) \"oldvg\"",
        "VMware VMFS",
        "3 partitions",
        SERIAL,
    ] {
        assert!(ended.err.contains(word), "{word}: {}", ended.err);
    }
    assert_eq!(disk.partitions().len(), 3, "a refused plan writes nothing");

    let wiping = medium.answer("wiping.toml", &format!("wipe = \"{SERIAL}\""));
    let cmd = medium.program("run", &[&disk.node]).arg("--answer").arg(&wiping);
    let ended = run(cmd.args(["--yes", "--json"]));
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    for word in [
        "wiped Linux software RAID member",
        "wiped LVM physical volume",
        "wiped VMware VMFS",
    ] {
        assert!(ended.out.contains(word), "{word}: {}", ended.out);
    }
    // A table with the old borders over the new content shows nothing old.
    Cmd::new("wipefs")
        .args(["--all", "--quiet", "--force"])
        .arg(&disk.node)
        .run()
        .unwrap();
    disk.write(0, &vec![0; 1 << 20]);
    drop(Cmd::new("partx").arg("--delete").arg(&disk.node).run());
    for node in disk.divide(&[128, 128, 128]) {
        let left = Cmd::new("wipefs")
            .args(["--json", "--no-act"])
            .arg(node)
            .output()
            .unwrap();
        let left = String::from_utf8(left).unwrap();
        for kind in ["linux_raid_member", "LVM2_member", "VMFS"] {
            assert!(!left.contains(kind), "{left}");
        }
    }
}

fn refused(medium: &Medium, change: impl Fn(&Medium), word: &str) {
    let disk = Disk::new();
    change(medium);
    let answer = medium.answer("answer.toml", "");
    let ended = run(medium
        .program("run", &[&disk.node])
        .arg("--answer")
        .arg(&answer)
        .arg("--yes"));
    assert_eq!(ended.code, Some(3), "{word}: {} {}", ended.out, ended.err);
    assert!(ended.err.contains(word), "{word}: {}", ended.err);
    assert!(ended.out.contains("Verify the medium") && !ended.out.contains("Erase"));
    assert!(
        disk.read(0, 4 << 20).iter().all(|byte| *byte == 0),
        "the disk was touched"
    );
    assert_eq!(run(medium.program("verify-medium", &[])).code, Some(3));
}

#[test]
fn an_altered_medium_is_refused_before_the_disk_is_touched() {
    if !can_check() {
        return;
    }
    let other = Medium::foreign();
    for part in Part::ALL {
        refused(&Medium::new(), |medium| flip(&medium.target(part)), part.file());
    }
    let metadata = |name: &str| format!("medium/bastide/metadata/{name}");
    refused(
        &Medium::new(),
        |medium| fs::remove_file(medium.target(Part::Verity)).unwrap(),
        "root.verity",
    );
    refused(
        &Medium::new(),
        |medium| {
            let place = medium.target(Part::Root);
            let bytes = fs::read(&place).unwrap();
            fs::write(&place, &bytes[..bytes.len() - 1]).unwrap();
        },
        "root.erofs",
    );
    refused(
        &Medium::new(),
        |medium| flip(&medium.at(&metadata("1.host.json"))),
        "metadata",
    );
    refused(
        &Medium::new(),
        |medium| fs::remove_file(medium.at(&metadata("1.root.json.asc"))).unwrap(),
        "OpenPGP",
    );
    refused(
        &Medium::new(),
        |medium| {
            let name = metadata("1.root.json.asc");
            fs::copy(other.at(&name), medium.at(&name)).unwrap();
        },
        "OpenPGP",
    );
    // Everything else hangs from the timestamp.
    let beside = metadata("1.timestamp.json.asc");
    refused(
        &Medium::new(),
        |medium| fs::remove_file(medium.at(&beside)).unwrap(),
        "1.timestamp.json.asc",
    );
    refused(
        &Medium::new(),
        |medium| {
            fs::copy(other.at(&beside), medium.at(&beside)).unwrap();
        },
        "the OpenPGP signature of timestamp.json",
    );
    // A medium of another site, whole in itself.
    refused(
        &Medium::new(),
        |medium| {
            fs::remove_dir_all(medium.at("medium")).unwrap();
            common::copy(&other.at("medium"), &medium.at("medium"));
        },
        "metadata",
    );
}

#[test]
fn an_answer_on_a_stick_is_found_and_the_record_goes_back() {
    if !can_check() {
        return;
    }
    let (medium, disk) = (Medium::new(), Disk::new());
    let stick = Disk::of_size("stick.img", 64 << 20);
    Cmd::new("mkfs.fat")
        .args(["-I", "-n", "BASTIDE-ANS"])
        .arg(&stick.node)
        .run()
        .unwrap();
    let put = |name: &str, text: String| {
        Cmd::new("mcopy")
            .args(["-o", "-i"])
            .arg(&stick.node)
            .args(["-", &format!("::/{name}")])
            .input(text)
            .run()
            .unwrap();
    };
    let text = answer("") + "[installer]\nfinish = \"wait\"\nrecord_to = \"medium\"\n";
    put("bastide-answer.toml", text.clone());
    let both = [disk.node.as_path(), stick.node.as_path()];
    let ended = run(medium.program("run", &both).arg("--yes"));
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let copied = Cmd::new("mcopy")
        .arg("-i")
        .arg(&stick.node)
        .args(["::/rack1-install-record.json", "-"])
        .output()
        .unwrap();
    assert!(copied == disk.state("cat /bastide/install-record.json"));

    // The stick that the answer is on is no disk to install on, even if the answer names it.
    put("bastide-answer.toml", text.replace(SERIAL, "stick.img"));
    let ended = run(medium.program("plan", &both));
    assert_eq!(ended.code, Some(3), "{}", ended.err);
    assert!(ended.err.contains("never written"), "{}", ended.err);

    put("bastide-answer.toml", "x".repeat(100_000));
    let ended = run(medium.program("plan", &both));
    assert_eq!(ended.code, Some(1), "{}", ended.err);
    assert!(ended.err.contains("longer than"), "{}", ended.err);
}
