// SPDX-License-Identifier: GPL-3.0-or-later
//! Bills of a small image, made here.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;

const DEP5: &str = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n";

/// An image of three packages, one of them the guest's.
struct World {
    directory: tempfile::TempDir,
    snapshot: Snapshot,
    locked: Vec<Locked>,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let copyright = |name: &str, text: &str| file(&format!("tree/usr/share/doc/{name}/copyright"), text);
        copyright("libstdc++6", "Prose, see /usr/share/common-licenses/GPL-3.\n");
        copyright(
            "xen",
            &format!("{DEP5}Files: *\nLicense: GPL-2\n\nFiles: b\nLicense: GPL-2.0\n\nFiles: c\nLicense: odd\n"),
        );
        copyright(
            "busybox-static",
            &format!("{DEP5}Files: *\nLicense: GPL-2 or Expat\n\nFiles: b\nLicense: ISC\n"),
        );
        file("tree/usr/share/bastide/guest/initrd.img", "initrd");
        for program in PROGRAMS {
            file(&format!("programs/{program}"), program);
        }
        file(
            "programs/crates",
            "hardening v0.1.0 (/src/hardening)|GPL-3.0-or-later\nanyhow v1.0.1|MIT/Apache-2.0\nanyhow v1.0.1|MIT/Apache-2.0 (*)\n\n\
             serde_derive v1.0.2 (proc-macro)|MIT OR Apache-2.0\nodd v0.1.0|\n",
        );
        let locked = ["anyhow 1.0.1", "serde_derive 1.0.2", "odd 0.1.0", "unused 1.0.0"].map(|text| {
            let (name, version) = text.split_once(' ').unwrap();
            Locked {
                name: name.to_owned(),
                version: version.to_owned(),
                checksum: Some(Sha256::of(text.as_bytes())),
            }
        });
        let package = |name: &str, version: &str, source: &str, role: &str| {
            json!({
                "name": name, "version": version, "architecture": "amd64", "source": source, "source_version": "1.0-1",
                "filename": format!("pool/{name}.deb"), "size": 1, "sha256": Sha256::of(name.as_bytes()).to_string(),
                "suite": "trixie-security", "component": "main", "roles": [role],
            })
        };
        let snapshot = json!({
            "format": 1, "name": "base", "architecture": "amd64", "created_from": [],
            "packages": [
                package("busybox-static", "1:1.0-1+b9", "busybox", "guest"),
                package("gcc", "1.0-1", "gcc", "builder"),
                package("libstdc++6", "1.0-1", "gcc-14", "host"),
                package("xen", "1.0-1", "xen", "host"),
            ],
        });
        Self {
            snapshot: Snapshot::parse(&serde_json::to_vec(&snapshot).unwrap()).unwrap(),
            locked: locked.into(),
            directory,
        }
    }

    fn write(&self, root_hash: &str) -> Result<Vec<u8>> {
        let path = |name: &str| self.directory.path().join(name);
        let inputs = Inputs {
            snapshot: &self.snapshot,
            tree: &path("tree"),
            programs: &path("programs"),
            locked: &self.locked,
            version: "1.2.3".parse()?,
            channel: "stable",
            root_hash: &Sha256::of(root_hash.as_bytes()),
            epoch: 1_750_000_000,
        };
        write(&inputs, &path("sbom.cdx.json"))?;
        Ok(fs::read(path("sbom.cdx.json"))?)
    }

    fn bill(&self) -> Value {
        serde_json::from_slice(&self.write("root").unwrap()).unwrap()
    }
}

/// What the schema of CycloneDX 1.6 asks of the fields that are used here.
fn check(bill: &Value) {
    assert_eq!(bill["bomFormat"], "CycloneDX");
    assert_eq!(bill["specVersion"], "1.6");
    assert!(bill["version"].as_u64().unwrap() >= 1);
    let serial = bill["serialNumber"]
        .as_str()
        .unwrap()
        .strip_prefix("urn:uuid:")
        .unwrap();
    let groups: Vec<usize> = serial.split('-').map(str::len).collect();
    assert_eq!(groups, [8, 4, 4, 4, 12]);
    assert!(
        serial
            .bytes()
            .all(|byte| byte == b'-' || b"0123456789abcdef".contains(&byte))
    );
    DateTime::parse_from_rfc3339(bill["metadata"]["timestamp"].as_str().unwrap()).unwrap();
    let mut references = BTreeSet::new();
    component(&bill["metadata"]["component"], &mut references);
    for one in bill["metadata"]["tools"]["components"].as_array().unwrap() {
        component(one, &mut references);
    }
    for one in bill["components"].as_array().unwrap() {
        component(one, &mut references);
    }
    for dependency in bill["dependencies"].as_array().unwrap() {
        let parts = dependency["dependsOn"].as_array().unwrap();
        let different: BTreeSet<_> = parts.iter().map(|part| part.as_str().unwrap()).collect();
        assert_eq!(different.len(), parts.len());
        for name in parts.iter().chain([&dependency["ref"]]) {
            assert!(references.contains(name.as_str().unwrap()), "{name}");
        }
    }
}

fn component(one: &Value, references: &mut BTreeSet<String>) {
    let kinds = ["application", "file", "library", "operating-system"];
    assert!(kinds.contains(&one["type"].as_str().unwrap()), "{one}");
    assert!(!one["name"].as_str().unwrap().is_empty());
    assert!(references.insert(one["bom-ref"].as_str().unwrap().to_owned()), "{one}");
    for hash in one["hashes"].as_array().into_iter().flatten() {
        assert_eq!(hash["alg"], "SHA-256");
        let content = hash["content"].as_str().unwrap();
        assert!(content.len() == 64 && content.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
    let packaged = one["purl"].as_str().is_some_and(|purl| purl.starts_with("pkg:"));
    let licences = one["licenses"].as_array().cloned().unwrap_or_default();
    assert!(!packaged || !licences.is_empty(), "{one}");
    // Either licences, each by identifier or by name, or nothing but one expression.
    if licences.iter().any(|licence| licence.get("expression").is_some()) {
        assert!(licences.len() == 1 && licences[0].get("license").is_none(), "{one}");
    } else {
        for licence in &licences {
            let licence = &licence["license"];
            assert!(licence["id"].is_string() != licence["name"].is_string(), "{one}");
        }
    }
}

fn find<'a>(bill: &'a Value, name: &str) -> &'a Value {
    let components = bill["components"].as_array().unwrap();
    components.iter().find(|one| one["name"] == name).unwrap()
}

#[test]
fn the_bill_has_the_shape_of_its_format() {
    check(&World::new().bill());
}

#[test]
fn the_same_image_has_the_same_bill_and_another_has_another_number() {
    let (world, again) = (World::new(), World::new());
    assert_eq!(world.write("root").unwrap(), again.write("root").unwrap());
    let number = |root: &str| -> Value { serde_json::from_slice(&world.write(root).unwrap()).unwrap() };
    assert_ne!(number("root")["serialNumber"], number("other")["serialNumber"]);
}

#[test]
fn packages_name_their_source_and_their_licences() {
    let bill = World::new().bill();
    let library = find(&bill, "libstdc++6");
    assert_eq!(
        library["purl"],
        "pkg:deb/debian/libstdc%2B%2B6@1.0-1?arch=amd64&distro=trixie&upstream=gcc-14"
    );
    assert_eq!(library["licenses"][0]["license"]["name"], "NOASSERTION");
    let properties = library["properties"].as_array().unwrap();
    assert!(properties.contains(&json!({ "name": "bastide:copyright-refers-to", "value": "GPL-3" })));
    let xen = find(&bill, "xen");
    let licences: Vec<&Value> = xen["licenses"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["license"])
        .collect();
    assert_eq!(licences.len(), 2);
    assert_eq!(
        (&licences[0]["id"], &licences[1]["name"]),
        (&json!("GPL-2.0-only"), &json!("odd"))
    );
    assert_eq!(
        bill["components"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|one| one["name"] == "gcc")
            .count(),
        0
    );
}

#[test]
fn the_guests_packages_are_in_the_bill_and_named_as_the_guests() {
    let bill = World::new().bill();
    let purl = "pkg:deb/debian/busybox-static@1:1.0-1%2Bb9?arch=amd64&distro=trixie&upstream=busybox%401.0-1";
    let busybox = find(&bill, "busybox-static");
    assert_eq!(busybox["purl"], purl);
    let dependencies = bill["dependencies"].as_array().unwrap();
    assert!(dependencies.contains(&json!({ "ref": "guest:initrd", "dependsOn": [purl] })));
    assert_eq!(busybox["licenses"][0]["expression"], "(GPL-2.0-only OR MIT) AND ISC");
}

#[test]
fn crates_are_those_of_the_programs_with_their_locked_digests() {
    let world = World::new();
    let bill = world.bill();
    let anyhow = find(&bill, "anyhow");
    assert_eq!(anyhow["purl"], "pkg:cargo/anyhow@1.0.1");
    assert_eq!(anyhow["hashes"][0]["content"], Sha256::of(b"anyhow 1.0.1").to_string());
    assert_eq!(anyhow["licenses"][0]["expression"], "MIT OR Apache-2.0");
    assert_eq!(find(&bill, "odd")["licenses"][0]["license"]["name"], "NOASSERTION");
    assert_eq!(find(&bill, "bastide-init")["version"], "0.1.0");
    assert!(
        bill["components"]
            .as_array()
            .unwrap()
            .iter()
            .all(|one| one["name"] != "unused")
    );
}

#[test]
fn a_crate_that_is_not_locked_is_no_part_of_a_bill() {
    let mut world = World::new();
    world.locked.remove(0);
    let error = world.write("root").unwrap_err().to_string();
    assert!(error.contains("anyhow 1.0.1"), "{error}");
}
