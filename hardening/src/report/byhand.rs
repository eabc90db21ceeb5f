// SPDX-License-Identifier: GPL-3.0-or-later
//! How to come to the same verdict without this program, and what the verdict does not say.

use std::path::Path;

use signing::output::shell_word;

use super::{ByHand, Report};
use crate::trace::signed::signature_of;

/// The names that the commands have in them.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    /// What was audited; of a host, nothing.
    pub file: &'a Path,
    /// The trust directory.
    pub trust: &'a Path,
    /// The releases that are there.
    pub versions: &'a [String],
}

/// Where the commands are to be given.
const HERE: &str = "one empty directory, in which all these steps are done in this order";
const HOST: &str = "any directory on the host, as root";

/// Adds both to a report.
pub fn add(report: &mut Report, names: &Names<'_>) {
    let trust = |name: &str| quoted(&names.trust.join(name));
    let file = quoted(names.file);
    let mut steps = vec![step(
        "The pinned root and its OpenPGP signature",
        HERE,
        vec![
            format!(
                "(cd {} && sha256sum root.json release.asc db.der) | sha256sum | cut -c 1-40   # compare",
                quoted(names.trust)
            ),
            format!("sha256sum {}", trust("root.json")),
            format!("gpg --import {}", trust("release.asc")),
            format!("gpg --verify {} {}", trust("root.json.asc"), trust("root.json")),
        ],
    )];
    let digests = "for f in targets/host/*/*; do echo \"$(basename $f | cut -d. -f1)  $f\"; done | sha256sum -c";
    match report.subject.kind.as_str() {
        "iso" => {
            let signature = quoted(&signature_of(names.file));
            steps.push(step(
                "The whole image",
                HERE,
                vec![format!("gpg --verify {signature} {file}")],
            ));
            steps.push(step(
                "The files on it",
                HERE,
                vec![
                    format!("xorriso -osirrox on -indev {file} -extract /bastide bastide"),
                    "mv bastide/metadata metadata".to_owned(),
                    "unsquashfs -d targets bastide/targets.squashfs".to_owned(),
                    digests.to_owned(),
                ],
            ));
        }
        "repository" => steps.push(step(
            "The digests in the files' names are theirs",
            HERE,
            vec![
                format!(
                    "ln -s {} {} .",
                    quoted(&names.file.join("metadata")),
                    quoted(&names.file.join("targets"))
                ),
                digests.to_owned(),
            ],
        )),
        "bundle" => steps.push(step(
            "The files in it",
            HERE,
            vec![
                format!("tar -tvf {file}"),
                format!("tar -xf {file}"),
                "unzstd --rm targets/host/*/*.zst".to_owned(),
                digests.to_owned(),
            ],
        )),
        "file" => {
            let signature = quoted(&signature_of(names.file));
            let commands = vec![format!("gpg --verify {signature} {file}")];
            steps.push(step("The release key's signature", HERE, commands));
        }
        _ => steps.push(step(
            "What runs",
            HOST,
            [
                "cat /proc/cmdline",
                "dmsetup table --target verity",
                "sha256sum /boot/efi/EFI/bastide/*.efi",
                "mokutil --sb-state; efi-readvar -v db",
                "sha256sum /usr/share/bastide/trust/*",
                "find /state/overlay/etc -type f",
            ]
            .map(str::to_owned)
            .to_vec(),
        )),
    }
    if !matches!(report.subject.kind.as_str(), "host" | "file") {
        steps.push(step(
            "Secure Boot signatures",
            HERE,
            vec![
                format!("openssl x509 -inform DER -in {} -out db.pem", trust("db.der")),
                "for f in targets/host/*/*.efi; do sbverify --cert db.pem $f; done".to_owned(),
            ],
        ));
        if let Some(version) = names.versions.last() {
            of_release(version, names.trust, &mut steps);
        }
    }
    report.by_hand = steps;
    let mut limits = vec![
        "That the pinned root is the right one: compare its digest with what was handed over by another way.",
        "That the signers were right to sign. A signature says who, not how well.",
        "That the machine on which this audit ran is sound. Repeat it on another.",
    ];
    match report.subject.kind.as_str() {
        "host" => limits.extend([
            "That the running kernel told the truth: an attacker inside it can answer every question as he likes. What the firmware \
             measured into the TPM is the way to know, and is not read here.",
            "Guests, firmware, and the hardware.",
        ]),
        "file" => limits.push("What the file is for: a signature says who, and not what."),
        _ => limits.extend([
            "That the binaries in Debian's packages were built from their sources: upstream's signature is where this proof ends.",
            "Contents of free clusters on the EFI system partition, other than through the signature over the whole image.",
        ]),
    }
    report.limits = limits.into_iter().map(str::to_owned).collect();
}

/// What is asked of one release: the newest that is there.
fn of_release(version: &str, trust: &Path, steps: &mut Vec<ByHand>) {
    steps.push(step(
        "The image trusts whom the auditor trusts",
        HERE,
        vec![
            format!("fsck.erofs --extract=root targets/host/{version}/*.root.erofs"),
            format!("diff -r {} root/usr/share/bastide/trust", quoted(trust)),
        ],
    ));
    steps.push(step(
        "The metadata's signatures and every target, with TUF's reference implementation (python-tuf)",
        HERE,
        vec![
            format!("cp {} root.json", quoted(&trust.join("root.json"))),
            "python3 -m http.server --bind 127.0.0.1 8000 &".to_owned(),
            "mkdir store got".to_owned(),
            "python3 -c '".to_owned(),
            "from tuf.ngclient import Updater".to_owned(),
            "root = open(\"root.json\", \"rb\").read()".to_owned(),
            "at = \"http://127.0.0.1:8000/\"".to_owned(),
            "u = Updater(\"store\", at + \"metadata/\", \"got\", at + \"targets/\", bootstrap=root)".to_owned(),
            "u.refresh()".to_owned(),
            format!("print(u.download_target(u.get_targetinfo(\"host/{version}/xen.efi\")))'"),
        ],
    ));
    steps.push(step(
        "The packages are upstream's",
        HERE,
        vec![
            format!("tar -xf targets/host/{version}/*.upstream.tar"),
            "gpgv --keyring /usr/share/keyrings/debian-archive-keyring.gpg upstream/trixie/InRelease".to_owned(),
            "sha256sum upstream/trixie/*_Packages.xz   # named in InRelease".to_owned(),
            "xzcat upstream/trixie/main_binary-amd64_Packages.xz | grep -A 40 '^Package: xen-utils-4.20$' | grep -m 1 ^SHA256"
                .to_owned(),
        ],
    ));
}

fn step(proves: &str, directory: &str, commands: Vec<String>) -> ByHand {
    ByHand {
        proves: proves.to_owned(),
        directory: directory.to_owned(),
        commands,
    }
}

/// A path as one word of the shell.
pub(crate) fn quoted(path: &Path) -> String {
    shell_word(&path.to_string_lossy())
}
