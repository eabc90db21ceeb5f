// SPDX-License-Identifier: GPL-3.0-or-later
//! The memory of our programs: the kernel's own high-water mark of each process (`VmHWM`, proc_pid_status(5)), without the
//! children, which are Debian's. It is read every ten milliseconds: what a process takes after its last reading is not seen.

use std::fs;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use signing::process::Cmd;

use super::Measure;
use crate::vm::Running;
use crate::workshop::Workshop;

const BETWEEN: Duration = Duration::from_millis(10);
/// What no program may exceed, in MB.
const LIMIT: f64 = 256.0;

/// Each program at its largest work. `{new}` is an empty directory.
const STEPS: [&str; 10] = [
    "bastide-repo mirror {source}/offline-repo/specs/base.toml --store {new}/store",
    "bastide-iso build --snapshot base --version 1.0.0 --channel stable --store {out}/store --trust {out}/site/trust \
     --source {source} --work {out}/work --out {new}/build",
    "bastide-iso sign --build {new}/build --site {out}/site --passphrase-file {out}/passphrase",
    "bastide-repo publish --repo {new}/repository --release {new}/build --site {out}/site \
     --passphrase-file {out}/passphrase",
    "bastide-iso assemble --build {new}/build --repo {new}/repository --work {out}/work --out {new}/medium.iso \
     --site {out}/site --passphrase-file {out}/passphrase",
    "bastide-repo export --repo {out}/repository/1.1.0 --out {new}/release.bundle",
    "bastide-repo import {new}/release.bundle --repo {new}/gateway --trust {out}/site/trust",
    "bastide-audit iso {new}/medium.iso --trust {out}/site/trust",
    "bastide-audit bundle {new}/release.bundle --trust {out}/site/trust",
    "bastide-audit repo {out}/repository/1.1.0 --trust {out}/site/trust",
];

/// The installation onto a disk for another machine, from the unpacked medium: a kernel may know neither of its file
/// systems. A loop device's serial number is the name of its file.
const INSTALL: &str = r#"set -e
cd "$1"
mkdir work
xorriso -osirrox on -indev medium.iso -extract / medium
unsquashfs -q -n -d targets medium/bastide/targets.squashfs
mount -t tmpfs work work
# The test's network card is not in this machine.
sed '/^\[\[network/,/^gateway/d' "$2/answer.toml" > answer.toml
truncate -s 10G BASTIDE-DISK-1
disk=$(losetup --find --show BASTIDE-DISK-1)
trap 'losetup --detach "$disk"' EXIT
"$3" run --medium medium --targets targets --trust "$2/site/trust" --device "$disk" --other-machine \
    --work work/new --answer answer.toml --yes &
echo $! > pid
wait $!
"#;

/// Measures every step.
pub fn peaks(shop: &Workshop) -> Result<Vec<Measure>> {
    let new = shop.at("bench/memory");
    if new.exists() {
        fs::remove_dir_all(&new)?;
    }
    fs::create_dir_all(&new)?;
    let mut measures = Vec::new();
    for line in STEPS {
        let words: Vec<_> = line
            .split_whitespace()
            .map(|word| {
                [("{source}", &shop.source), ("{out}", &shop.out), ("{new}", &new)]
                    .iter()
                    .fold(word.to_owned(), |word, (name, place)| {
                        word.replace(name, &place.to_string_lossy())
                    })
            })
            .collect();
        let peak = watched(shop.program(&words[0]).args(&words[1..]), &new.join("log"))
            .with_context(|| format!("measuring `{line}`"))?;
        measures.push(measure(&format!("{} {}", words[0], words[1]), peak));
    }
    measures.push(measure("bastide-install run", install(shop, &new)?));
    fs::remove_dir_all(&new)?;
    Ok(measures)
}

/// A peak in bytes against the limit.
pub fn measure(step: &str, peak: u64) -> Measure {
    Measure::size(&format!("memory of {step} / limit"), peak, LIMIT)
}

/// The peak in bytes of a command that must succeed.
pub fn watched(cmd: Cmd, log: &Path) -> Result<u64> {
    let file = fs::File::create(log)?;
    let child = cmd.spawn(Stdio::from(file.try_clone()?), Stdio::from(file))?;
    let pid = child.id();
    let (status, peak) = watch(child, || Some(pid))?;
    ensure!(status.success(), "it ended with {status}: {}", fs::read_to_string(log)?);
    Ok(peak)
}

/// The peak in bytes of a command on the host that must succeed, and what is done as soon as it has.
///
/// It is read twice a second, and with no other process than the pause: in a slow machine the looking would be a good part
/// of what is measured.
pub fn on_host(running: &Running, key: &Path, command: &str, then: &str) -> Result<u64> {
    let script = format!(
        "{command} >/run/bench.log 2>&1 & pid=$!
while kill -0 $pid 2>/dev/null; do
    while read -r name value unit; do [ $name = VmHWM: ] && peak=\"$name $value $unit\"; done </proc/$pid/status
    sleep 0.5
done 2>/dev/null
wait $pid || {{ cat /run/bench.log >&2; exit 1; }}
echo $peak
{then}"
    );
    kilobytes(&running.must(key, &script)?).with_context(|| format!("`{command}` ended before it could be measured"))
}

fn install(shop: &Workshop, new: &Path) -> Result<u64> {
    let log = fs::File::create(new.join("log"))?;
    let child = Cmd::new("unshare")
        .args(["--mount", "sh", "-c", INSTALL, "sh"])
        .arg(new)
        .arg(&shop.out)
        .arg(shop.path_of("bastide-install"))
        .spawn(Stdio::from(log.try_clone()?), Stdio::from(log))?;
    let pid = || fs::read_to_string(new.join("pid")).ok()?.trim().parse().ok();
    let (status, peak) = watch(child, pid)?;
    ensure!(
        status.success(),
        "the installation ended with {status}: {}",
        fs::read_to_string(new.join("log"))?
    );
    Ok(peak)
}

/// Waits for a child, and reads the peak in bytes of the process that `pid` tells meanwhile.
fn watch(mut child: Child, pid: impl Fn() -> Option<u32>) -> Result<(ExitStatus, u64)> {
    let mut peak = 0;
    loop {
        peak = pid().and_then(high_water).unwrap_or(peak);
        if let Some(status) = child.try_wait()? {
            return Ok((status, peak));
        }
        std::thread::sleep(BETWEEN);
    }
}

/// A process's peak in bytes, while it is there.
fn high_water(pid: u32) -> Option<u64> {
    kilobytes(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

fn kilobytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}
