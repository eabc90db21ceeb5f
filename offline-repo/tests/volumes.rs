// SPDX-License-Identifier: GPL-3.0-or-later
//! A bundle in volumes: any order, any subset, a bad disc, a forged list, and runs that are cut off.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};
use signing::digest::Sha256;
use signing::process::Cmd;
use support::PROGRAM;
use support::common::{self, contents};
use support::low::{Low, edit, large};

const EXPORT: &str = "export --repo repository --out discs/1.bundle --volume-size 4M --site site \
                      --passphrase-file passphrase --json";
const IMPORT: &str = "--repo gateway --trust site/trust --json";

fn import(low: &Low, files: &str) -> Value {
    low.run(&format!("import {files} {IMPORT}")).ends(0).json()
}

fn disc(number: usize) -> String {
    format!("discs/1.bundle.{number:03}")
}

fn releases(low: &Low) -> usize {
    match low.at("gateway/metadata/timestamp.json").exists() {
        true => low.list(&low.at("gateway"))["releases"].as_array().unwrap().len(),
        false => 0,
    }
}

#[test]
fn volumes_are_taken_one_at_a_time_in_any_order_and_nothing_is_visible_before_the_last() {
    let low = large();
    let said = low.run(EXPORT).ends(0).json();
    assert_eq!(said["of"], 2);
    for number in [1, 2] {
        let entry = &said["files"][number.to_string()];
        let file = low.at(&disc(number));
        assert_eq!(entry["size"], fs::metadata(&file).unwrap().len());
        assert!(entry["size"].as_u64().unwrap() <= 4 << 20);
        assert_eq!(entry["read_back"]["sha256"], entry["sha256"]);
        // Any volume opens with tar and zstd.
        let script = "set -e; tar -xf \"$1\" -C \"$2\"; find \"$2\" -name '*.zst*' -exec zstd -q -t {} +";
        let place = low.at(&format!("opened{number}"));
        fs::create_dir(&place).unwrap();
        Cmd::new("sh")
            .args(["-c", script, "sh"])
            .arg(&file)
            .arg(&place)
            .run()
            .unwrap();
    }
    // And the pieces, one behind the other, are the target.
    let script = "cat opened1/targets/host/1.0.0/*.zst.0001 opened2/targets/host/1.0.0/*.zst.0002 | zstd -dc | \
                  cmp - build-1.0.0/root.erofs";
    Cmd::new("sh")
        .args(["-c", script])
        .dir(low.directory.path())
        .run()
        .unwrap();

    let said = import(&low, &disc(2));
    assert_eq!((&said["volumes"], &said["missing"]), (&json!([2]), &json!([1])));
    assert_eq!(releases(&low), 0);
    let waits = low.run("quarantine --repo gateway").ok();
    assert!(waits.contains("has volume 2, waits for 1"), "{waits}");
    // The same once more changes nothing, and a dry run with the last one says that it would do.
    assert_eq!(import(&low, &disc(2))["missing"], json!([1]));
    let said = import(&low, &format!("{} --dry-run", disc(1)));
    assert!(said.get("missing").is_none() && releases(&low) == 0, "{said}");
    let said = import(&low, &disc(1));
    assert_eq!((&said["new"], said.get("missing")), (&json!(["1.0.0"]), None));
    assert_eq!(releases(&low), 1);
    assert!(!low.at("gateway/quarantine").exists());
    assert_eq!(
        low.list(&low.at("gateway"))["releases"],
        low.list(&low.repository())["releases"]
    );
    assert_eq!(low.run("quarantine --repo gateway").ok(), "nothing is in quarantine\n");
}

/// The recipe: a byte of the root file system on one disc is another; a disc is cut off; a disc is empty.
#[test]
fn a_bad_disc_is_named_and_asked_for_again_alone() {
    let low = large();
    let set = low.run(EXPORT).ends(0).json()["set"].clone();
    for (number, other) in [(1, 2), (2, 1)] {
        drop(fs::remove_dir_all(low.at("gateway")));
        let good = fs::read(low.at(&disc(number))).unwrap();
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 1;
        for content in [&bad[..], &good[..good.len() / 3]] {
            fs::write(low.at(&disc(number)), content).unwrap();
            // As the first that comes, when the other pieces are not there to be joined with.
            drop(fs::remove_dir_all(low.at("gateway")));
            low.run(&format!("import {} {IMPORT}", disc(number))).ends(3);
            let said = low.run(&format!("import discs {IMPORT}")).ends(3);
            let told = said.json();
            assert_eq!((&told["missing"], &told["set"]), (&json!([number]), &set), "{told}");
            assert!(
                said.err.contains(&disc(number)) && said.err.contains("carried again"),
                "{}",
                said.err
            );
            assert_eq!((&told["volumes"], releases(&low)), (&json!([other]), 0));
            // Alone it is refused, and what came before stays.
            low.run(&format!("import {} {IMPORT}", disc(number))).ends(3);
        }
        // Made again, alone.
        fs::remove_file(low.at(&disc(number))).unwrap();
        let said = low.run(&format!("{EXPORT} --volume {number}")).ends(0).json();
        assert_eq!((&said["set"], said["files"].as_object().unwrap().len()), (&set, 1));
        assert_eq!(import(&low, &disc(number))["new"], json!(["1.0.0"]));
        assert_eq!(releases(&low), 1);
    }
}

/// The recipe: a list that nobody of the site signed, another site's, one that was edited; volumes of two exports.
#[test]
fn a_volume_that_the_site_did_not_sign_is_refused() {
    let low = large();
    low.run(EXPORT).ends(0);
    let change = |name: &str, wanted: &str, with: &dyn Fn(Vec<u8>) -> Option<Vec<u8>>| {
        edit(&low.at(&disc(1)), &low.at(name), |member, content| {
            match member == wanted {
                true => with(content),
                false => Some(content),
            }
        });
    };
    let replace = |from: &'static str, to: &'static str| {
        move |content: Vec<u8>| Some(String::from_utf8(content).unwrap().replace(from, to).into_bytes())
    };
    change(
        "edited",
        "bundle.json",
        &replace("\"number\": 1,\n    \"of\": 2", "\"number\": 1,\n    \"of\": 3"),
    );
    change("unsigned", "bundle.json.asc", &|_| None);
    change("smuggled", "metadata/timestamp.json", &|mut content| {
        content.push(b' ');
        Some(content)
    });
    let refused = |file: &str, why: &str| {
        let said = low.run(&format!("import {file} {IMPORT}")).ends(3);
        assert!(
            said.err.contains(why) || said.out.contains(why),
            "{file}: {} {}",
            said.err,
            said.out
        );
    };
    refused("edited", "OpenPGP signature");
    refused("unsigned", "does not hold what its list says");
    refused("smuggled", "does not hold what its list says");
    low.run(
        &EXPORT
            .replace("--site site", "--site other")
            .replace("discs/1", "other.1"),
    )
    .ends(0);
    refused("other.1.bundle.001", "OpenPGP signature");
    assert!(!low.at("gateway").exists());
    low.run(&EXPORT.replace("4M", "8M").replace("discs/1", "8")).ends(0);
    refused(&format!("8.bundle.001 {}", disc(1)), "the volumes of one set");
}

/// The recipe: who may sign says of a target that it has three pieces, and carries two.
#[test]
fn volumes_that_are_all_there_and_do_not_add_up_are_refused() {
    let low = large();
    low.run(EXPORT).ends(0);
    fs::create_dir(low.at("forged")).unwrap();
    for number in [1, 2] {
        let list = std::cell::RefCell::new(Vec::new());
        edit(&low.at(&disc(number)), &low.at("scratch"), |member, content| {
            if member == "bundle.json" {
                let mut value: Value = serde_json::from_slice(&content).unwrap();
                for member in value["volume"]["members"].as_array_mut().unwrap() {
                    if member.get("piece").is_some() {
                        member["piece"]["of"] = 3.into();
                    }
                }
                *list.borrow_mut() = serde_json::to_vec(&value).unwrap();
            }
            Some(content)
        });
        let list = list.into_inner();
        edit(
            &low.at(&disc(number)),
            &low.at(&format!("forged/{number}")),
            |member, content| match member {
                "bundle.json" => Some(list.clone()),
                "bundle.json.asc" => Some(common::release_signature(&list)),
                _ => Some(content),
            },
        );
    }
    let said = low.run(&format!("import forged {IMPORT}")).ends(3);
    assert!(
        said.out.contains("promises release 1.0.0, which is not whole"),
        "{}",
        said.out
    );
    assert_eq!(releases(&low), 0);
    assert_eq!(import(&low, "discs")["new"], json!(["1.0.0"]));
}

/// A host and an auditor get all of it or a clear word.
#[test]
fn one_volume_is_no_bundle() {
    let low = large();
    low.run(EXPORT).ends(0);
    let why = offline_repo::bundle::BundleSource::offer(&low.at(&disc(1)))
        .map(drop)
        .unwrap_err();
    assert!(format!("{why:#}").contains("is volume 1 of 2"), "{why:#}");
    let said = low.run(&format!("list {}", disc(1))).ok();
    assert!(said.contains("described only"), "{said}");
}

#[test]
fn what_cannot_be_is_said_before_anything_is_done() {
    let low = large();
    for (size, code) in [("1M", 2), ("0", 2), ("4X", 2), ("M", 2), ("99999999999G", 2)] {
        low.run(&EXPORT.replace("4M", size)).ends(code);
    }
    low.run(&format!("{EXPORT} --volume 3"))
        .fails(1, &["there is no volume 3"]);
    assert_eq!(fs::read_dir(low.at("discs")).unwrap().count(), 0);
    low.run("export --repo repository --out x --volume-size 4M")
        .fails(2, &["--site"]);
}

/// The recipe: kill export and import again and again, each time a little later, until they come through.
#[test]
fn runs_that_are_killed_at_any_moment_come_to_the_same_end() {
    let low = large();
    let clean = large_end(&low);
    for place in ["discs", "gateway", "repository/work", "repository/exports"] {
        drop(fs::remove_dir_all(low.at(place)));
    }
    fs::create_dir(low.at("discs")).unwrap();
    let export = again_and_again(&low, EXPORT);
    assert!(
        fs::read_dir(low.at("discs")).unwrap().count() == 2,
        "nothing is left behind"
    );
    let import = again_and_again(&low, &format!("import discs {IMPORT}"));
    assert!(export > 3 && import > 3, "killed {export} and {import} times");
    assert_eq!(end(&low), clean);
}

/// Kills a command after 1 ms, 3 ms, 5 ms and so on until one run comes to its end. Gives how many did not.
fn again_and_again(low: &Low, line: &str) -> u64 {
    for run in 0.. {
        let mut child = low
            .command(line)
            .spawn(std::process::Stdio::null(), std::process::Stdio::null())
            .unwrap();
        sleep(Duration::from_millis(1 + 5 * run));
        child.kill().unwrap();
        let status = child.wait().unwrap();
        if status.code() == Some(0) {
            return run;
        }
        assert_eq!(status.code(), None, "{line}");
        // Whatever is visible is whole.
        if low.at("gateway/metadata/timestamp.json").exists() {
            assert_eq!(releases(low), 1);
        }
    }
    unreachable!()
}

/// What a gateway holds that readers see.
fn end(low: &Low) -> Vec<(String, Sha256)> {
    let all = contents(&low.at("gateway")).into_iter();
    all.filter(|(name, _)| {
        name.starts_with("metadata") || name.starts_with("targets") || name.starts_with("quarantine")
    })
    .collect()
}

fn large_end(low: &Low) -> Vec<(String, Sha256)> {
    low.run(EXPORT).ends(0);
    import(low, "discs");
    end(low)
}

/// The recipe: the second disc is full, then it is not.
#[test]
fn an_export_goes_on_where_the_medium_was_full() {
    let low = large();
    low.run(EXPORT).ends(0);
    let whole = contents(&low.at("discs"));
    fs::remove_dir_all(low.at("discs")).unwrap();
    fs::create_dir(low.at("discs")).unwrap();
    let Some((said, left)) = common::on_small_disk(PROGRAM, low.directory.path(), EXPORT, &low.at("discs"), "5M")
    else {
        return;
    };
    said.fails(1, &["the medium is full", "goes on"]);
    assert!(
        left.contains_key("1.bundle.001") && left.contains_key(".partial-1.bundle.002"),
        "{left:?}"
    );
    // What was compressed and signed is still there: the volumes are the same to the byte.
    assert!(low.at("repository/work/export").exists());
    assert_eq!(left["1.bundle.001"], {
        low.run(EXPORT).ends(0);
        contents(&low.at("discs"))["1.bundle.001"]
    });
    assert!(!low.at("repository/work/export").exists());
    assert_ne!(contents(&low.at("discs")), whole, "a new export is signed anew");
}

/// The recipe: a disk image with a file system of its own; the export goes there.
#[test]
fn what_was_written_is_read_back_from_its_device_and_the_log_says_so() {
    let low = large();
    if !common::is_root() {
        eprintln!("could not check: attaching a disk image needs root");
        return;
    }
    let script = "set -e; truncate -s 64M image; mkfs.ext4 -q image; loop=$(losetup --find --show image); \
                  trap 'umount discs; losetup -d \"$loop\"' EXIT; mount \"$loop\" discs; echo \"$loop\" >loop; \"$@\"";
    let words = EXPORT.split_whitespace();
    let cmd = Cmd::new("unshare").args(["-m", "--propagation", "private", "sh", "-c", script, "sh", PROGRAM]);
    let said = support::common::Said::of(cmd.args(words).dir(low.directory.path()))
        .ends(0)
        .json();
    let name = fs::read_to_string(low.at("loop")).unwrap();
    let name = name.trim().trim_start_matches("/dev/");
    let read = &said["files"]["1"]["read_back"];
    assert_eq!(
        (&read["past_cache"], &read["device"]["name"], &read["device"]["size"]),
        (&json!("direct"), &json!(name), &json!(64 << 20)),
        "{read}"
    );
    let log = low
        .at("repository/exports")
        .join(format!("{}.json", said["set"].as_str().unwrap()));
    let log: Value = serde_json::from_slice(&fs::read(log).unwrap()).unwrap();
    assert_eq!(log["volumes"], said["files"]);
}

/// Files as they come from a disc and from a stick with FAT, where names may change and other files lie.
#[test]
fn volumes_cross_on_a_disc_and_on_a_stick_with_fat() {
    let low = large();
    low.run(EXPORT).ends(0);
    let script = "set -e; xorriso -as mkisofs -quiet -iso-level 1 -o disc.iso discs; mkdir disc fat; \
                  xorriso -osirrox on -indev disc.iso -rockridge off -extract / disc 2>/dev/null; chmod -R u+w disc; \
                  truncate -s 64M stick; mkfs.vfat stick >/dev/null; mcopy -i stick discs/* ::; mcopy -i stick '::*' fat; \
                  mv fat/1.bundle.001 fat/Z; mv fat/1.bundle.002 fat/A; echo mine >fat/NOTES.TXT";
    Cmd::new("sh")
        .args(["-c", script])
        .dir(low.directory.path())
        .run()
        .unwrap();
    for medium in ["disc", "fat"] {
        drop(fs::remove_dir_all(low.at("gateway")));
        assert_eq!(import(&low, medium)["new"], json!(["1.0.0"]), "{medium}");
    }
}

/// The recipe: what waits in quarantine is altered there before the last volume comes.
#[test]
fn what_was_altered_in_quarantine_is_asked_for_again() {
    let low = large();
    low.run(EXPORT).ends(0);
    for below in ["pieces", "objects"] {
        drop(fs::remove_dir_all(low.at("gateway")));
        import(&low, &disc(2));
        for path in common::files_below(&low.at("gateway/quarantine").join(below)) {
            let file = fs::OpenOptions::new().write(true).open(path).unwrap();
            file.write_all_at(b"altered", 10).unwrap();
        }
        assert_eq!(import(&low, &disc(1))["missing"], json!([2]), "{below}");
        assert_eq!(releases(&low), 0);
        assert_eq!(import(&low, &disc(2))["new"], json!(["1.0.0"]));
    }
}

#[test]
fn a_refused_bundle_leaves_its_reason_until_an_officer_drops_it() {
    let low = large();
    low.run("export --repo repository --out 1.bundle").ok();
    edit(&low.at("1.bundle"), &low.at("bad.bundle"), |name, mut content| {
        if name.ends_with("root.erofs.zst") {
            let middle = content.len() / 2;
            content[middle] ^= 1;
        }
        Some(content)
    });
    let said = low.run(&format!("import bad.bundle {IMPORT}")).ends(3);
    assert!(
        said.out.contains("the reason is in gateway/quarantine/sets/"),
        "{}",
        said.out
    );
    let held = low.run("quarantine --repo gateway --json").ends(0).json();
    let held = &held["quarantine"][0];
    assert!(
        held["refused"]["reason"].as_str().unwrap().contains("root.erofs"),
        "{held}"
    );
    assert_eq!(held["refused"]["files"], json!([PathBuf::from("bad.bundle")]));
    // The good one is another bundle by its list alone, and what was whole of the bad one is not taken again.
    let kept = common::files_below(&low.at("gateway/quarantine/objects")).len();
    assert!(kept > 0, "nothing was kept");
    low.run("quarantine --repo gateway --drop ffff")
        .fails(1, &["0 bundles"]);
    let set = held["set"].as_str().unwrap();
    let said = low
        .run(&format!("quarantine --repo gateway --drop {}", &set[..12]))
        .ok();
    assert_eq!(said, "nothing is in quarantine\n");
    assert!(!low.at("gateway/quarantine").exists());
    low.run(&format!("import 1.bundle {IMPORT}")).ends(0);
}
