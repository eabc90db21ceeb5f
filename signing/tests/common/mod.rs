// SPDX-License-Identifier: GPL-3.0-or-later
//! What the command line tests of every program are made of: running it, breaking what it stands on, and one site.
//! The other crates take this module in by its path, so that no program is tested by milder rules than the next.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use serde_json::Value;
use signing::clock::now;
use signing::digest::{Hasher, Sha256};
use signing::durable::Lock;
use signing::keys::Passphrase;
use signing::openpgp::{self, OpenPgpKey};
use signing::process::Cmd;
use signing::receipt::{Holder, HostState, Receipt};
use signing::site::{Officer, Plan, RootOrigin, Site};

/// The passphrase of all keys.
pub const SECRET: &str = "correct horse battery staple";

/// What a program said.
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Said {
    /// Runs to the end. No run may panic or give the passphrase away.
    pub fn of(cmd: Cmd) -> Self {
        let (status, out, err) = cmd.status().unwrap();
        let said = Self {
            code: status.code(),
            out: String::from_utf8(out).unwrap(),
            err: String::from_utf8(err).unwrap(),
        };
        assert!(!said.err.contains("panicked"), "{}", said.err);
        assert!(!said.err.contains(SECRET) && !said.out.contains(SECRET));
        said
    }

    /// Asserts the exit code.
    pub fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "out: {}\nerr: {}", self.out, self.err);
        self
    }

    /// Asserts success and gives the output.
    pub fn ok(self) -> String {
        self.ends(0).out
    }

    /// Asserts a failure that names its reasons.
    pub fn fails(self, code: i32, reasons: &[&str]) {
        let said = self.ends(code);
        for reason in reasons {
            assert!(said.err.contains(reason), "{reason:?} is not in {:?}", said.err);
        }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap()
    }
}

/// A command line in a directory; the arguments are split at spaces.
pub fn command(program: &str, directory: &Path, line: &str) -> Cmd {
    Cmd::new(program).args(line.split_whitespace()).dir(directory)
}

/// A command of a program and its help.
pub struct Help {
    pub command: String,
    /// The examples, without the program's name; a line that ends with a backslash goes on.
    pub examples: Vec<String>,
}

/// The help of every command of a program, found as a user finds it: from the first help on. Each fits a terminal of 80
/// columns and has examples, and all commands but these print JSON; the first help tells the exit codes.
pub fn helps(program: &str, without_json: &[&str]) -> Vec<Help> {
    let name = Path::new(program).file_name().unwrap().to_str().unwrap();
    let mut waiting = vec![String::new()];
    let mut found = Vec::new();
    while let Some(command) = waiting.pop() {
        let text = Said::of(Cmd::new(program).args(command.split_whitespace()).arg("--help")).ok();
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{name} {command}: {line}");
        }
        if command.is_empty() {
            assert!(text.contains("Exit status:"), "{name} does not tell its exit codes");
        }
        let (_, examples) = text
            .split_once("Examples:\n")
            .unwrap_or_else(|| panic!("{name} {command} has no examples"));
        let joined = examples.replace("\\\n", " ");
        let lines = joined.lines().map(|line| {
            let line = line.trim();
            line.strip_prefix("sudo ").unwrap_or(line)
        });
        let examples: Vec<String> = lines
            .filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
            .map(|line| line.split(" > ").next().unwrap().replace('"', ""))
            .collect();
        assert!(!examples.is_empty(), "{name} {command} has no examples");
        if let Some((_, commands)) = text.split_once("Commands:\n") {
            let names = commands
                .lines()
                .take_while(|line| !line.is_empty())
                .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
                .filter(|name| !name.is_empty() && *name != "help");
            waiting.extend(names.map(|name| format!("{command} {name}").trim().to_owned()));
        } else {
            let excepted = without_json.contains(&command.as_str());
            assert_ne!(text.contains("--json"), excepted, "{name} {command}");
        }
        found.push(Help { command, examples });
    }
    found
}

/// Runs a program whose reader has gone away before its first word: it ends with 141 and complains of nothing.
pub fn assert_closed_pipe(cmd: Cmd) {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let child = cmd.spawn(Stdio::from(writer), Stdio::piped()).unwrap();
    let ended = child.wait_with_output().unwrap();
    let err = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(141), "{err}");
    assert!(!err.contains("panicked") && !err.contains("ipe"), "{err}");
}

/// Starts a program, which locks this directory, and kills it as soon as `when` is true; false when it ended before.
pub fn killed(cmd: Cmd, locked: &Path, when: impl Fn() -> bool) -> bool {
    let mut child = cmd.spawn(Stdio::null(), Stdio::null()).unwrap();
    while !when() {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        std::thread::yield_now();
    }
    child.kill().unwrap();
    let status = child.wait().unwrap();
    // A process that the killed one was just starting holds a copy of the lock until it executes its program.
    while locked.is_dir() && Lock::take(locked).is_err() {
        std::thread::yield_now();
    }
    // A program that ended in the meantime was not killed.
    status.code().is_none()
}

pub fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// Runs a program as an ordinary user who may read the directory; nothing where the tests themselves run as one.
pub fn as_nobody(program: &str, directory: &Path, line: &str) -> Option<Said> {
    let (_place, cmd) = nobody(program, directory)?;
    Some(Said::of(cmd.args(line.split_whitespace()).dir(directory)))
}

/// As [`as_nobody`], without its arguments; the program lasts as long as its directory, which comes with it.
pub fn nobody(program: &str, directory: &Path) -> Option<(tempfile::TempDir, Cmd)> {
    if !is_root() {
        eprintln!("could not check: only root can become another user");
        return None;
    }
    // The program may lie below a directory that others may not enter. Another process copies it: a test that is just
    // starting one would hold a file open that we write, and the kernel runs no such file.
    let place = tempfile::tempdir().unwrap();
    let copy = place.path().join(Path::new(program).file_name().unwrap());
    Cmd::new("cp").arg(program).arg(&copy).run().unwrap();
    for open in [place.path(), directory] {
        fs::set_permissions(open, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let cmd = Cmd::new("setpriv").args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    Some((place, cmd.arg(copy)))
}

/// Runs a program while the directory `place` is a disk of this size (as tmpfs knows it) with the same files, in a mount
/// namespace of its own. Gives what it said and what was on the disk afterwards; nothing where one may not mount.
pub fn on_small_disk(
    program: &str,
    directory: &Path,
    line: &str,
    place: &Path,
    size: &str,
) -> Option<(Said, BTreeMap<String, Sha256>)> {
    // To root a new user namespace would only be a hindrance: mounts of the outside are locked in it.
    let spaces = if is_root() { "-m" } else { "-rm" };
    let script = "mkdir \"$1.disk\" && mount -t tmpfs -o size=$2 tmpfs \"$1.disk\" && cp -a \"$1/.\" \"$1.disk\" && \
                  mount --move \"$1.disk\" \"$1\" || exit 77; place=$1; shift 2; \"$@\" >&2; code=$?; \
                  cd \"$place\" && find . -type f ! -name .lock -exec sha256sum {} +; exit $code";
    let cmd = Cmd::new("unshare")
        .args([spaces, "--propagation", "private", "sh", "-c", script, "sh"])
        .arg(place)
        .args([size, program])
        .args(line.split_whitespace())
        .dir(directory);
    let said = Said::of(cmd);
    drop(fs::remove_dir(format!("{}.disk", place.display())));
    if said.code == Some(77) {
        eprintln!("could not check: no mount is allowed here: {}", said.err);
        return None;
    }
    let files = said.out.lines().map(|line| {
        let (digest, name) = line.split_once("  ./").unwrap();
        (name.to_owned(), digest.parse().unwrap())
    });
    let files = files.collect();
    Some((said, files))
}

/// The files below a directory and their digests, without locks.
pub fn contents(directory: &Path) -> BTreeMap<String, Sha256> {
    let files = files_below(directory).into_iter();
    files
        .filter(|path| path.is_file() && !path.ends_with(".lock"))
        .map(|path| {
            let name = path.strip_prefix(directory).unwrap().to_str().unwrap().to_owned();
            (name, Sha256::of_file(&path).unwrap().0)
        })
        .collect()
}

pub fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(files_below(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Copies a tree, modes included.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    Cmd::new("cp").arg("-a").arg(from.join(".")).arg(to).run().unwrap();
}

/// A tree as a root file system, made as iso-build makes it; blocks have 4096 bytes by default.
pub fn erofs(tree: &Path) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("image");
    Cmd::new("mkfs.erofs")
        .args(["-d1", "-x2", "-T0", "-Eforce-inode-extended"])
        .args([&image, tree])
        .run()
        .unwrap();
    fs::read(image).unwrap()
}

/// Puts a pipe in the place of a file: who opens it to read waits for a writer.
pub fn pipe(path: &Path) {
    drop(fs::remove_file(path));
    Cmd::new("mkfifo").arg(path).run().unwrap();
}

/// Flips one bit in the middle of a file, in place but not through hard links.
pub fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

/// An ISO cut off where something begins or within it, and at its end by `last` bytes.
pub fn cuts(iso: &[u8], last: usize) -> impl Iterator<Item = &[u8]> {
    let length = iso.len();
    [0, 512, 0x8000, 0x8800, length / 4, length / 2, length - last]
        .into_iter()
        .map(|cut| &iso[..cut])
}

/// A directory of all tests of all crates, not to be changed but copied. `make` fills it: once for each state of the source
/// of these crates, and at least once a month, because what is in it may expire.
pub fn shared(name: &str, crates: &[&str], make: impl FnOnce(&Path)) -> PathBuf {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&place).unwrap();
    // Each test may be a process of its own.
    let lock = fs::File::create(place.join("lock")).unwrap();
    lock.lock().unwrap();
    let (content, mark) = (place.join("content"), place.join("made-by"));
    let mut hasher = Hasher::new();
    for name in crates.iter().chain(&["signing/tests/common"]) {
        for path in files_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)) {
            hasher.update(&fs::read(path).unwrap());
        }
    }
    let source = format!("{} {}", now().format("%Y-%m"), hasher.finish().0);
    if fs::read_to_string(&mark).unwrap_or_default() != source {
        drop(fs::remove_dir_all(&content));
        fs::create_dir(&content).unwrap();
        make(&content);
        fs::write(mark, source).unwrap();
    }
    content
}

/// The site of all tests. Ten key derivations and three RSA keys take seconds.
pub fn site() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let make = |place: &Path| {
            signing::durable::write_private(&place.join("passphrase"), format!("{SECRET}\n").as_bytes()).unwrap();
            make_site(place, "site");
        };
        shared("site", &["signing/src"], make).join("site")
    })
}

/// A second site, a stranger to the first.
pub fn other_site() -> PathBuf {
    let make = |place: &Path| drop(make_site(place, "site"));
    shared("other-site", &["signing/src"], make).join("site")
}

/// Makes a site in a directory.
pub fn make_site(directory: &Path, name: &str) -> PathBuf {
    make_site_with(directory, name, Vec::new())
}

fn make_site_with(directory: &Path, name: &str, officers: Vec<Officer>) -> PathBuf {
    let plan = Plan {
        directory: directory.join(name),
        name: "Test".into(),
        root: RootOrigin::Made {
            keys: 3,
            threshold: 2,
            openpgp_threshold: if officers.is_empty() { 1 } else { 2 },
            expires: now() + Duration::from_secs(700 * 86_400),
        },
        officers,
    };
    let site = signing::site::init(&plan, &passphrase(), now(), &mut |_| ()).unwrap();
    site.directory().to_path_buf()
}

/// A site of which two of three OpenPGP certificates must sign: its release key's, Anna's and Ben's, whose keys lie beside it.
pub fn site_of_officers() -> PathBuf {
    let make = |place: &Path| {
        let officer = |name: &&str| {
            let key = openpgp::generate(name, &passphrase(), now()).unwrap();
            signing::durable::write_private(&officer_key(place, name), key.key.as_bytes()).unwrap();
            let certificate = place.join(format!("{name}.asc"));
            fs::write(&certificate, key.certificate).unwrap();
            Officer::read(&certificate).unwrap()
        };
        make_site_with(place, "site", ["anna", "ben"].iter().map(officer).collect());
    };
    shared("officers", &["signing/src"], make).join("site")
}

fn officer_key(place: &Path, name: &str) -> PathBuf {
    place.join(format!("{name}.openpgp.asc"))
}

/// The signature of an officer of [`site_of_officers`]; nobody's name is its release key's.
pub fn officer_signs(name: Option<&str>, data: &[u8]) -> Vec<u8> {
    let (passphrase, site) = (passphrase(), site_of_officers());
    let key = match name {
        Some(name) => OpenPgpKey::own(&officer_key(site.parent().unwrap(), name), &passphrase),
        None => Site::open(&site).unwrap().release_key(&passphrase),
    };
    key.unwrap().sign_detached(data).unwrap().into_bytes()
}

/// An officer adds a signature to those that are there.
pub fn officer_adds(name: &str, file: &Path, signatures: &Path) {
    let added = officer_signs(Some(name), &fs::read(file).unwrap());
    let joined = openpgp::join(&fs::read(signatures).unwrap(), &added).unwrap();
    fs::write(signatures, joined).unwrap();
}

pub fn passphrase() -> Passphrase {
    Passphrase::new(SECRET.into()).unwrap()
}

/// A file with the passphrase.
pub fn passphrase_file() -> PathBuf {
    site().with_file_name("passphrase")
}

pub fn trust() -> PathBuf {
    site().join("trust")
}

/// The OpenPGP signature of the site's release key. To open the key takes its time, so each is made once.
pub fn release_signature(data: &[u8]) -> Vec<u8> {
    static MADE: Mutex<BTreeMap<Sha256, Vec<u8>>> = Mutex::new(BTreeMap::new());
    let sign = || {
        let passphrase = passphrase();
        let key = Site::open(site()).unwrap().release_key(&passphrase).unwrap();
        key.sign_detached(data).unwrap().into_bytes()
    };
    MADE.lock()
        .unwrap()
        .entry(Sha256::of(data))
        .or_insert_with(sign)
        .clone()
}

/// What a healthy host of this name would sign.
pub fn host_receipt(name: &str, sequence: u64, version: &str) -> Receipt {
    let host = HostState {
        version: version.parse().unwrap(),
        root_hash: Sha256::of(version.as_bytes()),
        slots: Vec::new(),
        healthy: true,
        reasons: String::new(),
        install_record: Sha256::of(b"record"),
    };
    Receipt::new(name, sequence, now(), Holder::Host(host))
}

/// The smallest honest boot image: PE32+ headers and one section.
pub fn boot_image(section: &str, content: &[u8]) -> Vec<u8> {
    let size = u32::try_from(content.len().next_multiple_of(0x200)).unwrap();
    let mut image = vec![0; 0x200 + size as usize];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"MZ");
    put(0x3c, &[0x40]);
    put(0x40, b"PE\0\0\x64\x86\x01");
    put(0x54, &[240]);
    put(0x58, &[0x0b, 0x02]);
    put(0x58 + 32, &0x1000u32.to_le_bytes());
    put(0x58 + 36, &0x200u32.to_le_bytes());
    put(0x58 + 56, &(0x1000 + size.next_multiple_of(0x1000)).to_le_bytes());
    put(0x58 + 60, &0x200u32.to_le_bytes());
    put(0x58 + 68, &[10]);
    put(0x58 + 108, &[16]);
    let at = 0x58 + 240;
    put(at, section.as_bytes());
    put(at + 8, &u32::try_from(content.len()).unwrap().to_le_bytes());
    put(at + 12, &0x1000u32.to_le_bytes());
    put(at + 16, &size.to_le_bytes());
    put(at + 20, &0x200u32.to_le_bytes());
    // Initialised data that may be read: objcopy passes over a section that claims to hold nothing.
    put(at + 36, &0x4000_0040_u32.to_le_bytes());
    put(0x200, content);
    image
}
