// SPDX-License-Identifier: GPL-3.0-or-later
//! Virtual machines: QEMU with OVMF, Secure Boot capable, a TPM, a serial log, and ssh on the loopback interface.

use std::fs::{self, File};
use std::io::Read;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use signing::process::Cmd;

use crate::accel::Accelerator;
use crate::bridge::{self, Port};

/// The firmware that enforces Secure Boot, from Debian's package `ovmf`.
const FIRMWARE: &str = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd";
/// Its variable store in setup mode: no keys enrolled.
const EMPTY_VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";

/// How the installation medium is plugged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    /// A USB stick.
    Usb,
    /// An optical drive, as a board management controller's virtual media appear.
    Cd,
}

/// A machine that is not running: its disk, its firmware's variables and its directory.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Where its files lie.
    pub directory: PathBuf,
    /// Memory in MiB.
    pub memory: u32,
    /// The accelerator.
    pub accelerator: Accelerator,
}

/// What is plugged in for one power-on.
#[derive(Debug, Default)]
pub struct Plugged<'a> {
    /// The installation medium.
    pub medium: Option<(&'a Path, Medium)>,
    /// Further USB sticks, read-write.
    pub sticks: Vec<&'a Path>,
    /// A second network card, on a bridge with other machines.
    pub port: Option<Port<'a>>,
}

impl Machine {
    /// A bare machine: an empty disk of `gib` GiB and firmware in setup mode.
    ///
    /// # Errors
    /// When its files cannot be made.
    pub fn bare(directory: &Path, gib: u64, accelerator: Accelerator) -> Result<Self> {
        if directory.exists() {
            fs::remove_dir_all(directory)?;
        }
        fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
        let machine = Self {
            directory: directory.to_path_buf(),
            memory: 4096,
            accelerator,
        };
        Cmd::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2"])
            .arg(machine.disk())
            .arg(format!("{gib}G"))
            .run()?;
        fs::copy(EMPTY_VARIABLES, machine.variables()).with_context(|| format!("copying {EMPTY_VARIABLES}"))?;
        Ok(machine)
    }

    /// A copy of this machine as it stands, switched off: its disk is an overlay on this one's.
    ///
    /// # Errors
    /// When its files cannot be made.
    pub fn branch(&self, directory: &Path) -> Result<Self> {
        if directory.exists() {
            fs::remove_dir_all(directory)?;
        }
        fs::create_dir_all(directory)?;
        let machine = Self {
            directory: directory.to_path_buf(),
            ..self.clone()
        };
        Cmd::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"])
            .arg(fs::canonicalize(self.disk())?)
            .arg(machine.disk())
            .run()?;
        fs::copy(self.variables(), machine.variables())?;
        Ok(machine)
    }

    /// The disk's image.
    #[must_use]
    pub fn disk(&self) -> PathBuf {
        self.directory.join("disk.qcow2")
    }

    fn variables(&self) -> PathBuf {
        self.directory.join("variables.fd")
    }

    /// Switches the machine on.
    ///
    /// # Errors
    /// When QEMU or the TPM does not start.
    pub fn power_on(&self, name: &str, plugged: &Plugged<'_>) -> Result<Running> {
        self.power_on_at(name, plugged, "utc")
    }

    /// As [`Machine::power_on`], with another time on the machine's clock, as in `2012-01-01T00:00:00`.
    ///
    /// # Errors
    /// When QEMU or the TPM does not start.
    pub fn power_on_at(&self, name: &str, plugged: &Plugged<'_>, clock: &str) -> Result<Running> {
        let serial = self.directory.join(format!("{name}.serial.log"));
        File::create(&serial)?;
        let port = free_port()?;
        let tpm = Tpm::start(&self.directory)?;
        let namespace = plugged.port.map(|port| port.namespace().to_owned());
        let mut cmd = bridge::within(namespace.as_deref(), "qemu-system-x86_64")
            .args(["-nodefaults", "-display", "none", "-machine", "q35,smm=on", "-smp", "2"])
            .args(self.accelerator.arguments())
            .args(["-m", &self.memory.to_string()])
            .args(["-global", "driver=cfi.pflash01,property=secure,value=on"])
            .args(["-global", "ICH9-LPC.disable_s3=1"])
            .args([
                "-drive",
                &format!("if=pflash,format=raw,unit=0,readonly=on,file={FIRMWARE}"),
            ])
            .args([
                "-drive",
                &format!("if=pflash,format=raw,unit=1,file={}", self.variables().display()),
            ])
            .args([
                "-drive",
                &format!(
                    "if=none,id=disk,format=qcow2,cache=unsafe,file={}",
                    self.disk().display()
                ),
            ])
            .args(["-device", "nvme,drive=disk,serial=BASTIDE-DISK-1,bootindex=2"])
            .args(["-device", "qemu-xhci,id=xhci"])
            // Nothing of the machine reaches a network: only the test's own connections to ssh come in.
            .args([
                "-netdev",
                &format!("user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{port}-10.0.2.15:22"),
            ])
            .args(["-device", "virtio-net-pci,netdev=net,mac=52:54:00:ba:57:1d,romfile="])
            .args([
                "-object",
                "rng-random,id=rng,filename=/dev/urandom",
                "-device",
                "virtio-rng-pci,rng=rng",
            ])
            .args(["-chardev", &format!("socket,id=tpm,path={}", tpm.socket.display())])
            .args([
                "-tpmdev",
                "emulator,id=tpm0,chardev=tpm",
                "-device",
                "tpm-crb,tpmdev=tpm0",
            ])
            .args(["-device", "VGA"])
            .args(["-rtc", &format!("base={clock}")])
            .args(["-serial", &format!("file:{}", serial.display())]);
        if let Some((image, medium)) = plugged.medium {
            let readonly = if medium == Medium::Cd { "on" } else { "off" };
            cmd = cmd.args([
                "-drive",
                &format!(
                    "if=none,id=medium,format=raw,snapshot=on,readonly={readonly},file={}",
                    image.display()
                ),
            ]);
            cmd = match medium {
                Medium::Usb => cmd.args([
                    "-device",
                    "usb-storage,drive=medium,bus=xhci.0,serial=MEDIUM,bootindex=1",
                ]),
                Medium::Cd => cmd.args(["-device", "ide-cd,drive=medium,bus=ide.0,bootindex=1"]),
            };
        }
        for (index, stick) in plugged.sticks.iter().enumerate() {
            cmd = cmd
                .args([
                    "-drive",
                    &format!("if=none,id=stick{index},format=raw,file={}", stick.display()),
                ])
                .args([
                    "-device",
                    &format!("usb-storage,drive=stick{index},bus=xhci.0,serial=STICK{index}"),
                ]);
        }
        if let Some(port) = plugged.port {
            cmd = cmd.args(port.arguments());
        }
        let log = File::create(self.directory.join(format!("{name}.qemu.log")))?;
        let child = cmd.spawn(Stdio::from(log.try_clone()?), Stdio::from(log))?;
        Ok(Running {
            child,
            _tpm: tpm,
            serial,
            port,
            namespace,
            since: Instant::now(),
        })
    }
}

/// A machine that is switched on. Dropping it cuts the power.
pub struct Running {
    child: Child,
    _tpm: Tpm,
    /// What came over the serial console.
    pub serial: PathBuf,
    port: u16,
    namespace: Option<String>,
    /// When it was switched on.
    pub since: Instant,
}

impl Running {
    /// Waits until the serial console has said `text`.
    ///
    /// # Errors
    /// When the machine ends or the time is over; the end of the console is quoted.
    pub fn wait_for(&mut self, text: &str, limit: Duration) -> Result<()> {
        self.wait_for_times(text, 1, limit)
    }

    /// Waits until the serial console has said `text` that often.
    ///
    /// # Errors
    /// As [`Running::wait_for`].
    pub fn wait_for_times(&mut self, text: &str, times: usize, limit: Duration) -> Result<()> {
        self.wait_until(&format!("{text:?}"), limit, |console| {
            console.matches(text).count() >= times
        })
    }

    fn wait_until(&mut self, what: &str, limit: Duration, said: impl Fn(&str) -> bool) -> Result<()> {
        let start = Instant::now();
        loop {
            let ended = self.child.try_wait()?.is_some();
            let console = self.console()?;
            if said(&console) {
                return Ok(());
            }
            ensure!(!ended, "the machine ended before it said {what}: {}", self.end());
            ensure!(
                start.elapsed() < limit,
                "the console did not say {what} in {limit:?}: {}",
                self.end()
            );
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// Waits until the firmware has found nothing to start: it says so, or falls back to its own shell.
    ///
    /// # Errors
    /// As [`Running::wait_for`].
    pub fn wait_for_nothing_to_boot(&mut self, limit: Duration) -> Result<()> {
        self.wait_until("that there is nothing to boot", limit, |console| {
            ["No bootable option or device was found", "UEFI Interactive Shell"]
                .iter()
                .any(|text| console.contains(text))
        })
    }

    /// Waits until the machine switches itself off.
    ///
    /// # Errors
    /// When the time is over.
    pub fn wait_for_power_off(&mut self, limit: Duration) -> Result<()> {
        let start = Instant::now();
        while self.child.try_wait()?.is_none() {
            ensure!(
                start.elapsed() < limit,
                "the machine did not switch itself off in {limit:?}: {}",
                self.end()
            );
            std::thread::sleep(Duration::from_millis(500));
        }
        Ok(())
    }

    /// Cuts the power.
    ///
    /// # Errors
    /// When the process cannot be ended.
    pub fn cut_power(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// What the serial console said so far.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn console(&self) -> Result<String> {
        let mut bytes = Vec::new();
        File::open(&self.serial)?.take(64 << 20).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The end of the serial console, and where the whole lies.
    #[must_use]
    pub fn end(&self) -> String {
        let console = self.console().unwrap_or_default();
        let lines: Vec<_> = console.lines().collect();
        format!(
            "\n{}\n(whole console: {})",
            lines[lines.len().saturating_sub(15)..].join("\n"),
            self.serial.display()
        )
    }

    /// Waits until ssh answers.
    ///
    /// # Errors
    /// When the machine ends or the time is over.
    pub fn wait_for_ssh(&mut self, key: &Path, limit: Duration) -> Result<()> {
        let start = Instant::now();
        loop {
            if self.ssh(key, "true").is_ok_and(|answer| answer.code == 0) {
                return Ok(());
            }
            ensure!(
                self.child.try_wait()?.is_none(),
                "the machine ended before ssh answered: {}",
                self.end()
            );
            ensure!(
                start.elapsed() < limit,
                "ssh did not answer in {limit:?}: {}",
                self.end()
            );
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    /// Runs a command on the machine as its administrator.
    ///
    /// # Errors
    /// When ssh itself cannot be run or cannot connect (its code 255).
    pub fn ssh(&self, key: &Path, command: &str) -> Result<Answer> {
        let (status, stdout, stderr) = bridge::within(self.namespace.as_deref(), "ssh")
            .args([
                "-F",
                "none",
                "-o",
                "BatchMode=yes",
                "-o",
                "StrictHostKeyChecking=no",
                "-o",
                "LogLevel=ERROR",
            ])
            .args([
                "-o",
                "UserKnownHostsFile=/dev/null",
                "-o",
                "ConnectTimeout=10",
                "-o",
                "ServerAliveInterval=15",
            ])
            .arg("-i")
            .arg(key)
            .args(["-p", &self.port.to_string(), "root@127.0.0.1", command])
            .status()?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim_end().to_owned();
        let answer = Answer {
            code: status.code().unwrap_or(255),
            stdout: text(stdout),
            stderr: text(stderr),
        };
        if answer.code == 255 {
            bail!("ssh could not run `{command}`: {}", answer.stderr);
        }
        Ok(answer)
    }

    /// Runs a command that must succeed and returns what it printed.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub fn must(&self, key: &Path, command: &str) -> Result<String> {
        let answer = self.ssh(key, command)?;
        ensure!(
            answer.code == 0,
            "`{command}` ended with {}: {}\n{}",
            answer.code,
            answer.stderr,
            answer.stdout
        );
        Ok(answer.stdout)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Already ended is as good as ended now.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// How a command on the machine ended.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// A software TPM, ended with the machine.
struct Tpm {
    child: Child,
    socket: PathBuf,
}

impl Tpm {
    fn start(directory: &Path) -> Result<Self> {
        let state = directory.join("tpm");
        fs::create_dir_all(&state)?;
        // A socket's path is limited to 107 bytes, which a deep checkout would exceed.
        let socket = std::env::temp_dir().join(format!("bastide-tpm-{}-{}", std::process::id(), free_port()?));
        let child = Cmd::new("swtpm")
            .args(["socket", "--tpm2", "--tpmstate"])
            .arg(format!("dir={}", state.display()))
            .arg("--ctrl")
            .arg(format!("type=unixio,path={}", socket.display()))
            .spawn(Stdio::null(), Stdio::null())?;
        let start = Instant::now();
        while !socket.exists() {
            ensure!(start.elapsed() < Duration::from_secs(10), "swtpm did not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(Self { child, socket })
    }
}

impl Drop for Tpm {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        drop(fs::remove_file(&self.socket));
    }
}

/// A port of the loopback interface that nobody listens at.
///
/// # Errors
/// When there is none.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
