// SPDX-License-Identifier: GPL-3.0-or-later
//! The new partition table, written by sfdisk from the plan.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};
use signing::process::Cmd;

use super::Target;
use crate::plan::Plan;

/// What is zeroed at each end of a new partition, so that no old content shows through.
const END: u64 = 1 << 20;

/// Writes the partition table, with the ends of every partition empty before it stands.
///
/// # Errors
/// When the disk cannot be written.
pub fn partition(plan: &Plan) -> Result<()> {
    let path = &plan.disk.path;
    let target = Target::open(path)?;
    for partition in &plan.partitions {
        let end = END.min(partition.size);
        target.zero(partition.start, end)?;
        target.zero(partition.start + partition.size - end, end)?;
    }
    target.sync()?;
    // The kernel is told at the end: until then nobody shall look into half-written partitions.
    Cmd::new("sfdisk")
        .args(["--quiet", "--wipe", "always", "--no-reread", "--no-tell-kernel"])
        .arg(path)
        .input(script(plan))
        .run()
        .with_context(|| format!("cannot write the partition table of {}", path.display()))?;
    target.sync()
}

/// Tells the kernel about the new partitions. A kernel that cannot (a loop device) learns them at the next start.
pub fn reread(path: &Path) {
    drop(Cmd::new("partx").arg("--update").arg(path).run());
}

fn script(plan: &Plan) -> String {
    let sector = plan.disk.sector.max(512);
    let mut script = String::from("label: gpt\nunit: sectors\n");
    for partition in &plan.partitions {
        // Writing into a string cannot fail.
        let _ = write!(
            script,
            "{}: start={}, size={}, type={}, name=\"{}\"",
            partition.number,
            partition.start / sector,
            partition.size / sector,
            partition.kind,
            partition.name
        );
        if let Some(guid) = partition.guid {
            let _ = write!(script, ", uuid={guid}");
        }
        script.push('\n');
    }
    script
}
