// SPDX-License-Identifier: GPL-3.0-or-later
//! The parts of a release in the form in which they are carried: each the smaller one of its delta and its compressed form.

use std::collections::BTreeMap;
use std::io::{self, Write};

use anyhow::{Context, Result, anyhow};
use signing::output::Refused;
use signing::release::Part;
use signing::tuf::{Approved, Client, DirectorySource, VerifiedTarget};

use super::differ::{self, Known};
use super::pack::{Form, Packed, Work};
use super::{Order, Phase, plan};
use crate::delta::{self, Base};
use crate::repository::{Published, Repository};

/// Packs the parts of releases.
pub(super) struct Packer<'a> {
    pub(super) repository: &'a Repository,
    pub(super) work: &'a Work,
    pub(super) targets: &'a [VerifiedTarget],
    pub(super) known: Option<Known<'a>>,
    pub(super) order: &'a Order<'a>,
    pub(super) total: u64,
    pub(super) done: u64,
    pub(super) tell: &'a mut dyn FnMut(Phase, u64, u64),
}

impl Packer<'_> {
    /// All parts of a release.
    pub(super) fn release(
        &mut self,
        client: &mut Client<Approved<DirectorySource>>,
        release: &Published,
        paths: &BTreeMap<&str, String>,
    ) -> Result<Vec<Packed>> {
        let find = |name: &str| {
            let target = self.targets.iter().find(|target| target.name == name)?;
            Some((target.clone(), paths.get(name)?.clone()))
        };
        // Volumes come in any order, and one must not wait for another.
        let boot = release.parts.iter().find(|part| part.part == Part::Xen);
        let boot = boot
            .filter(|_| self.order.volumes.is_none())
            .and_then(|part| find(&part.target));
        let mut packed = Vec::new();
        for part in &release.parts {
            let (target, path) = find(&part.target)
                .ok_or_else(|| anyhow!(Refused(format!("{} is not signed any more", part.target))))?;
            let before = self.done;
            packed.push(self.part(client, part.part, &target, &path, boot.as_ref())?);
            self.done = before + target.length;
            (self.tell)(Phase::Compressing, self.done, self.total);
        }
        Ok(packed)
    }

    /// The smaller one of a target's delta and its compressed form.
    fn part(
        &mut self,
        client: &mut Client<Approved<DirectorySource>>,
        part: Part,
        target: &VerifiedTarget,
        path: &str,
        boot: Option<&(VerifiedTarget, String)>,
    ) -> Result<Packed> {
        let bases = self
            .known
            .as_ref()
            .map(|known| known.bases(part, boot))
            .unwrap_or_default();
        let delta = match bases.is_empty() {
            true => None,
            false => Some(self.delta(target, path, &bases)?),
        };
        if let Some(delta) = delta {
            if differ::is_clear(delta.size(), target.length) {
                return Ok(delta);
            }
            let whole = self.whole(client, target, path)?;
            return Ok(if delta.size() < whole.size() { delta } else { whole });
        }
        self.whole(client, target, path)
    }

    fn form(&self, level: i32) -> Form {
        Form {
            level,
            segment: self.order.volumes.as_ref().map(|volumes| plan::segment(volumes.size)),
        }
    }

    fn delta(&mut self, target: &VerifiedTarget, path: &str, bases: &[Base]) -> Result<Packed> {
        let form = self.form(differ::LEVEL);
        let this = Base {
            path: path.to_owned(),
            length: target.length,
            sha256: target.sha256,
        };
        self.work.pack(path, Some(bases), form, |to| {
            let what = || format!("cannot compare {} with what the receiver holds", target.name);
            let new = differ::open(self.repository, &[this]).with_context(what)?;
            let bases = differ::open(self.repository, bases).with_context(what)?;
            let (before, total) = (self.done, self.total);
            let mut tell = |done| (self.tell)(Phase::Compressing, before + done, total);
            for (_, new) in &new {
                delta::make(&bases, new, target.length, to, &mut tell).with_context(what)?;
            }
            Ok(())
        })
    }

    fn whole(
        &mut self,
        client: &mut Client<Approved<DirectorySource>>,
        target: &VerifiedTarget,
        path: &str,
    ) -> Result<Packed> {
        let form = self.form(self.order.level);
        let mut done = self.done;
        self.work.pack(path, None, form, |to| {
            let mut sink = Told {
                inner: to,
                done: &mut done,
                tell: &mut |done| (self.tell)(Phase::Compressing, done, self.total),
            };
            client
                .fetch(target, &mut sink)
                .with_context(|| format!("cannot export {}", target.name))
        })
    }
}

struct Told<'a> {
    inner: &'a mut dyn Write,
    done: &'a mut u64,
    tell: &'a mut dyn FnMut(u64),
}

impl Write for Told<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        *self.done += count as u64;
        (self.tell)(*self.done);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
