// SPDX-License-Identifier: GPL-3.0-or-later

use super::*;
use crate::inventory::{Card, Firmware, Partition};

const GIB: u64 = 1 << 30;

fn disk(serial: &str, size: u64) -> Disk {
    Disk {
        path: format!("/dev/{serial}").into(),
        model: Some("ACME 1".into()),
        serial: Some(serial.into()),
        size,
        sector: 512,
        ..Disk::default()
    }
}

fn full(serial: &str) -> Disk {
    Disk {
        signatures: vec![Signature {
            device: "/dev/x".into(),
            kind: "VMFS_volume_member".into(),
            offset: 0,
            label: Some("datastore1".into()),
        }],
        partitions: vec![Partition::default()],
        ..disk(serial, 20 * GIB)
    }
}

fn machine(disks: Vec<Disk>) -> Inventory {
    Inventory {
        firmware: Firmware {
            uefi: true,
            secure_boot: Some(false),
            setup_mode: Some(true),
        },
        cards: vec![Card {
            name: "eno1".into(),
            mac: "52:54:00:12:34:56".into(),
            driver: None,
            carrier: None,
        }],
        disks,
        ..Inventory::default()
    }
}

fn release() -> ReleaseFacts {
    let part = |part, size| PartFile {
        part,
        size,
        sha256: Sha256::of(b""),
    };
    ReleaseFacts {
        version: "1.0.0".parse().unwrap(),
        channel: "stable".into(),
        root_hash: Sha256::of(b"root"),
        parts: vec![part(Part::Root, GIB), part(Part::Verity, 1), part(Part::Xen, 1)],
        anchor: "588e 92e1".into(),
    }
}

fn plan(disks: Vec<Disk>, lines: &str) -> Result<Plan, PlanError> {
    let answer = Answer::from_bytes(format!("[network]\nhostname = \"h\"\n{lines}").into_bytes()).unwrap();
    Plan::new(&machine(disks), &answer.answer, &release())
}

#[test]
fn an_empty_disk_that_matches_alone_is_chosen() {
    let plan = plan(
        vec![disk("S1", 20 * GIB), disk("S2", 20 * GIB)],
        "[disk]\nserial = \"S2\"",
    )
    .unwrap();
    assert_eq!(plan.disk.serial.as_deref(), Some("S2"));
    let text = plan.lines().join("\n");
    assert!(
        text.contains("Trust     588e 92e1\n          compare by telephone\n"),
        "{text}"
    );
    assert!(plan.wipe.is_empty() && text.contains("nothing is lost"), "{text}");
    assert!(text.contains("nobody can log in"), "{text}");
}

#[test]
fn the_partitions_fill_the_disk_and_end_before_the_second_table() {
    let size = 20 * GIB + 512;
    let plan = plan(vec![disk("S1", size)], "[disk]\nserial = \"S1\"").unwrap();
    let mut expected = layout::ALIGNMENT;
    for partition in &plan.partitions {
        assert_eq!(partition.start, expected);
        assert!(partition.size > 0 && partition.size % layout::ALIGNMENT == 0);
        expected += partition.size;
    }
    assert!(expected + 34 * 512 <= size && size - expected < 3 * layout::ALIGNMENT);
    let root = plan.partition("bastide-root-a").unwrap();
    assert_eq!(root.guid, Some(layout::root_guid(&plan.release.root_hash)));
    assert_eq!(plan.partition("bastide-root-b").unwrap().guid, None);
}

#[test]
fn no_disk_and_many_disks_are_refused_by_name() {
    let none = plan(vec![disk("S1", 20 * GIB)], "[disk]\nserial = \"S9\"").unwrap_err();
    assert!(matches!(none, PlanError::NoDisk { .. }));
    let text = none.to_string();
    assert!(
        text.contains("serial S9") && text.contains("ACME 1 serial S1 21.4 GB"),
        "{text}"
    );
    let many = plan(
        vec![disk("S1", 20 * GIB), disk("S2", 20 * GIB)],
        "[disk]\nmodel = \"ACME 1\"",
    )
    .unwrap_err()
    .to_string();
    assert!(
        many.starts_with("2 disks") && many.contains("S1") && many.contains("S2"),
        "{many}"
    );
    assert!(matches!(
        plan(vec![], "[disk]\nserial = \"S\""),
        Err(PlanError::NoDisk { .. })
    ));
}

#[test]
fn part_of_a_serial_number_is_another_serial_number() {
    for serial in ["S1", "s12", "S123"] {
        let lines = format!("[disk]\nserial = \"{serial}\"");
        assert!(plan(vec![disk("S12", 20 * GIB)], &lines).is_err(), "{serial}");
    }
}

#[test]
fn data_is_wiped_only_by_the_disk_s_own_serial() {
    let error = plan(vec![full("S1")], "[disk]\nserial = \"S1\"")
        .unwrap_err()
        .to_string();
    for word in [
        "ACME 1",
        "serial S1",
        "21.4 GB",
        "1 partition",
        "VMware VMFS volume",
        "datastore1",
        "write wipe = \"S1\" below [disk]",
    ] {
        assert!(error.contains(word), "{word}: {error}");
    }
    let other = plan(
        vec![full("S1"), full("S2")],
        "[disk]\nmin_size = \"1 GB\"\nwipe = \"S3\"",
    );
    assert!(matches!(other, Err(PlanError::ManyDisks { .. })));
    let other = plan(vec![full("S1")], "[disk]\nmin_size = \"1 GB\"\nwipe = \"S3\"");
    assert!(matches!(other, Err(PlanError::OtherWipe { .. })));
    let right = plan(vec![full("S1")], "[disk]\nserial = \"S1\"\nwipe = \"S1\"").unwrap();
    assert_eq!(right.wipe.len(), 1);
    assert!(right.lines().iter().any(|line| line.contains("VMware VMFS volume")));
}

#[test]
fn unrecognised_bytes_are_data() {
    let strange = Disk {
        unrecognised: true,
        ..disk("S1", 20 * GIB)
    };
    assert!(matches!(
        plan(vec![strange], "[disk]\nserial = \"S1\""),
        Err(PlanError::HoldsData { .. })
    ));
}

#[test]
fn a_disk_without_a_serial_number_is_never_wiped() {
    let nameless = Disk {
        serial: None,
        ..full("S1")
    };
    assert!(matches!(
        plan(vec![nameless], "[disk]\nmodel = \"ACME 1\""),
        Err(PlanError::Nameless(_))
    ));
}

#[test]
fn the_medium_is_never_written() {
    let medium = Disk {
        medium: true,
        mounted: vec!["/run/bastide/medium".into()],
        ..full("S1")
    };
    assert!(matches!(
        plan(vec![medium.clone()], "[disk]\nserial = \"S1\"\nwipe = \"S1\""),
        Err(PlanError::Medium(_))
    ));
    let plan = plan(vec![medium, disk("S2", 20 * GIB)], "[disk]\nmin_size = \"1 GB\"").unwrap();
    assert_eq!(plan.disk.serial.as_deref(), Some("S2"));
}

#[test]
fn disks_that_cannot_serve_are_refused() {
    let lines = "[disk]\nserial = \"S1\"";
    let small = plan(vec![disk("S1", layout::minimum_disk() - 1)], lines).unwrap_err();
    assert!(matches!(small, PlanError::TooSmall { .. }) && small.to_string().contains("serial S1"));
    assert!(plan(vec![disk("S1", layout::minimum_disk())], lines).is_ok());
    let mut busy = disk("S1", 20 * GIB);
    busy.mounted = vec!["/srv".into()];
    assert!(matches!(plan(vec![busy], lines), Err(PlanError::InUse { .. })));
    let mut locked = disk("S1", 20 * GIB);
    locked.read_only = true;
    assert!(matches!(plan(vec![locked], lines), Err(PlanError::ReadOnly(_))));
    let mut faulty = disk("S1", 20 * GIB);
    faulty.unreadable = Some("I/O error".into());
    assert!(faulty.holds_data());
    assert!(matches!(plan(vec![faulty], lines), Err(PlanError::Unreadable { .. })));
    let mut strange = disk("S1", 20 * GIB);
    strange.sector = 520;
    assert!(matches!(plan(vec![strange], lines), Err(PlanError::Sectors { .. })));
}

#[test]
fn a_card_that_is_not_there_is_refused() {
    let lines = |card: &str| format!("[[network.interface]]\n{card}\n[disk]\nserial = \"S1\"");
    let present = |card| plan(vec![disk("S1", 20 * GIB)], &lines(card));
    assert!(present("name = \"eno1\"").is_ok());
    assert!(present("mac = \"52:54:00:12:34:56\"").is_ok());
    assert!(matches!(present("name = \"eno2\""), Err(PlanError::NoCard { .. })));
    assert!(matches!(
        present("mac = \"52:54:00:12:34:57\""),
        Err(PlanError::NoCard { .. })
    ));
    let bond = "name = \"b\"\nbond = { members = [\"eno1\", \"eno2\"] }";
    assert!(
        present(bond)
            .unwrap_err()
            .to_string()
            .contains("network.interface[0].bond.members")
    );
}

#[test]
fn secure_boot_is_decided_by_firmware_and_answer() {
    let decide = |setup, enforced, lines: &str| {
        let mut machine = machine(vec![disk("S1", 20 * GIB)]);
        machine.firmware.setup_mode = setup;
        machine.firmware.secure_boot = enforced;
        let text = format!("[network]\nhostname = \"h\"\n[disk]\nserial = \"S1\"\n[secure_boot]\n{lines}");
        let answer = Answer::from_bytes(text.into_bytes()).unwrap().answer;
        Plan::new(&machine, &answer, &release()).map(|plan| plan.secure_boot)
    };
    assert_eq!(decide(Some(true), Some(false), "").unwrap(), SecureBootPlan::Enrol);
    assert_eq!(
        decide(Some(true), Some(false), "enrol = false").unwrap(),
        SecureBootPlan::Leave
    );
    assert_eq!(
        decide(Some(false), Some(true), "require = true").unwrap(),
        SecureBootPlan::Enforced
    );
    assert_eq!(decide(Some(false), Some(false), "").unwrap(), SecureBootPlan::Leave);
    assert!(decide(Some(false), Some(false), "require = true").is_err());
    assert!(decide(None, None, "require = true").is_err());
}

#[test]
fn another_machine_is_not_judged_by_this_one() {
    let mut other = machine(vec![disk("S1", 20 * GIB)]);
    other.for_another_machine();
    let attempt = |machine: &Inventory, lines: &str| {
        let text = format!("[network]\nhostname = \"h\"\n{lines}\n[disk]\nserial = \"S1\"\n");
        Plan::new(
            machine,
            &Answer::from_bytes(text.into_bytes()).unwrap().answer,
            &release(),
        )
    };
    let card = "[[network.interface]]\nname = \"enp9s0\"\ndhcp = true";
    assert!(matches!(
        attempt(&machine(vec![disk("S1", 20 * GIB)]), card),
        Err(PlanError::NoCard { .. })
    ));
    let text = attempt(&other, card).unwrap().lines().join("\n");
    assert!(text.contains("Firmware  not looked at: another machine"), "{text}");
    assert!(text.contains("cards   not looked at: another machine"), "{text}");
    assert!(!text.contains("NOT enforced"), "{text}");
    let refused = attempt(&other, "[secure_boot]\nrequire = true")
        .unwrap_err()
        .to_string();
    assert!(refused.contains("another machine"), "{refused}");
}

#[test]
fn a_release_that_is_not_whole_or_does_not_fit_is_refused() {
    let answer = Answer::from_bytes(b"[network]\nhostname = \"h\"\n[disk]\nserial = \"S1\"".to_vec()).unwrap();
    let machine = machine(vec![disk("S1", 20 * GIB)]);
    let attempt = |release: &ReleaseFacts| Plan::new(&machine, &answer.answer, release);
    let mut large = release();
    large.parts[0].size = layout::ROOT_SIZE + 1;
    assert!(matches!(attempt(&large), Err(PlanError::Release { .. })));
    let mut lacking = release();
    lacking.parts.remove(2);
    assert!(matches!(attempt(&lacking), Err(PlanError::NoPart("xen.efi"))));
}

#[test]
fn a_machine_without_uefi_is_refused() {
    let answer = Answer::from_bytes(b"[network]\nhostname = \"h\"\n[disk]\nserial = \"S1\"".to_vec()).unwrap();
    let mut machine = machine(vec![disk("S1", 20 * GIB)]);
    machine.firmware = Firmware::default();
    assert_eq!(Plan::new(&machine, &answer.answer, &release()), Err(PlanError::NoUefi));
}
