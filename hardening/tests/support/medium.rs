// SPDX-License-Identifier: GPL-3.0-or-later
//! Installation media by recipe, with the tools that make the real ones.

use std::fs;
use std::path::{Path, PathBuf};

use signing::process::Cmd;
use signing::release::Part;

use super::{passphrase, site};

/// Where a recipe puts its hand in.
pub struct Recipe<'a> {
    /// Changes the tree of the ISO before it is packed.
    pub tree: &'a dyn Fn(&Path),
    /// Changes the tree of the squashfs before it is packed.
    pub targets: &'a dyn Fn(&Path),
    /// Files that are put on the ESP: the file, and its place there.
    pub esp: &'a [(&'a Path, &'a str)],
    /// Another boot image than the release's installer.
    pub boot: Option<&'a Path>,
    /// More arguments for xorriso.
    pub xorriso: &'a [&'a str],
}

impl Default for Recipe<'_> {
    fn default() -> Self {
        Self {
            tree: &|_| (),
            targets: &|_| (),
            esp: &[],
            boot: None,
            xorriso: &[],
        }
    }
}

/// Makes an ISO of a repository's release 1.0.0, and signs it.
pub fn iso(directory: &Path, repository: &Path, recipe: &Recipe<'_>) -> PathBuf {
    let tree = directory.join("tree");
    let targets = directory.join("squash");
    fs::create_dir_all(tree.join("bastide")).unwrap();
    super::copy(&repository.join("metadata"), &tree.join("bastide/metadata"));
    super::copy(&repository.join("targets"), &targets);
    (recipe.targets)(&targets);
    Cmd::new("mksquashfs")
        .args([targets.as_path(), &tree.join("bastide/targets.squashfs")])
        .args(["-comp", "zstd", "-all-root", "-no-progress", "-quiet"])
        .run()
        .unwrap();
    (recipe.tree)(&tree);
    let esp = directory.join("esp.img");
    let installer = super::part(repository, "1.0.0", Part::Installer);
    fs::write(&esp, vec![0; 4 << 20]).unwrap();
    Cmd::new("mkfs.fat")
        .args(["--invariant", "-i", "ba571de0"])
        .arg(&esp)
        .run()
        .unwrap();
    Cmd::new("mmd")
        .arg("-i")
        .arg(&esp)
        .args(["::EFI", "::EFI/BOOT"])
        .run()
        .unwrap();
    put(&esp, recipe.boot.unwrap_or(&installer), "EFI/BOOT/BOOTX64.EFI");
    for (file, place) in recipe.esp {
        put(&esp, file, place);
    }
    let out = directory.join("x.iso");
    Cmd::new("xorriso")
        .args([
            "-as",
            "mkisofs",
            "-V",
            "BASTIDE",
            "-iso-level",
            "3",
            "-r",
            "-partition_offset",
            "16",
        ])
        .args(["-append_partition", "2", "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"])
        .arg(&esp)
        .args([
            "-appended_part_as_gpt",
            "-e",
            "--interval:appended_partition_2:all::",
            "-no-emul-boot",
        ])
        .args(recipe.xorriso)
        .arg("-o")
        .args([&out, &tree])
        .run()
        .unwrap();
    sign(&out);
    out
}

/// Puts a file on an ESP.
fn put(esp: &Path, file: &Path, place: &str) {
    Cmd::new("mcopy")
        .arg("-o")
        .arg("-i")
        .arg(esp)
        .arg(file)
        .arg(format!("::{place}"))
        .run()
        .unwrap();
}

/// Writes the detached OpenPGP signature beside a file.
pub fn sign(file: &Path) {
    let passphrase = passphrase();
    let signature = site()
        .release_key(&passphrase)
        .unwrap()
        .sign_detached(fs::File::open(file).unwrap())
        .unwrap();
    fs::write(format!("{}.asc", file.display()), signature).unwrap();
}
