// SPDX-License-Identifier: GPL-3.0-or-later
//! Small Linux guests from the image's own kernel: enough to see that guests run, and to hear them.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use signing::durable;
use signing::output::Refused;
use signing::process::Cmd;

use crate::layout;
use crate::probe::{self, Answer};

/// Seconds that the toolstack may take for one order.
const PATIENCE: u32 = 120;
/// How much of a console is shown.
const CONSOLE_END: u64 = 256 << 10;

/// How a guest is virtualised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Paravirtualised: runs on every machine that runs Xen.
    Pv,
    /// In hardware-assisted containers of its own: needs nested page tables.
    Pvh,
}

/// A guest to be started.
#[derive(Debug, Clone)]
pub struct Guest {
    /// Its name.
    pub name: String,
    /// How it is virtualised.
    pub kind: Kind,
    /// Memory in MiB.
    pub memory: u32,
    /// Virtual processors.
    pub cpus: u32,
    /// Its kernel.
    pub kernel: PathBuf,
    /// Its initrd.
    pub initrd: PathBuf,
    /// More kernel arguments.
    pub arguments: String,
}

/// A running domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Domain {
    /// Its name.
    pub name: String,
    /// Its number.
    pub id: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Virtual processors.
    pub cpus: u32,
    /// Its state as Xen shows it.
    pub state: String,
}

/// Where guests' files are.
pub struct Places {
    /// Configurations of running guests.
    pub configurations: PathBuf,
    /// Consoles, as xenconsoled writes them.
    pub consoles: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            configurations: "/run/bastide/guests".into(),
            consoles: "/var/log/xen/console".into(),
        }
    }
}

/// A name that is a file name and no option.
///
/// # Errors
/// When it is not.
pub fn checked_name(name: &str) -> Result<String> {
    let ok = !name.is_empty()
        && name.len() <= 40
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        && name != "Domain-0";
    if ok {
        return Ok(name.to_owned());
    }
    bail!(
        "{name:?} is not a guest's name: use up to 40 letters, digits, '-', '_' and '.', and begin with a letter or digit"
    )
}

/// The kernel of the image: the guest directory's own, or the newest of `/boot`.
///
/// # Errors
/// When there is none.
pub fn default_kernel() -> Result<PathBuf> {
    let own = Path::new(layout::GUEST_DIRECTORY).join("vmlinuz");
    if own.exists() {
        return Ok(own);
    }
    let mut kernels: Vec<PathBuf> = fs::read_dir("/boot")
        .context("cannot look for a kernel in /boot")?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-"))
        })
        .collect();
    kernels.sort();
    kernels
        .pop()
        .context("there is no kernel in /boot: name one with --kernel")
}

impl Guest {
    /// The configuration for `xl`. Values were checked or are quoted; a quote cannot be written in one.
    ///
    /// # Errors
    /// When a value cannot be written.
    pub fn configuration(&self) -> Result<String> {
        let quoted = |what: &str, value: &str| {
            if value.chars().any(|c| c == '"' || c == '\\' || c.is_control()) {
                bail!(
                    "the {what} {value:?} cannot be written into a configuration: it has a quote or a control character"
                );
            }
            Ok(format!("\"{value}\""))
        };
        let kind = match self.kind {
            Kind::Pv => "pv",
            Kind::Pvh => "pvh",
        };
        let arguments = format!("console=hvc0 {}", self.arguments);
        Ok(format!(
            "name = {}\ntype = \"{kind}\"\nkernel = {}\nramdisk = {}\nextra = {}\nmemory = {}\nvcpus = {}\n\
             on_poweroff = \"destroy\"\non_reboot = \"destroy\"\non_crash = \"destroy\"\n",
            quoted("name", &self.name)?,
            quoted("kernel", &self.kernel.to_string_lossy())?,
            quoted("initrd", &self.initrd.to_string_lossy())?,
            quoted("arguments", arguments.trim_end())?,
            self.memory,
            self.cpus,
        ))
    }

    /// Starts it.
    ///
    /// # Errors
    /// A refusal when a guest of this name runs; else when a file is missing or the toolstack fails.
    pub fn run(&self, places: &Places) -> Result<Domain> {
        for (what, path) in [("kernel", &self.kernel), ("initrd", &self.initrd)] {
            let opened = fs::File::open(path).and_then(|file| file.metadata());
            let opened = opened.with_context(|| format!("cannot open the guest's {what} {}", path.display()))?;
            if opened.is_dir() {
                bail!("the guest's {what} {} is a directory: name a file", path.display());
            }
        }
        if list()?.iter().any(|domain| domain.name == self.name) {
            bail!(Refused(format!("a guest {} runs already: stop it first", self.name)));
        }
        fs::create_dir_all(&places.configurations)
            .and_then(|()| fs::create_dir_all(&places.consoles))
            .context("cannot make the guests' directories")?;
        let place = places.configurations.join(format!("{}.cfg", self.name));
        durable::write(&place, self.configuration()?.as_bytes())
            .with_context(|| format!("cannot write {}", place.display()))?;
        Cmd::new("timeout")
            .args(["--kill-after=5", &PATIENCE.to_string(), "xl", "create"])
            .arg(&place)
            .run()
            .with_context(|| format!("cannot start the guest {}", self.name))?;
        list()?
            .into_iter()
            .find(|domain| domain.name == self.name)
            .with_context(|| {
                format!(
                    "the guest {} ended at once: see `bastide-host guest log {}`",
                    self.name, self.name
                )
            })
    }
}

/// The running domains.
///
/// # Errors
/// When the toolstack does not answer.
pub fn list() -> Result<Vec<Domain>> {
    match probe::ask("xl", &["list"], 20) {
        Answer::Said(text) => Ok(parse_list(&text)),
        Answer::Failed(why) | Answer::Missing(why) => bail!("cannot list the guests: {why}"),
    }
}

fn parse_list(text: &str) -> Vec<Domain> {
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let [name, id, memory, cpus, state, ..] = words.as_slice() else {
                return None;
            };
            Some(Domain {
                name: (*name).to_owned(),
                id: id.parse().ok()?,
                memory_mib: memory.parse().ok()?,
                cpus: cpus.parse().ok()?,
                state: state.replace('-', ""),
            })
        })
        .collect()
}

/// Stops a guest: asks it to shut down, and takes it away when it does not.
///
/// # Errors
/// When there is none of this name, or the toolstack fails.
pub fn stop(name: &str, places: &Places) -> Result<()> {
    let runs = || Ok::<_, anyhow::Error>(list()?.iter().any(|domain| domain.name == name));
    if !runs()? {
        bail!("no guest {name} runs");
    }
    let asked = probe::ask("xl", &["shutdown", "-w", name], 30);
    if !matches!(asked, Answer::Said(_)) || runs()? {
        Cmd::new("timeout")
            .args(["--kill-after=5", &PATIENCE.to_string(), "xl", "destroy", name])
            .run()
            .with_context(|| format!("cannot stop the guest {name}"))?;
    }
    // Only the configuration goes: the console stays for whoever asks why.
    drop(fs::remove_file(places.configurations.join(format!("{name}.cfg"))));
    Ok(())
}

fn runs(name: &str) -> bool {
    list().is_ok_and(|domains| domains.iter().any(|domain| domain.name == name))
}

/// Copies the end of a guest's console.
///
/// # Errors
/// When nothing was recorded.
pub fn log(name: &str, places: &Places, to: &mut dyn Write) -> Result<()> {
    let place = places.consoles.join(format!("guest-{name}.log"));
    let what = || format!("cannot read the console of {name} in {}", place.display());
    let mut file = match fs::File::open(&place) {
        // A guest that runs and has said nothing yet.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && runs(name) => return Ok(()),
        file => file.with_context(what)?,
    };
    let length = file.metadata().with_context(what)?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(CONSOLE_END)))
        .with_context(what)?;
    std::io::copy(&mut file.take(CONSOLE_END), to)?;
    Ok(())
}

/// A terminal for what a guest wrote: the guest is not trusted, and an escape sequence would let it write over what the
/// administrator has read, or answer in their name.
pub struct Harmless<W>(pub W);

impl<W: Write> Write for Harmless<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let plain = |byte: &u8| matches!(byte, b' '..=b'~' | b'\n' | b'\t');
        // Consoles end their lines with both characters of old.
        let shown = bytes.iter().filter(|byte| **byte != b'\r');
        let shown: Vec<u8> = shown.map(|byte| if plain(byte) { *byte } else { b'?' }).collect();
        self.0.write_all(&shown)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiny() -> Guest {
        Guest {
            name: "tiny".into(),
            kind: Kind::Pv,
            memory: 128,
            cpus: 1,
            kernel: "/boot/vmlinuz".into(),
            initrd: "/usr/share/bastide/guest/initrd.img".into(),
            arguments: "quiet".into(),
        }
    }

    #[test]
    fn writes_a_configuration() {
        let text = tiny().configuration().unwrap();
        assert!(
            text.contains("name = \"tiny\"\ntype = \"pv\"\nkernel = \"/boot/vmlinuz\"\n"),
            "{text}"
        );
        assert!(
            text.contains("extra = \"console=hvc0 quiet\"\nmemory = 128\nvcpus = 1\n"),
            "{text}"
        );
    }

    #[test]
    fn a_guest_cannot_move_the_cursor_of_who_reads_its_console() {
        let mut shown = Harmless(Vec::new());
        let said = b"boot\r\n\x1b]0;root@host\x07\x1b[2J\xc2\x9b1A\tok\n";
        std::io::copy(&mut said.as_slice(), &mut shown).unwrap();
        assert_eq!(
            String::from_utf8(shown.0).unwrap(),
            "boot\n?]0;root@host??[2J??1A\tok\n"
        );
    }

    #[test]
    fn a_directory_is_no_kernel() {
        let directory = tempfile::tempdir().unwrap();
        let guest = Guest {
            kernel: directory.path().into(),
            ..tiny()
        };
        let error = guest.run(&Places::default()).unwrap_err().to_string();
        assert!(error.contains("kernel") && error.contains("is a directory"), "{error}");
    }

    #[test]
    fn a_value_cannot_leave_its_quotes() {
        let guest = Guest {
            arguments: "\"\nvif = [ \"\" ]".into(),
            ..tiny()
        };
        assert!(guest.configuration().is_err());
    }

    #[test]
    fn a_name_is_no_option_and_no_path() {
        for name in ["", "-w", "../up", "a b", "Domain-0", &"x".repeat(41)] {
            assert!(checked_name(name).is_err(), "{name}");
        }
        assert!(checked_name("tiny-1.a").is_ok());
    }

    #[test]
    fn reads_a_recorded_list() {
        let list = "Name                                        ID   Mem VCPUs\tState\tTime(s)\n\
                    Domain-0                                     0   749     1     r-----     101.6\n\
                    tiny                                         1   128     1     -b----       3.0\n";
        let domains = parse_list(list);
        assert_eq!(
            domains[1],
            Domain {
                name: "tiny".into(),
                id: 1,
                memory_mib: 128,
                cpus: 1,
                state: "b".into()
            }
        );
    }

    #[test]
    fn shows_the_end_of_a_console() {
        let directory = tempfile::tempdir().unwrap();
        let places = Places {
            configurations: directory.path().into(),
            consoles: directory.path().into(),
        };
        fs::write(directory.path().join("guest-tiny.log"), "hello from the guest\n").unwrap();
        let mut out = Vec::new();
        log("tiny", &places, &mut out).unwrap();
        assert_eq!(out, b"hello from the guest\n");
        assert!(log("other", &places, &mut out).is_err());
    }
}
