// SPDX-License-Identifier: GPL-3.0-or-later
//! Bytes into a partition and back out of it, at the same time: what has reached the device is read back while the next bytes
//! are fetched. They are hashed once, as the device gives them back: that proves the release and the device in one.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::libc;
use signing::digest::BLOCK;
use signing::tuf::hashes::Check;
use signing::tuf::{Client, Source, VerifiedTarget};

use super::{Step, judged};
use crate::events::{Event, Watch};
use crate::gpt::Partition;

/// Bytes between two events.
const EVENT: u64 = 4 << 20;
/// Bytes that are written before the device is told to keep them and they are read back.
const SEGMENT: u64 = 32 << 20;
/// Between two looks at what was read back.
const PAUSE: Duration = Duration::from_millis(50);
/// Direct reads need memory and offsets at multiples of the device's block; this is a multiple of all.
const ALIGN: usize = 4096;

/// Streams a target into a partition, and starts to read it back. Nothing is verified before the [`ReadBack`] is finished, so
/// the partition is not named as a slot before.
pub(super) fn stream<S: Source>(
    client: &mut Client<S>,
    target: &VerifiedTarget,
    partition: &Partition,
    step: Step,
    watch: &mut dyn Watch<Step>,
) -> Result<ReadBack> {
    let what = || format!("cannot write {} to {}", target.name, partition.node.display());
    // On a block device, "exclusive" means that nothing has it mounted or mapped.
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_EXCL)
        .open(&partition.node)
        .with_context(what)?;
    let back = ReadBack::start(target, partition)?;
    let mut sink = Sink {
        file: &file,
        step,
        watch,
        done: 0,
        told: 0,
        kept: 0,
        total: target.length,
        back: &back.kept,
    };
    client
        .fetch_unchecked(target, &mut sink)
        .map_err(judged)
        .with_context(what)?;
    file.sync_all().with_context(what)?;
    back.tell(target.length);
    Ok(back)
}

struct Sink<'a> {
    file: &'a File,
    step: Step,
    watch: &'a mut dyn Watch<Step>,
    done: u64,
    told: u64,
    kept: u64,
    total: u64,
    back: &'a Sender<u64>,
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
        if self.done - self.kept >= SEGMENT {
            self.file.sync_data()?;
            self.kept = self.done;
            // A reader that is gone has failed, and says so when it is finished.
            let _ = self.back.send(self.kept);
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A thread that reads a target's bytes back from the device itself, past the page cache, as far as they were written.
pub(super) struct ReadBack {
    target: VerifiedTarget,
    partition: Partition,
    kept: Sender<u64>,
    done: Arc<AtomicU64>,
    thread: JoinHandle<io::Result<bool>>,
}

impl ReadBack {
    fn start(target: &VerifiedTarget, partition: &Partition) -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECT)
            .open(&partition.node)
            .with_context(|| format!("cannot read {}", partition.node.display()))?;
        let (kept, ends) = channel();
        let done = Arc::new(AtomicU64::new(0));
        let (check, length, count) = (target.check(), target.length, Arc::clone(&done));
        Ok(Self {
            target: target.clone(),
            partition: partition.clone(),
            kept,
            done,
            thread: thread::spawn(move || read_back(file, &ends, check, length, &count)),
        })
    }

    fn tell(&self, end: u64) {
        // As above.
        let _ = self.kept.send(end);
    }

    /// Waits until all is read, and compares its digests. `before` bytes of `total` were read by others.
    ///
    /// # Errors
    /// A refusal when the release itself is not what was signed; else when the device failed.
    pub(super) fn finish<S: Source>(
        self,
        client: &mut Client<S>,
        watch: &mut dyn Watch<Step>,
        before: u64,
        total: u64,
    ) -> Result<()> {
        let node = self.partition.node.display();
        let mut told = 0;
        while !self.thread.is_finished() {
            thread::sleep(PAUSE);
            let done = self.done.load(Ordering::Relaxed);
            if done - told >= EVENT {
                told = done;
                watch.event(Event::progress(Step::ReadBack, before + done, total))?;
            }
        }
        let holds = match self.thread.join() {
            Ok(holds) => holds.with_context(|| format!("cannot read {} back from {node}", self.target.name))?,
            Err(_) => bail!("the thread that read {node} back ended in a panic"),
        };
        if !holds {
            // Which of the two it was, the release on the stick or the disk, tells the release itself.
            client
                .fetch(&self.target, &mut io::sink())
                .map_err(judged)
                .with_context(|| format!("cannot use {}", self.target.name))?;
            bail!(
                "{node} reads back otherwise than {} was written: the disk is failing, replace it",
                self.target.name
            );
        }
        watch.event(Event::progress(Step::ReadBack, before + self.target.length, total))?;
        Ok(())
    }
}

fn read_back(
    mut file: File,
    ends: &Receiver<u64>,
    mut check: Check,
    length: u64,
    done: &AtomicU64,
) -> io::Result<bool> {
    let mut memory = vec![0; BLOCK + ALIGN];
    let offset = memory.as_ptr().align_offset(ALIGN);
    let block = memory
        .get_mut(offset..offset + BLOCK)
        .ok_or_else(|| io::Error::other("no aligned memory"))?;
    let (mut at, mut end) = (0, 0);
    while at < length {
        // Whole blocks only, until the writer is through: an end in the middle of one would be read twice.
        while end < length && end - at < BLOCK as u64 {
            end = ends.recv().map_err(|_| io::Error::other("the writer gave up"))?;
        }
        let count = file.read(block)?;
        if count == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the device ends too early",
            ));
        }
        let used = usize::try_from(length - at).unwrap_or(usize::MAX).min(count);
        check.update(&block[..used]);
        at += used as u64;
        done.store(at, Ordering::Relaxed);
    }
    Ok(check.holds())
}

#[cfg(test)]
mod tests {
    use signing::digest::Sha256;
    use signing::tuf::hashes::Hashes;

    use super::*;

    /// Reads a file of `held` bytes back as one of `length`, told of these ends, against the digest of what should be there.
    fn read(held: usize, length: usize, ends: &[u64], flip: Option<usize>) -> io::Result<bool> {
        let mut bytes: Vec<u8> = (0..length.max(held)).map(|at| (at / 7) as u8).collect();
        let check = Hashes::of(Sha256::of(&bytes[..length])).check();
        if let Some(at) = flip {
            bytes[at] ^= 1;
        }
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes[..held]).unwrap();
        io::Seek::rewind(&mut file).unwrap();
        let (kept, told) = channel();
        for end in ends {
            kept.send(*end).unwrap();
        }
        drop(kept);
        read_back(file, &told, check, length as u64, &AtomicU64::new(0))
    }

    #[test]
    fn what_was_written_is_read_to_its_last_byte_and_no_further() {
        let length = 2 * BLOCK + 5;
        for ends in [&[length as u64][..], &[7, BLOCK as u64 + 9, length as u64]] {
            assert!(read(length + 4000, length, ends, None).unwrap());
            assert!(read(length + 4000, length, ends, Some(length)).unwrap());
            for flipped in [0, BLOCK, length - 1] {
                assert!(!read(length + 4000, length, ends, Some(flipped)).unwrap());
            }
        }
    }

    #[test]
    fn a_writer_that_gave_up_and_a_short_device_are_no_success() {
        let length = 2 * BLOCK;
        assert!(read(length, length, &[BLOCK as u64], None).is_err());
        assert!(read(length - 4096, length, &[length as u64], None).is_err());
    }
}
