// SPDX-License-Identifier: GPL-3.0-or-later
//! Which frames of which target go into which volume.

use anyhow::{Result, bail};

use super::pack::Packed;
use crate::bundle::Piece;

/// The smallest volume: metadata and signatures of a repository with many releases fit a hundred times.
pub const SMALLEST: u64 = 4 << 20;
/// The most content in a frame, and so the most that a volume's end is left empty for.
const LARGEST_SEGMENT: u64 = 64 << 20;
/// What a member costs beside its content: a header of tar, the padding, and a line in the volume's list.
pub(super) const MEMBER: u64 = 512 + 511 + 512;
/// The list's own words, the signature, the end of the archive.
const FRAME: u64 = 64 << 10;

/// What a volume holds of one target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    /// Which target.
    pub target: usize,
    /// Where its frames begin in the compressed form, in bytes.
    pub offset: u64,
    /// Their length in bytes.
    pub size: u64,
    /// Which piece it is, where the target is cut.
    pub piece: Option<Piece>,
}

/// After how much content a new frame begins, for volumes of this size.
#[must_use]
pub fn segment(volume: u64) -> u64 {
    let part = (volume / 16).max(1);
    (1 << part.ilog2()).min(LARGEST_SEGMENT)
}

/// Fills volumes of at most `size` bytes one after the other. Each has `metadata` bytes of metadata, with what members cost.
///
/// # Errors
/// When the metadata alone fill a volume.
pub fn fill(targets: &[Packed], metadata: u64, size: u64) -> Result<Vec<Vec<Slice>>> {
    let largest = targets
        .iter()
        .flat_map(|target| &target.frames)
        .max()
        .copied()
        .unwrap_or(0);
    let capacity = size.saturating_sub(FRAME + metadata);
    if capacity < largest + MEMBER {
        bail!("volumes of {size} bytes are too small for this repository: name a larger --volume-size");
    }
    let mut volumes = vec![Vec::new()];
    let mut left = capacity;
    for (target, packed) in targets.iter().enumerate() {
        let mut offset = 0;
        let mut slice: Option<Slice> = None;
        for frame in &packed.frames {
            let cost = if slice.is_some() { *frame } else { frame + MEMBER };
            if cost > left {
                close(&mut volumes, slice.take());
                volumes.push(Vec::new());
                left = capacity;
            }
            let grown = slice.get_or_insert_with(|| {
                left -= MEMBER;
                Slice {
                    target,
                    offset,
                    size: 0,
                    piece: None,
                }
            });
            grown.size += frame;
            offset += frame;
            left -= frame;
        }
        close(&mut volumes, slice);
    }
    number(&mut volumes, targets.len())?;
    Ok(volumes)
}

fn close(volumes: &mut [Vec<Slice>], slice: Option<Slice>) {
    if let (Some(volume), Some(slice)) = (volumes.last_mut(), slice) {
        volume.push(slice);
    }
}

/// Numbers the pieces of the targets that are cut.
fn number(volumes: &mut [Vec<Slice>], targets: usize) -> Result<()> {
    let mut of = vec![0; targets];
    for slice in volumes.iter().flatten() {
        of[slice.target] += 1;
    }
    if volumes.len() > crate::bundle::MOST_VOLUMES as usize {
        bail!(
            "{} volumes are more than anybody can carry: name a larger --volume-size",
            volumes.len()
        );
    }
    let mut number = vec![0; targets];
    for slice in volumes.iter_mut().flatten().filter(|slice| of[slice.target] > 1) {
        number[slice.target] += 1;
        slice.piece = Some(Piece {
            number: number[slice.target],
            of: of[slice.target],
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use signing::digest::Sha256;

    fn packed(frames: &[u64]) -> Packed {
        let sha256 = Sha256::of(b"");
        serde_json::from_value(serde_json::json!({"path": "x", "file": "y", "sha256": sha256, "frames": frames}))
            .unwrap()
    }

    #[test]
    fn every_frame_is_carried_once_and_no_volume_is_too_full() {
        let targets = [
            packed(&[400_000; 30]),
            packed(&[100]),
            packed(&[262_144; 16]),
            packed(&[1_000_000; 9]),
        ];
        let volumes = fill(&targets, 50_000, SMALLEST).unwrap();
        assert!(volumes.len() > 5);
        let mut next = vec![(0, 0); targets.len()];
        for volume in &volumes {
            let bytes: u64 = volume.iter().map(|slice| slice.size + MEMBER).sum();
            assert!(bytes + 50_000 + FRAME <= SMALLEST && !volume.is_empty());
            for slice in volume {
                let (number, offset) = &mut next[slice.target];
                *number += 1;
                assert_eq!(slice.offset, *offset);
                *offset += slice.size;
                assert_eq!(slice.piece.map_or(1, |piece| piece.number), *number);
            }
        }
        for ((number, offset), target) in next.iter().zip(&targets) {
            assert_eq!(*offset, target.size());
            let last = volumes
                .iter()
                .flatten()
                .rfind(|slice| slice.offset + slice.size == target.size());
            assert!(*number == 1 || last.is_some_and(|slice| slice.piece.is_some()));
        }
        assert!(fill(&targets, SMALLEST, SMALLEST).is_err());
    }

    #[test]
    fn segments_are_a_sixteenth_of_a_volume_at_most() {
        for size in [SMALLEST, 5 << 20, 650 << 20, 4400 << 20, 1 << 40] {
            assert!(segment(size) <= size / 16 && segment(size).is_power_of_two());
        }
        assert_eq!(segment(4400 << 20), LARGEST_SEGMENT);
    }
}
