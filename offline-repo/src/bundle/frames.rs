// SPDX-License-Identifier: GPL-3.0-or-later
//! The members of a bundle as they lie in its files, and what their zstd frames unpack to.

use std::io::{self, BufReader, Read, Seek, SeekFrom};

/// The largest zstd window, as a power of two. Level 19 uses 2^23.
const WINDOW_LOG: u32 = 25;

/// Where bytes lie.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent {
    pub(super) file: usize,
    pub(super) offset: u64,
    pub(super) size: u64,
}

/// What these extents unpack to.
pub(super) fn unpacked<'a, R: Read + Seek>(
    files: &'a mut [R],
    extents: &[Extent],
) -> io::Result<impl Read + use<'a, R>> {
    let run = BufReader::with_capacity(1 << 17, Run::new(files, extents));
    let mut decoder = zstd::stream::read::Decoder::with_buffer(run)?;
    decoder.window_log_max(WINDOW_LOG)?;
    Ok(Unpacked(decoder))
}

/// Reads extents one behind the other.
pub(super) struct Run<'a, R> {
    files: &'a mut [R],
    /// What is still to come, the next one last.
    extents: Vec<Extent>,
    /// Whether the next one has been read from.
    begun: bool,
}

impl<'a, R> Run<'a, R> {
    pub(super) fn new(files: &'a mut [R], extents: &[Extent]) -> Self {
        Self {
            files,
            extents: extents.iter().rev().copied().collect(),
            begun: false,
        }
    }
}

impl<R: Read + Seek> Read for Run<'_, R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        while let Some(extent) = self.extents.last_mut() {
            if extent.size == 0 {
                self.extents.pop();
                self.begun = false;
                continue;
            }
            let file = &mut self.files[extent.file];
            if !self.begun {
                file.seek(SeekFrom::Start(extent.offset))?;
                self.begun = true;
            }
            let wanted = bytes.len().min(usize::try_from(extent.size).unwrap_or(usize::MAX));
            let count = file.read(&mut bytes[..wanted])?;
            extent.size -= count as u64;
            return Ok(count);
        }
        Ok(0)
    }
}

/// Says of a frame that cannot be unpacked that it was altered, where the stick itself can be read.
struct Unpacked<D>(D);

impl<D: Read> Read for Unpacked<D> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read(bytes).map_err(|error| match error.raw_os_error() {
            Some(_) => error,
            None => io::Error::new(
                io::ErrorKind::InvalidData,
                format!("its compressed form is damaged ({error})"),
            ),
        })
    }
}
