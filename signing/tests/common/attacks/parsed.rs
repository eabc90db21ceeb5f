// SPDX-License-Identifier: GPL-3.0-or-later
//! Metadata that two readers understand differently, and names that lead elsewhere.

use signing::release::Part;

use super::vault::Vault;
use super::{Attack, Learns, Recipe, attack, insider, reindex};

/// Metadata that two readers understand differently, and names that lead elsewhere.
pub fn parsing() -> Vec<Attack> {
    let malformed = &["malformed"];
    let mut all = vec![
        attack(
            "one JSON key twice",
            malformed,
            "stands twice",
            Learns::Nothing,
            |vault| {
                vault.replace("timestamp.json", "\"version\": 3", "\"version\": 3, \"version\": 4");
            },
        ),
        attack(
            "one JSON key twice, in a role that an insider signs",
            malformed,
            "stands twice",
            Learns::Targets,
            |vault| {
                vault.replace("3.host.json", "\"length\"", "\"length\": 1, \"length\"");
                reindex(vault);
            },
        ),
        attack(
            "a number beyond i64",
            malformed,
            "timestamp.json",
            Learns::Nothing,
            |vault| {
                vault.replace("timestamp.json", "\"version\": 3", "\"version\": 9223372036854775808");
            },
        ),
        attack(
            "a number beyond u64",
            malformed,
            "timestamp.json",
            Learns::Nothing,
            |vault| {
                vault.replace("timestamp.json", "\"version\": 3", "\"version\": 18446744073709551619");
            },
        ),
        attack(
            "a number with a fraction",
            malformed,
            "timestamp.json",
            Learns::Nothing,
            |vault| {
                vault.replace("timestamp.json", "\"version\": 3", "\"version\": 3.0");
            },
        ),
        attack("deep nesting", malformed, "nested", Learns::Nothing, |vault| {
            let deep = format!("\"x\": {}{}, \"version\": 3", "[".repeat(5000), "]".repeat(5000));
            vault.replace("timestamp.json", "\"version\": 3", &deep);
        }),
        attack(
            "a name that a signature covers in another spelling",
            malformed,
            "normalization",
            Learns::Targets,
            |vault| {
                let release = vault.newest();
                vault.describe(&release, Part::Sbom, "host/1.1.0/caf\u{e9}", b"content");
                vault.put_host(3);
                vault.replace("3.host.json", "caf\u{e9}", "cafe\u{301}");
                reindex(vault);
            },
        ),
        attack(
            "a Unicode look-alike of a part",
            &["policy"],
            "it says that it is host/1.1.0/root.erofs",
            Learns::Host,
            |vault| {
                let release = vault.newest();
                // The letters are Cyrillic.
                vault.describe(
                    &release,
                    Part::Root,
                    "host/1.1.0/r\u{43e}\u{43e}t.erofs",
                    b"another root",
                );
                insider(vault);
            },
        ),
    ];
    let names: [(&str, Recipe); 6] = [
        ("a target named ..", |vault| name(vault, "host/1.1.0/..")),
        ("a target that leaves its directory", |vault| {
            name(vault, "../../etc/passwd")
        }),
        ("a target with an absolute name", |vault| name(vault, "/etc/passwd")),
        ("a target with an empty name", |vault| name(vault, "")),
        ("a target with a name of 4 KiB", |vault| name(vault, &"a".repeat(4096))),
        ("a target that moves the cursor", |vault| {
            name(vault, "host/1.1.0/\u{1b}[2Jroot")
        }),
    ];
    all.extend(names.map(|(what, recipe)| attack(what, malformed, "target name", Learns::Targets, recipe)));
    all
}

fn name(vault: &mut Vault, name: &str) {
    let host = vault.host.clone();
    vault.resign("3.host.json", &[&host], |signed| {
        let entry = signed["targets"]["host/1.1.0/root.erofs"].clone();
        signed["targets"][name] = entry;
    });
    reindex(vault);
}
