// SPDX-License-Identifier: GPL-3.0-or-later
//! Hardware virtualisation where it works, software emulation elsewhere.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Result;
use signing::process::Cmd;

/// What runs the machine's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// The processor, through KVM.
    Kvm,
    /// QEMU's emulation.
    Tcg,
}

impl Accelerator {
    /// Chooses by trying: `/dev/kvm` exists on machines where it cannot run firmware, so its presence proves nothing.
    ///
    /// # Errors
    /// When QEMU cannot be started at all.
    pub fn detect() -> Result<Self> {
        if !Path::new("/dev/kvm").exists() {
            return Ok(Self::Tcg);
        }
        let directory = tempfile::tempdir()?;
        let log = directory.path().join("log");
        let variables = directory.path().join("variables.fd");
        std::fs::copy("/usr/share/OVMF/OVMF_VARS_4M.fd", &variables)?;
        let file = std::fs::File::create(&log)?;
        let mut child = Cmd::new("qemu-system-x86_64")
            .args([
                "-accel",
                "kvm",
                "-nodefaults",
                "-display",
                "none",
                "-machine",
                "q35",
                "-m",
                "256",
            ])
            .args([
                "-drive",
                "if=pflash,format=raw,unit=0,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd",
            ])
            .args([
                "-drive",
                &format!("if=pflash,format=raw,unit=1,file={}", variables.display()),
            ])
            .spawn(Stdio::from(file.try_clone()?), Stdio::from(file))?;
        std::thread::sleep(Duration::from_secs(3));
        let ended = child.try_wait()?.is_some();
        drop(child.kill());
        child.wait()?;
        let said = std::fs::read_to_string(&log)?;
        Ok(if ended || said.contains("KVM internal error") {
            Self::Tcg
        } else {
            Self::Kvm
        })
    }

    /// QEMU's arguments for it.
    #[must_use]
    pub const fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Kvm => &["-accel", "kvm", "-cpu", "host"],
            // QEMU before 9.1 emulates SMAP wrongly for a paravirtual dom0, which dies at its first instruction. QEMU 7.2
            // loses extended registers when Xen switches between domains with XSAVE: programs abort at random while a
            // guest runs, with AVX hidden less often, without XSAVE never seen.
            Self::Tcg => &["-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max,-smap,-xsave"],
        }
    }
}
