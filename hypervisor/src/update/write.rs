// SPDX-License-Identifier: GPL-3.0-or-later
//! Bytes into a partition and back out of it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Result, bail};
use nix::libc;
use signing::digest::{BLOCK, Hasher};
use signing::tuf::{Client, Source, VerifiedTarget};

use super::{Step, judged};
use crate::events::{Event, Watch};
use crate::gpt::Partition;

/// Bytes between two events.
const EVENT: u64 = 4 << 20;
/// Direct reads need memory and offsets at multiples of the device's block; this is a multiple of all.
const ALIGN: usize = 4096;

/// Streams a verified target into a partition. Its hash is known to be good only when this returns, so the partition is
/// not named as a slot before.
pub(super) fn stream<S: Source>(
    client: &mut Client<S>,
    target: &VerifiedTarget,
    partition: &Partition,
    step: Step,
    watch: &mut dyn Watch<Step>,
) -> Result<()> {
    let what = || format!("cannot write {} to {}", target.name, partition.node.display());
    // On a block device, "exclusive" means that nothing has it mounted or mapped.
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_EXCL)
        .open(&partition.node)
        .with_context(what)?;
    let mut sink = Sink {
        file: &file,
        step,
        watch,
        done: 0,
        told: 0,
        total: target.length,
    };
    client.fetch(target, &mut sink).map_err(judged).with_context(what)?;
    file.sync_all().with_context(what)
}

struct Sink<'a> {
    file: &'a File,
    step: Step,
    watch: &'a mut dyn Watch<Step>,
    done: u64,
    told: u64,
    total: u64,
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.done += count as u64;
        if self.done - self.told >= EVENT || self.done == self.total {
            self.told = self.done;
            self.watch
                .event(Event::progress(self.step, self.done, self.total))
                .map_err(io::Error::other)?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Reads the target's bytes back from the device itself, past the page cache, and compares their hash.
pub(super) fn read_back(
    target: &VerifiedTarget,
    partition: &Partition,
    watch: &mut dyn Watch<Step>,
    done: &mut u64,
    total: u64,
) -> Result<()> {
    let what = || format!("cannot read {} back from {}", target.name, partition.node.display());
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(&partition.node)
        .with_context(what)?;
    let mut memory = vec![0; BLOCK + ALIGN];
    let offset = memory.as_ptr().align_offset(ALIGN);
    let block = memory.get_mut(offset..offset + BLOCK).with_context(what)?;
    let mut hasher = Hasher::new();
    let mut left = target.length;
    let mut told = 0;
    while left > 0 {
        let count = file.read(block).with_context(what)?;
        if count == 0 {
            bail!("{}: the device ends too early", what());
        }
        let used = usize::try_from(left).unwrap_or(usize::MAX).min(count);
        hasher.update(&block[..used]);
        left -= used as u64;
        *done += used as u64;
        told += used as u64;
        if told >= EVENT || left == 0 {
            told = 0;
            watch.event(Event::progress(Step::ReadBack, *done, total))?;
        }
    }
    if hasher.finish().0 != target.sha256 {
        bail!(
            "{} reads back otherwise than {} was written: the disk is failing, replace it",
            partition.node.display(),
            target.name
        );
    }
    Ok(())
}
