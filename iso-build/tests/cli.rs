// SPDX-License-Identifier: GPL-3.0-or-later
//! `bastide-iso` as a release engineer meets it: help that is true, bad input, full disks, cut runs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;
use signing::clock::now;
use signing::openpgp::verify_detached;
use signing::process::Cmd;
use support::common::{self, assert_closed_pipe, contents, is_root};
use support::{Bench, PROGRAM, workspace};

const BUILD: &str = "build --store store --snapshot base --version 1.0.0 --trust site/trust --source . --out new";
const DRY_RUN: &str =
    "build --dry-run --store store --snapshot base --version 1.0.0 --trust site/trust --source . --out new";
const SIGN: &str = "sign --build build-1.0.0 --site site --passphrase-file passphrase";
const ASSEMBLE: &str = "assemble --build build-1.0.0 --repo repository --out new.iso";

/// Assembling works in namespaces of its own, with the tools of the machine.
fn can_assemble() -> bool {
    let able = is_root()
        && ["xorriso", "mksquashfs", "mkfs.fat", "mcopy"]
            .iter()
            .all(|tool| Cmd::new("which").arg(tool).run().is_ok());
    if !able {
        eprintln!("could not check: assembling needs root, xorriso, squashfs-tools, dosfstools and mtools");
    }
    able
}

/// What stands beside the build, without the working directory.
fn visible(bench: &Bench) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(bench.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("new") || name.starts_with(".incomplete"))
        .collect();
    names.sort();
    names
}

#[test]
fn every_example_in_the_help_works() {
    let bench = Bench::new();
    let mut waiting = common::helps(PROGRAM, &[]);
    // In the order of a release: a medium is looked into after it was made.
    waiting.sort_by_key(|help| {
        ["", "build", "sign", "assemble", "inspect"]
            .map(|one| one == help.command)
            .map(|is| !is)
    });
    for help in waiting {
        for example in help.examples {
            let made_here = !example.starts_with("assemble ") && !example.starts_with("inspect ") || can_assemble();
            if !made_here {
                continue;
            }
            // A build takes the packages of a real snapshot: here it is planned, which reads all its inputs.
            let dry = if example.starts_with("build ") {
                " --dry-run"
            } else {
                ""
            };
            let dry = if example.contains("--dry-run") { "" } else { dry };
            bench.run(&format!("{example}{dry}")).ok();
        }
    }
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    let bench = Bench::new();
    for line in [
        "",
        "frobnicate",
        "build --store store",
        "sign --build build-1.0.0",
        "inspect",
        "assemble --build b --repo r --out o --passphrase-file passphrase",
    ] {
        bench.run(line).ends(2);
    }
    bench.run(&DRY_RUN.replace("1.0.0", "1.0")).ends(2);
}

#[test]
fn a_plan_names_every_step_and_makes_nothing() {
    let bench = Bench::new();
    let before = contents(&bench.at("out"));
    let plan = bench.run(&format!("{DRY_RUN} --json")).ends(0).json();
    assert_eq!(
        (&plan["host_packages"], &plan["builder_packages"]),
        (&1.into(), &1.into())
    );
    let at_hand = |name: &str| {
        let steps = plan["steps"].as_array().unwrap();
        steps.iter().find(|step| step["step"] == name).unwrap()["at_hand"].clone()
    };
    assert_eq!(
        (at_hand("builder root"), at_hand("host image")),
        (true.into(), false.into())
    );
    let text = bench.run(DRY_RUN).ok();
    assert!(text.contains("builder root") && text.contains("to be made"), "{text}");
    assert_eq!((visible(&bench), contents(&bench.at("out"))), (vec![], before));
}

#[test]
fn the_inputs_of_a_build_are_judged_before_anything_is_made() {
    let bench = Bench::new();
    let with = |from: &str, to: &str| bench.run(&DRY_RUN.replace(from, to));
    with("store store", "store nowhere").fails(1, &["nowhere is not a store", "bastide-repo mirror"]);
    with("snapshot base", "snapshot other").fails(1, &["other"]);
    with("snapshot base", "snapshot ../base").fails(1, &["../base"]);
    with("site/trust", "site").fails(1, &["no root.json", "bastide-sign site init"]);
    with("source .", "source nowhere").fails(1, &["nowhere"]);
    with("source .", "source site").fails(1, &["site/Cargo.toml"]);
    with("--out", "--toolchain site --out").fails(1, &["compiler", "site/bin/rustc"]);
    with("--out", "--overlay nowhere --out").fails(1, &["nowhere"]);

    fs::copy(bench.at("site/private/db.pem"), bench.at("site/trust/db.pem")).unwrap();
    bench
        .run(DRY_RUN)
        .fails(3, &["refused", "site/trust/db.pem", "private key"]);
    fs::remove_file(bench.at("site/trust/db.pem")).unwrap();

    let manifest = fs::read(bench.manifest()).unwrap();
    let name = "store/snapshots/base/snapshot.json";
    bench.edit(name, "\"format\"", "\"surprise\": 1, \"format\"");
    bench.run(DRY_RUN).fails(1, &["base", "surprise"]);
    for cut in [0, 10, manifest.len() / 2, manifest.len() - 2] {
        fs::write(bench.manifest(), &manifest[..cut]).unwrap();
        bench.run(DRY_RUN).fails(1, &["base"]);
    }
    fs::write(bench.manifest(), [0xff; 4096]).unwrap();
    bench.run(DRY_RUN).fails(1, &["base"]);
    fs::remove_file(bench.manifest()).unwrap();
    bench.run(DRY_RUN).fails(1, &["base", "No such file"]);
}

#[test]
fn unknown_keys_in_the_policy_and_a_foreign_toolchain_are_named() {
    let bench = Bench::new();
    // A source of its own, to be changed.
    fs::remove_file(bench.at("iso-build")).unwrap();
    fs::create_dir(bench.at("iso-build")).unwrap();
    common::copy(&workspace().join("iso-build/image"), &bench.at("iso-build/image"));
    fs::copy(
        workspace().join("iso-build/Cargo.toml"),
        bench.at("iso-build/Cargo.toml"),
    )
    .unwrap();
    bench.run(DRY_RUN).ok();
    let policy = fs::read_to_string(bench.at("iso-build/image/policy.toml")).unwrap();
    fs::write(
        bench.at("iso-build/image/policy.toml"),
        format!("surprise = 1\n{policy}"),
    )
    .unwrap();
    bench.run(DRY_RUN).fails(1, &["policy.toml", "surprise"]);
    fs::write(bench.at("iso-build/image/policy.toml"), &policy[..policy.len() / 2]).unwrap();
    bench.run(DRY_RUN).ends(1);
    fs::remove_file(bench.at("iso-build/image/policy.toml")).unwrap();
    bench.run(DRY_RUN).fails(1, &["policy.toml", "No such file"]);

    fs::remove_file(bench.at("rust-toolchain.toml")).unwrap();
    fs::write(bench.at("rust-toolchain.toml"), "[toolchain]\nchannel = \"1.0.0\"\n").unwrap();
    let toolchain = Cmd::new("rustc").args(["--print", "sysroot"]).dir(workspace());
    let toolchain = ["HOME", "RUSTUP_HOME", "CARGO_HOME"]
        .iter()
        .filter_map(|name| Some((name, std::env::var_os(name)?)))
        .fold(toolchain, |cmd, (name, value)| cmd.env(name, value))
        .output()
        .unwrap();
    let toolchain = String::from_utf8(toolchain).unwrap();
    let line = DRY_RUN.replace("--out", &format!("--toolchain {} --out", toolchain.trim()));
    bench.run(&line).fails(1, &["pinned to 1.0.0", "--toolchain"]);
}

#[test]
fn a_directory_with_something_else_is_not_built_over() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    fs::create_dir(bench.at("new")).unwrap();
    fs::write(bench.at("new/thesis"), "x").unwrap();
    bench.run(BUILD).fails(1, &["new holds something else", "--out"]);
    assert_eq!(contents(&bench.at("new")).len(), 1);
}

/// The store of the bench has no package: the build goes as far as a store can lie.
#[test]
fn a_store_without_its_packages_ends_the_build_and_leaves_nothing_for_the_next() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    bench.run(BUILD).ends(1);
    assert_eq!(visible(&bench), Vec::<String>::new());
    let plan = bench.run(&format!("{DRY_RUN} --json")).ends(0).json();
    assert_eq!(plan["steps"][1]["at_hand"], false);
}

#[test]
fn a_build_is_signed_the_same_way_twice_and_a_wrong_passphrase_changes_nothing() {
    let bench = Bench::new();
    let signed = contents(&bench.at("build-1.0.0"));
    bench.unsign();
    let unsigned = contents(&bench.at("build-1.0.0"));
    signing::durable::write_private(&bench.at("wrong"), b"wrong\n").unwrap();
    bench
        .run(&SIGN.replace("file passphrase", "file wrong"))
        .fails(1, &["passphrase", "db.pem"]);
    bench
        .run(&SIGN.replace("file passphrase", "file none"))
        .fails(1, &["passphrase file none"]);
    bench
        .run(&SIGN.replace("site site", "site none"))
        .fails(1, &["none/site.json"]);
    assert_eq!(contents(&bench.at("build-1.0.0")), unsigned);
    let facts = bench.run(&format!("{SIGN} --json")).ends(0).json();
    assert_eq!(facts["parts"].as_array().unwrap().len(), 6);
    assert_eq!(contents(&bench.at("build-1.0.0")), signed);
}

#[test]
fn a_build_that_is_none_is_not_signed() {
    let bench = Bench::new();
    bench
        .run(&SIGN.replace("build-1.0.0", "none"))
        .fails(1, &["none/release.json", "build first"]);
    bench
        .run(&SIGN.replace("build-1.0.0", "site"))
        .fails(1, &["site/release.json"]);
    let facts = fs::read(bench.at("build-1.0.0/release.json")).unwrap();
    bench.edit("build-1.0.0/release.json", "\"format\"", "\"surprise\": 1, \"format\"");
    bench.run(SIGN).fails(1, &["release.json", "surprise"]);
    for foreign in [&facts[..facts.len() / 2], b"", &[0xff; 4096], &[b' '; 2 << 20]] {
        fs::write(bench.at("build-1.0.0/release.json"), foreign).unwrap();
        bench.run(SIGN).fails(1, &["release.json"]);
    }
    fs::write(bench.at("build-1.0.0/release.json"), &facts).unwrap();

    let image = bench.at("build-1.0.0/installer.unsigned.efi");
    let whole = fs::read(&image).unwrap();
    let before = fs::read(bench.at("build-1.0.0/installer.efi")).unwrap();
    for foreign in [&whole[..0x100], b"", b"#!/bin/sh\n", &before[..]] {
        fs::write(&image, foreign).unwrap();
        bench.run(SIGN).fails(1, &["installer.unsigned.efi"]);
    }
    fs::remove_file(&image).unwrap();
    bench.run(SIGN).fails(1, &["installer.unsigned.efi", "build again"]);
    assert_eq!(fs::read(bench.at("build-1.0.0/installer.efi")).unwrap(), before);
    assert_eq!(fs::read(bench.at("build-1.0.0/release.json")).unwrap(), facts);
}

#[test]
fn a_medium_is_made_signed_and_looked_into() {
    if !can_assemble() {
        return;
    }
    let bench = Bench::new();
    let report = bench
        .run(&format!("{ASSEMBLE} --site site --passphrase-file passphrase --json"))
        .ends(0)
        .json();
    assert_eq!(
        (&report["iso"], &report["signature"]),
        (&"new.iso".into(), &"new.iso.asc".into())
    );
    let signature = fs::read(bench.at("new.iso.asc")).unwrap();
    let iso = fs::File::open(bench.at("new.iso")).unwrap();
    verify_detached(&bench.at("site/trust/release.asc"), iso, &signature, now()).unwrap();

    let inspected = bench.run("inspect new.iso --json").ends(0).json();
    assert_eq!(
        (&inspected["label"], &inspected["signature"]),
        (&"BASTIDE".into(), &"new.iso.asc".into())
    );
    let parts = inspected["parts"].as_array().unwrap();
    assert!(
        parts.len() == 6 && parts.iter().all(|part| part["present"] == true),
        "{parts:?}"
    );
    let names = |list: &Value| -> Vec<String> {
        let list = list.as_array().unwrap().iter();
        list.map(|file| file["path"].as_str().unwrap().to_lowercase()).collect()
    };
    assert_eq!(names(&inspected["system_partition"]), ["efi/boot/bootx64.efi"]);
    assert!(names(&inspected["metadata"]).contains(&"timestamp.json".to_owned()));
    let text = bench.run("inspect new.iso").ok();
    assert!(
        text.contains("host/1.0.0/root.erofs") && text.contains("release stable 1.0.0"),
        "{text}"
    );
    assert_closed_pipe(bench.command("inspect new.iso"));
    assert_closed_pipe(bench.command("inspect new.iso --json"));

    // Once more, without a signature: the same bits, and the signature of another run does not stay beside them.
    let first = contents(bench.path())["new.iso"];
    let said = bench.run(ASSEMBLE).ok();
    assert!(said.contains("not signed"), "{said}");
    assert_eq!(contents(bench.path())["new.iso"], first);
    assert!(!bench.at("new.iso.asc").exists());

    // What is cut or foreign is named, and never a panic.
    let whole = fs::read(bench.at("new.iso")).unwrap();
    for cut in common::cuts(&whole, 1 << 20) {
        fs::write(bench.at("cut.iso"), cut).unwrap();
        bench.run("inspect cut.iso").fails(1, &["ISO"]);
    }
    let mut foreign = whole;
    foreign[0x8000..0x9000].fill(0xff);
    fs::write(bench.at("cut.iso"), foreign).unwrap();
    bench.run("inspect cut.iso").fails(1, &["cut.iso"]);
    bench.run("inspect passphrase").fails(1, &["passphrase"]);
    bench.run("inspect none.iso").fails(1, &["none.iso", "No such file"]);
    bench.run("inspect site").fails(1, &["site"]);
}

#[test]
fn a_medium_is_made_of_the_published_build_only() {
    if !can_assemble() {
        return;
    }
    let bench = Bench::new();
    fs::write(bench.at("new.iso"), "old").unwrap();
    fs::write(bench.at("new.iso.asc"), "old").unwrap();
    let with = |from: &str, to: &str| bench.run(&ASSEMBLE.replace(from, to));
    with("build-1.0.0", "none").fails(1, &["none/release.json", "build first"]);
    with("repo repository", "repo none").fails(1, &["none"]);
    with("repo repository", "repo site").fails(3, &["site", "incomplete"]);
    with("--out", "--work elsewhere --out").fails(1, &["builder root", "elsewhere", "--work"]);
    assert!(!bench.at("elsewhere").exists());
    with("new.iso", "none/new.iso").fails(1, &["none/new.iso", "No such file"]);

    let archive = bench.at("build-1.0.0/upstream.tar");
    let whole = fs::read(&archive).unwrap();
    for foreign in [&whole[..whole.len() / 2], b"", &[b'x'; 4096]] {
        fs::write(&archive, foreign).unwrap();
        bench.run(ASSEMBLE).fails(3, &["refused", "upstream.tar"]);
    }
    fs::write(&archive, whole).unwrap();

    bench.edit("build-1.0.0/release.json", "\"1.0.0\"", "\"1.1.0\"");
    bench
        .run(ASSEMBLE)
        .fails(1, &["host/1.1.0/", "is not published", "bastide-repo publish"]);
    bench.edit("build-1.0.0/release.json", "\"1.1.0\"", "\"1.0.0\"");
    let digest = signing::digest::Sha256::of_file(&bench.at("build-1.0.0/root.erofs"))
        .unwrap()
        .0;
    bench.edit("build-1.0.0/release.json", &digest.to_string(), &"0".repeat(64));
    bench
        .run(ASSEMBLE)
        .fails(3, &["refused", "root.erofs", "other content"]);
    bench.edit("build-1.0.0/release.json", &"0".repeat(64), &digest.to_string());

    let part = |name: &str| {
        let parts = common::files_below(&bench.at("repository/targets"));
        parts
            .into_iter()
            .find(|path| path.to_str().unwrap().ends_with(name))
            .unwrap()
    };
    common::flip(&part("root.erofs"));
    bench.run(ASSEMBLE).fails(3, &["refused", "root.erofs"]);
    common::flip(&part("root.erofs"));
    common::flip(&bench.at("repository/metadata/1.host.json"));
    bench.run(ASSEMBLE).fails(3, &["refused", "host"]);
    common::flip(&bench.at("repository/metadata/1.host.json"));
    fs::remove_file(part("installer.efi")).unwrap();
    bench.run(ASSEMBLE).fails(3, &["installer.efi", "incomplete"]);
    assert_eq!(visible(&bench), ["new.iso", "new.iso.asc"]);
    assert_eq!(fs::read(bench.at("new.iso")).unwrap(), b"old");
}

/// The recipe: kill an assembly at each of its steps, as what it leaves in the working directory tells them.
#[test]
fn a_killed_assembly_leaves_no_medium_and_the_next_one_makes_it() {
    if !can_assemble() {
        return;
    }
    let bench = Bench::new();
    let line = format!("{ASSEMBLE} --site site --passphrase-file passphrase");
    bench.run(&line).ok();
    let whole = contents(bench.path())["new.iso"];
    fs::remove_file(bench.at("new.iso")).unwrap();
    let mut killed = 0;
    for sign in [
        "assembly/targets",
        "assembly/iso/bastide/targets.squashfs",
        "assembly/out/esp.img",
        "assembly/out/medium.iso",
    ] {
        let sign = bench.at("out/iso-work").join(sign);
        killed += u32::from(common::killed(bench.command(&line), &bench.at("out/iso-work"), || {
            sign.exists()
        }));
        // On a machine that is slow to kill it may be there; then it is whole.
        if bench.at("new.iso").exists() {
            assert_eq!(contents(bench.path())["new.iso"], whole, "{}", sign.display());
            fs::remove_file(bench.at("new.iso")).unwrap();
        }
    }
    assert!(killed > 0);
    bench.run(&line).ok();
    assert_eq!(contents(bench.path())["new.iso"], whole);
}

#[test]
fn a_full_disk_is_named_and_loses_nothing() {
    let bench = Bench::new();
    let build = bench.at("build-1.0.0");
    let before = contents(&build);
    bench.unsign();
    let unsigned = contents(&build);
    // The parts fill it to the last page.
    let size = Cmd::new("du")
        .args(["-s", "--apparent-size", "-B4096"])
        .arg(&build)
        .output()
        .unwrap();
    let pages: u64 = String::from_utf8(size)
        .unwrap()
        .split('\t')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let line = format!("{SIGN} --json");
    let Some((said, left)) =
        common::on_small_disk(PROGRAM, bench.path(), &line, &build, &format!("{}k", pages * 4 + 8))
    else {
        return;
    };
    said.fails(1, &["build-1.0.0", "No space left"]);
    for (name, digest) in &unsigned {
        assert_eq!(left.get(name), Some(digest), "{name}");
    }
    let half: Vec<_> = left
        .iter()
        .filter(|(name, digest)| before.get(*name) != Some(digest) && !unsigned.contains_key(*name))
        .collect();
    assert!(half.is_empty(), "{half:?}");
    bench.run(SIGN).ok();
    if !can_assemble() {
        return;
    }
    fs::create_dir(bench.at("stick")).unwrap();
    fs::write(bench.at("stick/new.iso"), "old").unwrap();
    let old = contents(&bench.at("stick"));
    let line = ASSEMBLE.replace("new.iso", "stick/new.iso");
    let (said, left) = common::on_small_disk(PROGRAM, bench.path(), &line, &bench.at("stick"), "1m").unwrap();
    said.fails(1, &["stick/new.iso", "No space left"]);
    assert_eq!(left, old);
    let bench = Bench::new();
    let (said, _) = common::on_small_disk(PROGRAM, bench.path(), ASSEMBLE, &bench.at("out"), "512k").unwrap();
    said.fails(1, &["out/iso-work/assembly", "No space left"]);
    assert_eq!(visible(&bench), Vec::<String>::new());
}

/// As an ordinary user, where the tests run as root: the super-user may write everywhere.
#[test]
fn no_permission_is_named() {
    let bench = Bench::new();
    let run = |line: &str| common::as_nobody(PROGRAM, bench.path(), line);
    let Some(said) = run(SIGN) else {
        return;
    };
    said.fails(1, &["passphrase", "Permission denied"]);
    run(BUILD).unwrap().fails(1, &["needs root", "sudo"]);
    run(ASSEMBLE).unwrap().fails(1, &["needs root", "sudo"]);
    fs::write(bench.at("private.iso"), "x").unwrap();
    fs::set_permissions(bench.at("private.iso"), fs::Permissions::from_mode(0o600)).unwrap();
    run("inspect private.iso")
        .unwrap()
        .fails(1, &["private.iso", "Permission denied"]);
    // Whoever may read the keys and not write the build.
    Cmd::new("chown")
        .args(["-R", "65534"])
        .args([bench.at("site"), bench.at("passphrase")])
        .run()
        .unwrap();
    run(SIGN).unwrap().fails(1, &["build-1.0.0", "Permission denied"]);
}

#[test]
fn a_closed_pipe_is_no_panic() {
    let bench = Bench::new();
    assert_closed_pipe(bench.command(DRY_RUN));
    assert_closed_pipe(bench.command(&format!("{DRY_RUN} --json")));
    assert_closed_pipe(bench.command(SIGN));
}
