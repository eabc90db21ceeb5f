// SPDX-License-Identifier: GPL-3.0-or-later
//! The ways to boot a medium, and the trees that it shows: see [`super`].

use super::of_medium;
use crate::medium::{Extent, Image, MediumError, gpt, iso9660};
use crate::report::Finding;

/// Partition table and boot catalogue must show one and the same ESP, and every tree the same files.
pub(super) fn paths(
    image: &Image,
    volume: &iso9660::Volume,
    used: &mut Vec<Extent>,
    findings: &mut Vec<Finding>,
) -> Option<Extent> {
    let table = match gpt::agreed(image) {
        Ok(table) => table,
        Err(error) => {
            findings.push(Finding::new("medium.gpt", "Partition table", of_medium(&error)));
            return None;
        }
    };
    used.extend(&table.used);
    let esps: Vec<_> = table
        .partitions
        .iter()
        .filter(|partition| partition.kind == gpt::ESP)
        .collect();
    let [esp] = esps[..] else {
        findings.push(Finding::fail(
            "medium.gpt",
            "Partition table",
            format!("{} EFI system partitions, not one", esps.len()),
        ));
        return None;
    };
    let names: Vec<String> = table
        .partitions
        .iter()
        .map(|p| format!("{} {}", p.number, p.name))
        .collect();
    findings.push(Finding::pass(
        "medium.gpt",
        "Partition table, one EFI system partition",
        names.join(", "),
    ));

    let title = "Boot catalogue (El Torito): a CD boots the same image as a disk";
    findings.push(match volume.catalogue.map(|block| iso9660::catalogue(image, block)) {
        None => Finding::fail("medium.catalogue", title, "there is no boot catalogue"),
        Some(Err(error)) => Finding::new("medium.catalogue", title, of_medium(&error)),
        Some(Ok(images)) => match images[..] {
            [boot] if boot.platform == 0xef && u64::from(boot.block) * iso9660::BLOCK == esp.extent.start => {
                Finding::pass(
                    "medium.catalogue",
                    title,
                    "one entry, for UEFI, and it is the partition table's ESP",
                )
            }
            _ => Finding::fail(
                "medium.catalogue",
                title,
                format!("not one UEFI entry that is the ESP: {images:02x?}"),
            ),
        },
    });
    if let Some(block) = volume.catalogue {
        used.push(Extent {
            start: u64::from(block) * iso9660::BLOCK,
            length: iso9660::BLOCK,
        });
    }
    for partition in table.partitions.iter().filter(|partition| partition.kind != gpt::ESP) {
        findings.extend(second_tree(image, partition, volume, used));
    }
    Some(esp.extent)
}

/// A partition that begins with a volume of its own shows the same files under other numbers.
fn second_tree(
    image: &Image,
    partition: &gpt::Partition,
    volume: &iso9660::Volume,
    used: &mut Vec<Extent>,
) -> Option<Finding> {
    let title = format!(
        "Partition {} ({}) shows the same files as the disk",
        partition.number, partition.name
    );
    let id = format!("medium.partition.{}", partition.number);
    match iso9660::read(image, partition.extent.start) {
        Ok(second)
            if second.files == volume.files
                && second.directories == volume.directories
                && second.label == volume.label =>
        {
            used.extend(&second.used);
            let detail = format!("{} files, each at the same place", second.files.len());
            Some(Finding::pass(id, title, detail))
        }
        Ok(_) => Some(Finding::fail(id, title, "another reader would see other files")),
        // Padding that xorriso names as a partition; the check of unexplained bytes covers it.
        Err(MediumError::Malformed(_)) => None,
        // Nobody knows what lies there.
        Err(error @ (MediumError::Io(_) | MediumError::Tool(_) | MediumError::Unknown(_))) => {
            Some(Finding::new(id, title, of_medium(&error)))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use signing::guid::Guid;

    use super::*;
    use crate::verdict::Verdict;

    #[test]
    fn a_partition_that_cannot_be_read_is_not_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        File::create(&path).unwrap().set_len(1 << 20).unwrap();
        let image = Image::open(&path).unwrap();
        let partition = gpt::Partition {
            number: 3,
            kind: Guid([1; 16]),
            guid: Guid([2; 16]),
            name: "gap".to_owned(),
            extent: Extent {
                start: 1 << 19,
                length: 1 << 19,
            },
        };
        let volume = iso9660::Volume {
            label: String::new(),
            files: Vec::new(),
            directories: Vec::new(),
            catalogue: None,
            used: Vec::new(),
        };
        let look = || second_tree(&image, &partition, &volume, &mut Vec::new());
        assert_eq!(look(), None, "padding is no second tree");
        // The disk is as long as it was, and gives nothing more there.
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(1 << 19)
            .unwrap();
        let finding = look().unwrap();
        assert_eq!(finding.id, "medium.partition.3");
        assert!(
            matches!(finding.verdict, Some(Verdict::CouldNotCheck(_))),
            "{finding:?}"
        );
    }
}
