// SPDX-License-Identifier: GPL-3.0-or-later
//! One installation, from the medium to a disk that boots.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use hypervisor::bootentries::Firmware as BootManager;
use hypervisor::gpt::Table;
use hypervisor::layout::{self, Slot};
use hypervisor::slots::Slots;
use signing::clock;
use signing::durable;
use signing::output::Refused;
use signing::release::Part;

use crate::answer::Loaded;
use crate::disk::{self, Esp, State, Target};
use crate::firmware;
use crate::inventory::{self, Inventory, Scan};
use crate::medium::{Medium, Verified};
use crate::network;
use crate::plan::{Plan, PlanError, ReleaseFacts, SecureBootPlan};
use crate::record::{self, ReadBack, Record};
use crate::sovereigns;
use crate::steps::{Memory, Reporter, Step};
use crate::volume::{self, Volume};

/// Where disks that are being written are locked, for all installers of this machine.
const DISK_LOCKS: &str = "/run/bastide/disks";

/// What an installation works with.
pub struct Setup {
    /// The medium and the trust.
    pub medium: Medium,
    /// Which devices are looked at.
    pub scan: Scan,
    /// The volume that the answer came from. Its disk is never written, nor is any with the label of such a volume.
    pub answer_volume: Option<Volume>,
    /// A directory on a memory file system for the state's files before they are on the disk. It is made anew and removed.
    pub work: PathBuf,
    /// The firmware as the kernel shows it, `/sys/firmware/efi`.
    pub efi: PathBuf,
    /// Whether the disk is for another machine: this one's firmware and cards are neither looked at nor changed.
    pub other_machine: bool,
}

impl Default for Setup {
    fn default() -> Self {
        let medium = Medium::default();
        Self {
            scan: Scan {
                only: Vec::new(),
                medium: vec![medium.mount.clone(), medium.targets.clone()],
            },
            medium,
            answer_volume: None,
            work: "/run/bastide/install".into(),
            efi: "/sys/firmware/efi".into(),
            other_machine: false,
        }
    }
}

/// What an installation left.
pub struct Outcome {
    /// What was done.
    pub plan: Plan,
    /// The signed record.
    pub record: record::Signed,
}

impl Setup {
    /// Looks at the machine.
    ///
    /// # Errors
    /// As [`inventory::take`].
    pub fn inventory(&self) -> Result<Inventory> {
        let mut inventory = inventory::take(&self.scan)?;
        let sticks = volume::labelled(&inventory);
        for volume in sticks.iter().chain(&self.answer_volume) {
            volume::protect(&mut inventory, volume);
        }
        if self.other_machine {
            inventory.for_another_machine();
        }
        Ok(inventory)
    }

    /// Plans without reading the medium's targets and without writing anything.
    ///
    /// # Errors
    /// When the medium's metadata cannot be trusted, the machine not be looked at, or the plan is refused.
    pub fn plan(&self, answer: &Loaded) -> Result<Plan> {
        let verified = self.medium.metadata(None)?;
        plan(&self.inventory()?, answer, &verified.release)
    }
}

/// A plan whose refusal is told as a refusal.
///
/// # Errors
/// Every reason why nothing is done.
pub fn plan(inventory: &Inventory, answer: &Loaded, release: &ReleaseFacts) -> Result<Plan> {
    Plan::new(inventory, &answer.answer, release).map_err(refused)
}

fn refused(error: PlanError) -> anyhow::Error {
    anyhow::Error::new(Refused(error.to_string()))
}

/// Installs. When it returns an error, the disk is as it was before, or does not boot.
///
/// # Errors
/// The first step that fails.
pub fn install(setup: &Setup, answer: &Loaded, reporter: &mut Reporter) -> Result<Outcome> {
    let memory = Memory::default();
    reporter.add(memory.clone());
    let staging = Staging::new(&setup.work)?;
    let mut state = State::new(&staging.own);
    let datastore = state.directory(layout::DATASTORE, 0o755)?;
    let (mut verified, policy) = reporter.step(Step::VerifyMedium, |running| {
        let verified = setup.medium.verify(Some(&datastore), running)?;
        let policy = sovereigns::pin(&mut state, answer, verified.pinned_root())?;
        Ok((verified, policy))
    })?;
    let inventory = reporter.step(Step::Inventory, |running| {
        let inventory = setup.inventory()?;
        running.detail(format!(
            "{}: {} disks, {} network cards, {} memory",
            inventory.product_words(),
            inventory.disks.len(),
            inventory.cards.len(),
            inventory::human_size(inventory.memory)
        ));
        Ok(inventory)
    })?;
    let plan = reporter.step(Step::Plan, |running| {
        let plan = plan(&inventory, answer, &verified.release)?;
        for line in plan.lines() {
            running.say(line);
        }
        if matches!(plan.secure_boot, SecureBootPlan::Enrol | SecureBootPlan::Enforced) {
            let mut image = Vec::new();
            verified.fetch(Part::Xen, &mut image, |_| {})?;
            firmware::check(&setup.medium.trust, &image)?;
        }
        running.detail(plan.disk.title());
        Ok(plan)
    })?;
    let _alone = alone_with(&plan.disk.path)?;
    let read_back = write_slot(&plan, &mut verified, reporter)?;
    let enrolled = enrol(setup, &plan, reporter)?;
    let boot_entry = boot_entry(setup, &plan, reporter)?;
    let target = Target::open(&plan.disk.path)?;
    let record = reporter.step(Step::WriteState, |running| {
        fill(&mut state, &plan, answer)?;
        let record = Record {
            format: 1,
            installer: concat!("bastide-install ", env!("CARGO_PKG_VERSION")).into(),
            time: clock::now(),
            answer_sha256: answer.sha256,
            inventory,
            plan: plan.clone(),
            trail: verified.trail().clone(),
            openpgp_signers: verified.signers.clone(),
            policy,
            read_back,
            enrolled,
            boot_entry,
            events: memory.events(),
            host_key: String::new(),
        };
        drop(verified);
        let signed = record::sign(record, &mut state)?;
        disk::write_state(&plan, &target, &state)?;
        running.detail(format!("host key {}", signed.fingerprint));
        Ok(signed)
    })?;
    reporter.step(Step::BootFiles, |running| {
        let expected = plan.release.part(Part::Xen).map_err(refused)?.sha256;
        let esp = Esp::of(&plan, &target)?;
        esp.activate()?;
        esp.compare_active(expected)?;
        running.detail(format!("{} boots release {}", plan.disk.title(), plan.release.version));
        Ok(())
    })?;
    Ok(Outcome { plan, record })
}

/// One installation at a time onto a disk: two would each write a part of what boots.
fn alone_with(disk: &Path) -> Result<durable::Lock> {
    let name = disk.file_name().unwrap_or(disk.as_os_str());
    let place = Path::new(DISK_LOCKS).join(name);
    fs::create_dir_all(&place)
        .and_then(|()| durable::Lock::take(&place))
        .with_context(|| format!("cannot take the disk {} for this installation", disk.display()))
}

fn write_slot(plan: &Plan, verified: &mut Verified, reporter: &mut Reporter) -> Result<Vec<ReadBack>> {
    let path = &plan.disk.path;
    reporter.step(Step::Erase, |running| disk::erase(&plan.disk, running))?;
    reporter.step(Step::Partition, |running| {
        running.detail(format!("{} partitions", plan.partitions.len()));
        disk::partition(plan)
    })?;
    let target = Target::open(path)?;
    let mut ranges = Vec::new();
    for (step, part, name) in [
        (Step::WriteRoot, Part::Root, Slot::A.root_name()),
        (Step::WriteVerity, Part::Verity, Slot::A.verity_name()),
    ] {
        let partition = plan
            .partition(name)
            .with_context(|| format!("the plan has no {name}"))?;
        let file = reporter.step(step, |running| {
            let size = plan.release.part(part).map_err(refused)?.size;
            let mut region = target.region(partition.start, partition.size);
            let file = verified.fetch(part, &mut region, |done| running.progress(done, size))?;
            target.sync()?;
            running.detail(format!("{} bytes, sha256 {}", file.size, file.sha256));
            Ok(file)
        })?;
        ranges.push((name, partition.start, file));
    }
    let esp = Esp::of(plan, &target)?;
    let image = reporter.step(Step::WriteBoot, |running| {
        let mut image = Vec::new();
        let file = verified.fetch(Part::Xen, &mut image, |_| {})?;
        esp.format()?;
        esp.write_inactive(&image)?;
        running.detail(format!("{} bytes, sha256 {}", file.size, file.sha256));
        Ok(file)
    })?;
    reporter.step(Step::ReadBack, |running| {
        let total = ranges.iter().map(|(_, _, file)| file.size).sum::<u64>();
        let mut before = 0;
        let mut found = Vec::new();
        for (name, start, file) in &ranges {
            target.compare(name, *start, file.size, file.sha256, |done| {
                running.progress(before + done, total);
            })?;
            before += file.size;
            found.push(ReadBack {
                what: (*name).to_owned(),
                size: file.size,
                sha256: file.sha256,
            });
        }
        esp.compare_inactive(image.sha256)?;
        found.push(ReadBack {
            what: Slot::A.boot_image().to_owned(),
            size: image.size,
            sha256: image.sha256,
        });
        running.detail("every byte is on the disk as it was signed");
        Ok(found)
    })
}

fn enrol(setup: &Setup, plan: &Plan, reporter: &mut Reporter) -> Result<Vec<String>> {
    reporter.step(Step::EnrolKeys, |running| match plan.secure_boot {
        SecureBootPlan::Enrol => {
            let enrolled = firmware::enrol(&setup.medium.trust, &setup.efi.join("efivars"))?;
            let later = if enrolled.still_setup_mode {
                "; the firmware tells setup mode until it restarts"
            } else {
                ""
            };
            running.detail(format!("wrote {}{later}", enrolled.written.join(", ")));
            Ok(enrolled.written)
        }
        SecureBootPlan::Enforced => {
            running.detail("Secure Boot is enforced already");
            Ok(Vec::new())
        }
        SecureBootPlan::Leave => {
            running.detail("the firmware's keys stay as they are, and Secure Boot is not enforced");
            Ok(Vec::new())
        }
        SecureBootPlan::OtherMachine => {
            running.detail("not looked at: another machine");
            Ok(Vec::new())
        }
    })
}

/// The entry of slot A, first in the boot order. A firmware that cannot keep one still finds the fallback name.
fn boot_entry(setup: &Setup, plan: &Plan, reporter: &mut Reporter) -> Result<Option<String>> {
    reporter.step(Step::BootEntry, |running| {
        disk::reread(&plan.disk.path);
        if setup.other_machine || !firmware::writable(&setup.efi.join("efivars")) {
            running.detail("no entry: the firmware's variables are not here; it finds the fallback name");
            return Ok(None);
        }
        let table = Table::read(&plan.disk.path)?;
        let manager = BootManager::new(Path::new("efibootmgr"));
        // Entries of an installation before this one point to partitions that are gone.
        for slot in Slot::ALL {
            manager.remove(slot)?;
        }
        manager.put_first(&table, Slot::A)?;
        running.detail(format!("{:?} is first in the boot order", Slot::A.boot_label()));
        Ok(Some(Slot::A.boot_label().to_owned()))
    })
}

/// The host's own files: what the slots hold, the answer, and what the answer configures.
fn fill(state: &mut State, plan: &Plan, answer: &Loaded) -> Result<()> {
    let slots = Slots::installed(plan.release.version, plan.release.root_hash);
    let mut text = serde_json::to_vec_pretty(&slots)?;
    text.push(b'\n');
    state.file(layout::SLOTS_FILE, &text, 0o644)?;
    state.file(layout::ANSWER_FILE, &answer.bytes, 0o600)?;
    state.directory("/state/root", 0o700)?;
    for upper in [layout::OVERLAY_ETC, layout::OVERLAY_VAR] {
        state.directory(upper, 0o755)?;
    }
    let etc = |name: &str| format!("{}/{name}", layout::OVERLAY_ETC);
    let hostname = &answer.answer.network.hostname;
    state.file(&etc("hostname"), format!("{hostname}\n").as_bytes(), 0o644)?;
    state.file(
        &etc("hosts"),
        format!("127.0.0.1 localhost\n127.0.1.1 {hostname}\n::1 localhost ip6-localhost\n").as_bytes(),
        0o644,
    )?;
    for (name, text) in network::render(&answer.answer) {
        state.file(&etc(&format!("{}/{name}", network::DIRECTORY)), text.as_bytes(), 0o644)?;
    }
    if let Some(text) = network::resolv_conf(&answer.answer) {
        state.file(&etc("resolv.conf"), text.as_bytes(), 0o644)?;
    }
    let keys: String = answer
        .answer
        .admin
        .ssh_keys
        .iter()
        .map(|key| format!("{key}\n"))
        .collect();
    if !keys.is_empty() {
        state.file(&etc("ssh/authorized_keys.d/root"), keys.as_bytes(), 0o644)?;
    }
    // The clients' locks belong to this run and not to the host.
    for datastore in [layout::DATASTORE, layout::SITE_DATASTORE] {
        let lock = state.place(datastore)?.join(".lock");
        if lock.exists() {
            fs::remove_file(&lock).with_context(|| format!("cannot remove {}", lock.display()))?;
        }
    }
    Ok(())
}

/// The directory of the state's files before they are on the disk: it holds the host's key and goes with the run. It lies
/// in the place that the user named, under a name of its own: what else is there stays.
struct Staging {
    own: PathBuf,
    /// The named place, where this run made it.
    made: Option<PathBuf>,
}

impl Staging {
    fn new(place: &Path) -> Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let own = place.join("bastide-install");
        let context = || format!("cannot make the work directory {}", own.display());
        let made = (!place.exists()).then(|| place.to_path_buf());
        if own.exists() {
            fs::remove_dir_all(&own).with_context(context)?;
        }
        fs::create_dir_all(place).with_context(context)?;
        fs::DirBuilder::new().mode(0o700).create(&own).with_context(context)?;
        Ok(Self { own, made })
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.own));
        if let Some(place) = &self.made {
            drop(fs::remove_dir(place));
        }
    }
}
