// SPDX-License-Identifier: GPL-3.0-or-later
//! Two machines on one private bridge: a gateway that serves what came over the gap, and a host that is updated from it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, ensure};
use signing::process::Cmd;

use super::build::{BASE, PATCHED};
use super::host::{BOOT, STICK, confirmed, healthy, mount_stick, restart, runs};
use super::install;
use crate::bridge::{Bridge, Port};
use crate::ledger::Ledger;
use crate::stick;
use crate::vm::{Machine, Plugged, Running};
use crate::workshop::Workshop;

/// The gateway's address on the bridge, as its certificate names it (RFC 5737).
const GATEWAY: &str = "192.0.2.1";
/// The host's.
const HOST: &str = "192.0.2.2";
/// Where the gateway's keys and repository lie on it.
const PLACE: &str = "/var/lib/gateway";
/// Where its program lies: a host's own places are read-only, or nothing is started from them.
const PROGRAMS: &str = "/usr/local/bin";
/// As the unit tells an administrator: an empty line, and one with the site's own paths.
const DROP_IN: &str = "[Service]\nExecStart=\nExecStart=/usr/local/bin/bastide-repo serve --repo /var/lib/gateway/repository \
                       --listen 0.0.0.0:8443 --tls-cert /var/lib/gateway/tls.pem --tls-key /var/lib/gateway/tls.key\n";

/// A host takes the patched release from the gateway's server, which is killed in the middle.
///
/// # Errors
/// When the step fails.
pub fn update_from(shop: &Workshop, ledger: &Ledger) -> Result<()> {
    let bundle = shop.bundle(PATCHED.version);
    let inputs = shop.after("install-usb")?.file(&bundle)?;
    ledger.step(
        "served-update",
        "take the patch from a gateway's server",
        inputs,
        &[],
        || {
            let key = shop.admin_key();
            let certificate = certificate(&shop.at("work"))?;
            let bridge = Bridge::make()?;
            let gateway = install::installed(shop).branch(&shop.at("vm/gateway"))?;
            let gateway = serve(shop, &gateway, bridge.port(1)?, &certificate, &key)?;
            let host = install::installed(shop).branch(&shop.at("vm/served"))?;
            let port = bridge.port(2)?;
            let plugged = Plugged {
                port: Some(port),
                ..Plugged::default()
            };
            let mut host = host.power_on("served", &plugged)?;
            host.wait_for_ssh(&key, BOOT)?;
            healthy(&host, &key)?;
            join(&host, &key, port, HOST)?;
            let pem = fs::read_to_string(certificate.join("tls.pem"))?;
            host.must(
                &key,
                &format!("mkdir -p /etc/bastide && cat > /etc/bastide/server.pem <<'END'\n{pem}END"),
            )?;
            take(shop, &gateway, &mut host, &key)
        },
    )
}

/// Makes the server's key and certificate in a directory.
fn certificate(work: &Path) -> Result<PathBuf> {
    let directory = work.join("gateway");
    fs::create_dir_all(&directory)?;
    Cmd::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
        .args(["-nodes", "-days", "30", "-subj", "/CN=gateway", "-addext"])
        .arg(format!("subjectAltName=IP:{GATEWAY}"))
        .args(["-out", "tls.pem", "-keyout", "tls.key"])
        .dir(&directory)
        .run()?;
    Ok(directory)
}

/// Starts the gateway: the bundle comes on a stick and is imported, and the unit serves it as its own user.
fn serve(shop: &Workshop, machine: &Machine, port: Port<'_>, certificate: &Path, key: &Path) -> Result<Running> {
    let mut trust = Vec::new();
    for entry in fs::read_dir(shop.site().join("trust"))? {
        let entry = entry?;
        let name = entry.file_name().into_string();
        let name = name.map_err(|name| anyhow!("the trust directory holds {}", name.display()))?;
        trust.push((format!("trust/{name}"), entry.path()));
    }
    let unit = shop.source.join("offline-repo/systemd/bastide-repo.service");
    let (program, bundle) = (shop.path_of("bastide-repo"), shop.bundle(PATCHED.version));
    let (pem, secret) = (certificate.join("tls.pem"), certificate.join("tls.key"));
    let mut carried: Vec<(&str, &Path)> = vec![
        ("bastide-repo", &program),
        ("bastide-repo.service", &unit),
        ("release.bundle", &bundle),
        ("tls.pem", &pem),
        ("tls.key", &secret),
    ];
    carried.extend(trust.iter().map(|(name, file)| (name.as_str(), file.as_path())));
    let courier = stick::courier(machine, &carried)?;
    let plugged = Plugged {
        sticks: vec![&courier],
        port: Some(port),
        ..Plugged::default()
    };
    let mut running = machine.power_on("gateway", &plugged)?;
    running.wait_for_ssh(key, BOOT)?;
    healthy(&running, key)?;
    join(&running, key, port, GATEWAY)?;
    mount_stick(&running, key)?;
    running.must(
        key,
        &format!(
            "echo 'bastide-repo:x:990:' >> /etc/group && \
             echo 'bastide-repo:x:990:990::/nonexistent:/usr/sbin/nologin' >> /etc/passwd && \
             install -d -m 755 {PLACE} /etc/systemd/system/bastide-repo.service.d && \
             mount -t tmpfs -o mode=755,nodev,nosuid gateway {PROGRAMS} && \
             install -m 755 {STICK}/bastide-repo {PROGRAMS} && install -m 644 {STICK}/tls.pem {PLACE} && \
             install -m 400 -o bastide-repo {STICK}/tls.key {PLACE} && \
             install -m 644 {STICK}/bastide-repo.service /etc/systemd/system/ && \
             printf %s '{DROP_IN}' > /etc/systemd/system/bastide-repo.service.d/site.conf && \
             nft insert rule inet host input tcp dport 8443 accept"
        ),
    )?;
    running.must(
        key,
        &format!("umask 022 && {PROGRAMS}/bastide-repo import {STICK}/release.bundle --repo {PLACE}/repository --trust {STICK}/trust"),
    )?;
    running.must(key, "systemctl daemon-reload && systemctl start bastide-repo")?;
    let user = running.must(key, "stat -c %U /proc/$(systemctl show -P MainPID bastide-repo)")?;
    ensure!(user == "bastide-repo", "the server runs as {user}");
    Ok(running)
}

/// Gives a machine its address on the bridge.
fn join(running: &Running, key: &Path, port: Port<'_>, address: &str) -> Result<()> {
    let mac = port.mac();
    running.must(
        key,
        &format!(
            "card=$(basename $(dirname $(grep -l {mac} /sys/class/net/*/address))) && \
             ip link set $card up && ip address add {address}/24 dev $card"
        ),
    )?;
    Ok(())
}

fn take(shop: &Workshop, gateway: &Running, host: &mut Running, key: &Path) -> Result<String> {
    host.must(
        key,
        &format!("systemd-run --unit=story-update bastide-host update --json --from https://{GATEWAY}:8443"),
    )?;
    let journal = "journalctl -o cat -u story-update";
    host.must(
        key,
        &format!(
            "for i in $(seq 3000); do {journal} | grep -q '\"write-root\".*\"progress\"' && exit 0; \
             systemctl is-failed -q story-update && break; sleep 0.2; done; {journal} >&2; exit 1"
        ),
    )?;
    let server = "systemctl show -P MainPID bastide-repo";
    let first = gateway.must(key, server)?;
    gateway.must(key, "systemctl kill -s KILL bastide-repo")?;
    host.must(
        key,
        "while systemctl is-active -q story-update; do sleep 1; done; ! systemctl is-failed -q story-update",
    )
    .or_else(|error| Err(error.context(host.must(key, journal)?)))?;
    let second = gateway.must(key, server)?;
    ensure!(first != second, "the server was not killed: {second}");
    // It reads little but what it gives: some of the release came from the second one.
    let read = gateway.must(key, &format!("awk '/^rchar/ {{ print $2 }}' /proc/{second}/io"))?;
    let read: u64 = read.parse()?;
    ensure!(read > 8 << 20, "the second server gave nothing: it read {read} bytes");

    restart(host, key)?;
    runs(shop, PATCHED, &confirmed(host, key)?)?;
    Ok(format!(
        "{} to {} from a gateway's unit without root, killed in the middle; {} MB came from the next",
        BASE.version,
        PATCHED.version,
        read >> 20
    ))
}
