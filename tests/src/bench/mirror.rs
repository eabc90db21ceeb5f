// SPDX-License-Identifier: GPL-3.0-or-later
//! The demonstration's packages, mirrored from a server on this machine and published again for apt, beside aptly and
//! reprepro: from nothing, and once more when nothing is new. Each verifies the server's signature, and signs what it
//! publishes with a key of its own.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use signing::process::Cmd;

use super::Measure;
use super::transport::{emptied, timed};
use crate::story::build::BASE;
use crate::vm::free_port;
use crate::workshop::Workshop;

/// The second run, beside the first.
const AGAIN: f64 = 0.2;

/// All three, one after the other.
pub fn mirror(shop: &Workshop) -> Result<Vec<Measure>> {
    for peer in ["aptly", "reprepro"] {
        ensure!(
            Path::new("/usr/bin").join(peer).exists(),
            "{peer} is not here: apt-get install aptly reprepro gnupg"
        );
    }
    let place = emptied(shop, "bench/mirror")?;
    let archive = Archive::serve(shop, &place)?;
    let keys = Keys::make(shop, &place)?;
    let ours = ours(shop, &place, &archive, &keys)?;
    let aptly = aptly(&place, &archive, &keys)?;
    let reprepro = reprepro(&place, &archive, &keys)?;
    let packages = published(&place.join("published"))?;
    for (peer, tree) in [("aptly", "aptly/public"), ("reprepro", "reprepro")] {
        ensure!(
            published(&place.join(tree))? == packages,
            "{peer} has published other packages than ours"
        );
    }
    let [first, again] = ours;
    let measures = vec![
        Measure::time("mirror and publish / aptly", first, aptly[0], 1.0),
        Measure::time("mirror and publish / reprepro", first, reprepro[0], 1.0),
        Measure::time("the same with nothing new / its first run", again, first, AGAIN),
        Measure::time("the same with nothing new / aptly", again, aptly[1], 1.0),
        Measure::time("the same with nothing new / reprepro", again, reprepro[1], 1.0),
    ];
    drop(archive);
    fs::remove_dir_all(&place)?;
    Ok(measures)
}

/// An archive of the demonstration's packages on the loopback interface, signed by the office.
struct Archive {
    server: Child,
    url: String,
}

impl Archive {
    fn serve(shop: &Workshop, place: &Path) -> Result<Self> {
        let repository = place.join("served");
        Cmd::new("cp")
            .args(["-a", "--reflink=auto"])
            .arg(shop.repository(BASE.version))
            .arg(&repository)
            .output()?;
        let apt = shop
            .program("bastide-repo")
            .args(["apt", "publish", BASE.snapshot, "--store"]);
        signed(shop, apt.arg(shop.store()).arg("--repo").arg(&repository)).output()?;
        let port = free_port()?;
        let log = fs::File::create(place.join("server.log"))?;
        let server = shop
            .program("bastide-repo")
            .args(["serve", "--plain", "--listen"])
            .arg(format!("127.0.0.1:{port}"))
            .arg("--repo")
            .arg(&repository)
            .spawn(Stdio::from(log.try_clone()?), Stdio::from(log))?;
        let mut archive = Self {
            server,
            url: format!("http://127.0.0.1:{port}"),
        };
        let start = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            let ended = archive.server.try_wait()?;
            ensure!(
                ended.is_none() && start.elapsed() < Duration::from_secs(30),
                "the archive's server does not answer: {}",
                fs::read_to_string(place.join("server.log"))?
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(archive)
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        // Already ended is as good as ended now.
        drop(self.server.kill());
        drop(self.server.wait());
    }
}

/// GnuPG's home for the peers: their signing key, and the office's certificate.
struct Keys {
    home: PathBuf,
    /// The office's certificate, as `bastide-sign` wrote it.
    certificate: PathBuf,
    /// Its fingerprint.
    office: String,
    /// The peers'.
    own: String,
}

impl Keys {
    fn make(shop: &Workshop, place: &Path) -> Result<Self> {
        let home = place.join("gnupg");
        fs::create_dir(&home)?;
        Cmd::new("chmod").arg("700").arg(&home).output()?;
        let certificate = shop.office().join("trust/release.asc");
        let gpg = |arguments: &[&str]| {
            Cmd::new("gpg")
                .args(["--batch", "--quiet", "--homedir"])
                .arg(&home)
                .args(arguments)
        };
        let office = certificate.display().to_string();
        gpg(&["--import", &office]).output()?;
        let keyring = place.join("office.gpg").display().to_string();
        gpg(&["--output", &keyring, "--dearmor", &office]).output()?;
        let shown = |selected: &[&str]| -> Result<String> {
            let text = String::from_utf8(gpg(selected).output()?)?;
            let line = text.lines().find_map(|line| line.strip_prefix("fpr:::::::::"));
            Ok(line.context("gpg shows no key")?.trim_end_matches(':').to_owned())
        };
        let office = shown(&["--with-colons", "--list-keys"])?;
        let make = [
            "--passphrase",
            "",
            "--quick-generate-key",
            "peer",
            "rsa3072",
            "sign",
            "never",
        ];
        gpg(&make).output()?;
        let own = shown(&["--with-colons", "--list-secret-keys"])?;
        Ok(Self {
            home,
            certificate,
            office,
            own,
        })
    }
}

/// From nothing, and again.
fn twice(mut run: impl FnMut(bool) -> Result<Duration>) -> Result<[Duration; 2]> {
    Ok([run(true)?, run(false)?])
}

fn ours(shop: &Workshop, place: &Path, archive: &Archive, keys: &Keys) -> Result<[Duration; 2]> {
    let spec = fs::read_to_string(shop.source.join("offline-repo/specs/base.toml"))?;
    let packages = spec.find("[packages]").context("the specification names packages")?;
    let head = format!(
        "name = \"base\"\narchitecture = \"amd64\"\nkeyring = {:?}\n\n[[suite]]\npath = \"apt\"\nname = \"{}\"\n\
         components = [\"main\"]\nsigned_by = [{:?}]\n\n",
        keys.certificate.display().to_string(),
        BASE.snapshot,
        keys.office
    );
    let file = place.join("spec.toml");
    fs::write(&file, head + &spec[packages..])?;
    let (store, repository) = (place.join("store"), place.join("published"));
    Cmd::new("cp")
        .args(["-a", "--reflink=auto"])
        .arg(shop.repository(BASE.version))
        .arg(&repository)
        .output()?;
    twice(|_| {
        let mirror = shop.program("bastide-repo").arg("mirror").arg(&file);
        let mirror = mirror.args(["--upstream", &archive.url, "--store"]).arg(&store);
        let publish = shop
            .program("bastide-repo")
            .args(["apt", "publish", "base", "--spec"])
            .arg(&file);
        let publish = publish.arg("--store").arg(&store).arg("--repo").arg(&repository);
        Ok(timed(mirror)? + timed(signed(shop, publish))?)
    })
}

fn aptly(place: &Path, archive: &Archive, keys: &Keys) -> Result<[Duration; 2]> {
    let config = place.join("aptly.conf");
    let root = place.join("aptly");
    fs::write(&config, json!({"rootDir": root, "gpgProvider": "gpg"}).to_string())?;
    let keyring = format!("-keyring={}", place.join("office.gpg").display());
    let aptly = |line: &str| {
        let cmd = Cmd::new("aptly").arg(format!("-config={}", config.display()));
        timed(cmd.args(line.split_whitespace()).env("GNUPGHOME", &keys.home))
    };
    let (url, suite) = (&archive.url, BASE.snapshot);
    let sign = format!("-batch -gpg-key={}", keys.own);
    twice(|first| {
        let mut time = Duration::ZERO;
        if first {
            time += aptly(&format!(
                "mirror create -architectures=amd64 {keyring} upstream {url}/apt {suite} main"
            ))?;
        }
        let snapshot = if first { "one" } else { "two" };
        time += aptly(&format!("mirror update {keyring} upstream"))?;
        time += aptly(&format!("snapshot create {snapshot} from mirror upstream"))?;
        time += match first {
            true => aptly(&format!("publish snapshot {sign} -distribution={suite} {snapshot}"))?,
            false => aptly(&format!("publish switch {sign} {suite} {snapshot}"))?,
        };
        Ok(time)
    })
}

fn reprepro(place: &Path, archive: &Archive, keys: &Keys) -> Result<[Duration; 2]> {
    let base = place.join("reprepro");
    fs::create_dir_all(base.join("conf"))?;
    let suite = BASE.snapshot;
    let distributions = format!(
        "Codename: {suite}\nComponents: main\nArchitectures: amd64\nUpdate: upstream\nSignWith: {}\n",
        keys.own
    );
    let updates = format!(
        "Name: upstream\nMethod: {}/apt\nSuite: {suite}\nComponents: main\nArchitectures: amd64\nGetInRelease: yes\n\
         VerifyRelease: {}!+\n",
        archive.url,
        // Its last sixteen digits are all that it takes; a subkey of it signs.
        &keys.office[keys.office.len().saturating_sub(16)..]
    );
    fs::write(base.join("conf/distributions"), distributions)?;
    fs::write(base.join("conf/updates"), updates)?;
    twice(|_| {
        let cmd = Cmd::new("reprepro").arg("--basedir").arg(&base).arg("update");
        timed(cmd.env("GNUPGHOME", &keys.home))
    })
}

/// The digests of the packages below a directory, in order.
fn published(tree: &Path) -> Result<Vec<String>> {
    let find = "find \"$1\" -name '*.deb' -exec sha256sum {} + | cut -c 1-64 | sort -u";
    let digests = String::from_utf8(Cmd::new("sh").args(["-c", find, "sh"]).arg(tree).output()?)?;
    ensure!(!digests.is_empty(), "there is no package below {}", tree.display());
    Ok(digests.lines().map(str::to_owned).collect())
}

/// As the office.
fn signed(shop: &Workshop, cmd: Cmd) -> Cmd {
    cmd.arg("--site")
        .arg(shop.office())
        .arg("--passphrase-file")
        .arg(shop.passphrase())
}
