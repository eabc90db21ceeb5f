// SPDX-License-Identifier: GPL-3.0-or-later
//! How to come to the same verdict without this program, and what the verdict does not say.

use super::{ByHand, Report};

/// Adds both to a report.
pub fn add(report: &mut Report) {
    let mut steps = vec![step(
        "The pinned root and its OpenPGP signature",
        &[
            "sha256sum trust/root.json",
            "gpg --import trust/release.asc",
            "gpg --verify trust/root.json.asc trust/root.json",
        ],
    )];
    match report.subject.kind.as_str() {
        "iso" => {
            steps.push(step("The whole image", &["gpg --verify X.iso.asc X.iso"]));
            steps.push(step(
                "The files on it",
                &[
                    "xorriso -osirrox on -indev X.iso -extract /bastide bastide",
                    "mv bastide/metadata metadata",
                    "unsquashfs -d targets bastide/targets.squashfs",
                    "for f in targets/host/*/*; do echo \"$(basename $f | cut -d. -f1)  $f\"; done | sha256sum -c",
                ],
            ));
            steps.push(boot());
        }
        "repository" => {
            steps.push(step(
                "The digests in the files' names are theirs",
                &["for f in targets/host/*/*; do echo \"$(basename $f | cut -d. -f1)  $f\"; done | sha256sum -c"],
            ));
            steps.push(boot());
        }
        "bundle" => steps.push(step(
            "The files in it",
            &[
                "tar -tvf X.bundle",
                "tar -xf X.bundle",
                "unzstd targets/host/*/*.zst",
                "sha256sum targets/host/*/*",
            ],
        )),
        _ => steps.push(step(
            "What runs",
            &[
                "cat /proc/cmdline",
                "dmsetup table --target verity",
                "sha256sum /boot/efi/EFI/bastide/*.efi",
                "mokutil --sb-state; efi-readvar -v db",
                "find /state/overlay/etc -type f",
            ],
        )),
    }
    if report.subject.kind != "host" {
        steps.push(step(
            "The metadata's signatures and every target, with TUF's reference implementation (python-tuf, in the directory that holds \
             metadata and targets)",
            &[
                "python3 -m http.server --bind 127.0.0.1 8000 &",
                "mkdir store got",
                "python3 -c '",
                "from tuf.ngclient import Updater",
                "root = open(\"trust/root.json\", \"rb\").read()",
                "at = \"http://127.0.0.1:8000/\"",
                "u = Updater(\"store\", at + \"metadata/\", \"got\", at + \"targets/\", bootstrap=root)",
                "u.refresh()",
                "print(u.download_target(u.get_targetinfo(\"host/VERSION/xen.efi\")))'",
            ],
        ));
        steps.push(step(
            "The packages are upstream's",
            &[
                "tar -xf targets/host/VERSION/*.upstream.tar",
                "gpgv --keyring /usr/share/keyrings/debian-archive-keyring.gpg upstream/trixie/InRelease",
                "sha256sum upstream/trixie/*_Packages.xz   # named in InRelease",
                "xzcat upstream/trixie/main_binary-amd64_Packages.xz | grep -A 40 '^Package: xen-utils-4.20$' | grep -m 1 ^SHA256",
            ],
        ));
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
        _ => limits.extend([
            "That the binaries in Debian's packages were built from their sources: upstream's signature is where this proof ends.",
            "Contents of free clusters on the EFI system partition, other than through the signature over the whole image.",
        ]),
    }
    report.limits = limits.into_iter().map(str::to_owned).collect();
}

fn boot() -> ByHand {
    step(
        "Secure Boot signatures",
        &[
            "openssl x509 -inform DER -in trust/db.der -out db.pem",
            "for f in targets/host/*/*.efi; do sbverify --cert db.pem $f; done",
        ],
    )
}

fn step(proves: &str, commands: &[&str]) -> ByHand {
    ByHand {
        proves: proves.to_owned(),
        commands: commands.iter().map(|&command| command.to_owned()).collect(),
    }
}
