// SPDX-License-Identifier: GPL-3.0-or-later
//! What a gateway's receipt tells its sender of bundles: what came, what waits, what was refused, and which command helps.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;

use serde_json::{Value, json};
use signing::keys::{self, Algorithm, PrivateKey};
use support::common;
use support::low::{Low, large};

const EXPORT: &str = "export --repo repository --out discs/1.bundle --volume-size 4M --site site \
                      --passphrase-file passphrase --json";

fn disc(number: usize) -> String {
    format!("discs/1.bundle.{number:03}")
}

fn import(low: &Low, files: &str) -> common::Said {
    low.run(&format!("import {files} --repo gateway --trust site/trust --json"))
}

/// The middle byte of a file is another.
fn spoil(low: &Low, file: &str) {
    support::flip(&low.at(file));
}

/// A large release in two volumes, and the key of a gateway.
fn bench() -> Low {
    let low = large();
    low.run(EXPORT).ends(0);
    let key = PrivateKey::generate(Algorithm::Ed25519).unwrap();
    keys::write_new(&low.at("g1.pem"), &key, &common::passphrase()).unwrap();
    low
}

/// The gateway's next receipt, carried to the low side: its state, and what the low side says of it.
fn carried(low: &Low, number: u32) -> (Value, String) {
    let file = format!("{number}.receipt.json");
    let line = format!(
        "receipt --repo gateway --trust site/trust --name g1 --key g1.pem --passphrase-file passphrase --out {file} --json"
    );
    let given = low.run(&line).ends(0).json();
    let line = match number {
        1 => format!(
            "enrol {file} --repo repository --fingerprint {}",
            given["fingerprint"].as_str().unwrap()
        ),
        _ => format!("receive {file} --repo repository"),
    };
    (given["receipt"]["holder"].clone(), low.run(&line).ok())
}

/// What the low side would type, of what it lists.
fn command(low: &Low) -> String {
    let listed = low.run("receipts --repo repository --json").ends(0).json();
    let words = listed[0]["again"][0]["command"].as_array().unwrap().iter();
    let words: Vec<&str> = words.map(|word| word.as_str().unwrap()).collect();
    words.join(" ").replace("SITE", "site") + " --passphrase-file passphrase"
}

/// The recipe: the first disc that ever comes is bad; then the other comes; then the first is made again by the command that
/// the receipt led to.
#[test]
fn a_gateway_that_has_nothing_says_which_disc_was_bad_and_the_sender_which_command_helps() {
    let low = bench();
    let good = fs::read(low.at(&disc(1))).unwrap();
    spoil(&low, &disc(1));
    import(&low, &disc(1)).ends(3);
    let (state, said) = carried(&low, 1);
    let set = &state["sets"][0];
    assert_eq!((&state["releases"], &set["of"]), (&json!([]), &json!(2)), "{state}");
    assert_eq!((&set["received"], &set["missing"]), (&json!([]), &json!([1, 2])));
    assert_eq!(set["refused"]["volumes"], json!([1]));
    assert_eq!(set["refused"]["files"], json!(["1.bundle.001"]));
    assert!(
        set["refused"]["reason"].as_str().unwrap().contains("is damaged"),
        "{set}"
    );
    assert!(said.contains("g1: holds no release; receipt 1 of"), "{said}");
    assert!(
        said.contains("waits for volume 1-2 of 2; volume 1 refused 20"),
        "{said}"
    );

    // What waits was refused for its other volume, and that is still said.
    import(&low, &disc(2)).ends(0);
    let (state, said) = carried(&low, 2);
    let set = &state["sets"][0];
    assert_eq!((&set["received"], &set["missing"]), (&json!([2]), &json!([1])));
    assert_eq!(set["refused"]["volumes"], json!([1]));
    assert!(
        said.contains("has volume 2 of 2, waits for volume 1 of 2; volume 1 refused"),
        "{said}"
    );
    let again = command(&low);
    assert!(
        said.contains("again: bastide-repo export --repo repository --out discs/1.bundle --version 1.0.0"),
        "{said}"
    );
    assert!(
        again.contains(" --volume 1 ") && !again.contains("--volume 2"),
        "{again}"
    );
    assert_eq!(low.run("receipts --repo repository").ok().lines().count(), 4);
    low.run(&again).ends(0);
    assert_eq!(fs::read(low.at(&disc(1))).unwrap().len(), good.len());
    import(&low, &disc(1)).ends(0);
    let (state, said) = carried(&low, 3);
    assert_eq!(
        (state.get("sets"), &state["releases"][0]["version"]),
        (None, &json!("1.0.0"))
    );
    assert!(said.contains("holds 1.0.0") && !said.contains("waits"), "{said}");
}

/// The recipe: the repository's metadata are renewed before the volume is made again.
#[test]
fn the_command_refuses_to_make_a_volume_of_another_bundle() {
    let low = bench();
    import(&low, &disc(2)).ends(0);
    carried(&low, 1);
    let again = command(&low);
    low.publish_build(&support::build(low.directory.path(), "1.1.0"), &[])
        .ends(0);
    let before = fs::read(low.at(&disc(1))).unwrap();
    low.run(&again)
        .fails(3, &["these would be volumes of set", "carried again"]);
    assert_eq!(fs::read(low.at(&disc(1))).unwrap(), before);
    low.run(&again.replace("--set ", "--set x")).ends(2);
    // Who has no log of it knows no command.
    fs::remove_dir_all(low.at("repository/exports")).unwrap();
    let said = low.run("receipts --repo repository").ok();
    assert!(said.contains("no log of that export is here"), "{said}");
}

/// The recipe: a volume is bad, then good; what waits then was refused by nobody.
#[test]
fn a_set_that_was_refused_and_now_waits_shows_no_reason_that_is_over() {
    let low = bench();
    let good = fs::read(low.at(&disc(1))).unwrap();
    spoil(&low, &disc(1));
    import(&low, &disc(1)).ends(3);
    let waits = low.run("quarantine --repo gateway").ok();
    assert!(
        waits.contains("waits for 1, 2") && waits.contains("volume 1 refused"),
        "{waits}"
    );
    fs::write(low.at(&disc(1)), good).unwrap();
    import(&low, &disc(1)).ends(0);
    let waits = low.run("quarantine --repo gateway").ok();
    assert!(
        waits.contains("has volume 1, waits for 2") && !waits.contains("refused"),
        "{waits}"
    );
    // Both at once, one of them bad: it is written down, and not only said.
    drop(fs::remove_dir_all(low.at("gateway")));
    spoil(&low, &disc(2));
    import(&low, "discs").ends(3);
    let held = low.run("quarantine --repo gateway --json").ends(0).json();
    let refused = &held["quarantine"][0]["refused"];
    assert!(
        refused["volumes"]["2"].as_str().unwrap().contains("is damaged"),
        "{held}"
    );
    // The same once more, and now it is no bundle at all.
    fs::write(low.at(&disc(2)), b"bundle.json").unwrap();
    import(&low, "discs").ends(3);
    let waits = low.run("quarantine --repo gateway").ok();
    assert!(waits.contains("volume 2 refused"), "{waits}");
}

/// The recipe: a piece and an object are altered in quarantine before the receipt is given.
#[test]
fn what_was_altered_while_it_waits_is_not_acknowledged() {
    let low = bench();
    for below in ["pieces", "objects"] {
        drop(fs::remove_dir_all(low.at("gateway")));
        import(&low, &disc(2)).ends(0);
        let line = "receipt --repo gateway --name g1 --key g1.pem --passphrase-file passphrase --json --out";
        let give =
            |file: String| low.run(&format!("{line} {file}")).ends(0).json()["receipt"]["holder"]["sets"][0].clone();
        assert_eq!(give(format!("{below}.1"))["received"], json!([2]));
        let file = common::files_below(&low.at("gateway/quarantine").join(below))
            .pop()
            .unwrap();
        support::flip(&file);
        let set = give(format!("{below}.2"));
        assert_eq!(
            (&set["received"], &set["missing"]),
            (&json!([]), &json!([1, 2])),
            "{below}"
        );
    }
}

#[test]
fn a_gateway_tells_what_its_own_media_gave_back() {
    let low = bench();
    import(&low, "discs").ends(0);
    let exported = low
        .run(&EXPORT.replace("--repo repository --out discs/1", "--repo gateway --out 2"))
        .ends(0)
        .json();
    let (state, said) = carried(&low, 1);
    let told = &state["exports"][0];
    assert_eq!((&told["set"], &told["of"]), (&exported["set"], &json!(2)));
    for number in [1, 2] {
        let (volume, entry) = (&told["volumes"][number - 1], &exported["files"][number.to_string()]);
        assert_eq!((&volume["sha256"], &volume["size"]), (&entry["sha256"], &entry["size"]));
        assert_eq!(volume["past_cache"], entry["read_back"]["past_cache"]);
    }
    assert!(said.contains(": volume 1-2 of 2 read back"), "{said}");
    // Metadata that were lost are no blank beginning.
    fs::remove_dir_all(low.at("gateway/metadata")).unwrap();
    fs::create_dir(low.at("gateway/metadata")).unwrap();
    low.run("receipt --repo gateway --key g1.pem --passphrase-file passphrase --out lost.json")
        .ends(1);
}
