// SPDX-License-Identifier: GPL-3.0-or-later
use super::*;
use crate::clock::now;
use crate::keys::Passphrase;
use crate::process::Cmd;
use chrono::TimeDelta;
use std::fs;
use tempfile::TempDir;

mod faults;

struct Bench {
    directory: TempDir,
    generated: Generated,
    passphrase: Passphrase,
}

impl Bench {
    fn new() -> Self {
        let passphrase = Passphrase::new(b"correct horse".to_vec()).unwrap();
        let generated = generate("Test site", &passphrase, now() - TimeDelta::hours(1)).unwrap();
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("ring.asc"), &generated.certificate).unwrap();
        Self {
            directory,
            generated,
            passphrase,
        }
    }

    fn ring(&self) -> PathBuf {
        self.directory.path().join("ring.asc")
    }

    fn sign(&self, data: &[u8]) -> String {
        sign_detached(self.generated.key.as_bytes(), &self.passphrase, data, now()).unwrap()
    }

    fn cleartext(&self, text: &[u8]) -> Vec<u8> {
        let text = str::from_utf8(text).unwrap();
        let signed = sign_cleartext(self.generated.key.as_bytes(), &self.passphrase, text, now());
        signed.unwrap().into_bytes()
    }
}

fn is_refused<T>(result: Result<T, OpenPgpError>) -> String {
    match result {
        Err(OpenPgpError::Refused(fault)) => fault.to_string(),
        Err(other) => panic!("not refused but {other:?}"),
        Ok(_) => panic!("accepted"),
    }
}

#[test]
fn a_cleartext_message_gives_its_signed_text_and_signer() {
    let bench = Bench::new();
    let text = b"Origin: Test\n- dashed\n-----BEGIN something\nSuite: x\n";
    let verified = verify_cleartext(&bench.ring(), &bench.cleartext(text), now()).unwrap();
    assert_eq!(verified.body.trim_ascii_end(), text.trim_ascii_end());
    assert_eq!(verified.signers, std::slice::from_ref(&bench.generated.fingerprint));
}

#[test]
fn tampered_cleartext_messages_are_refused() {
    let bench = Bench::new();
    let good = bench.cleartext(b"Origin: Test\nSuite: trixie\n");
    let text = String::from_utf8(good.clone()).unwrap();
    let refuse = |message: &str| is_refused(verify_cleartext(&bench.ring(), message.as_bytes(), now()));
    assert!(refuse(&text.replace("trixie", "trixiE")).contains("does not hold"));
    assert!(refuse(&format!("Origin: Evil\n{text}")).contains("first line"));
    assert!(refuse(&format!("{text}Origin: Evil\n")).contains("no signature covers"));
    assert!(refuse(&format!("{text}{text}")).contains("more than one"));
    assert!(refuse(&text[..text.len() / 2]).contains("cut off"));
    refuse("");
    refuse("Origin: Test\n");
    refuse("-----BEGIN PGP SIGNED MESSAGE-----\n\nx\n-----BEGIN PGP SIGNATURE-----\n\n-----END PGP SIGNATURE-----\n");
}

#[test]
fn a_strangers_signature_is_refused_by_name() {
    let (bench, stranger) = (Bench::new(), Bench::new());
    let reason = is_refused(verify_cleartext(
        &bench.ring(),
        &stranger.cleartext(b"Origin: Test\n"),
        now(),
    ));
    assert!(reason.contains("no signature of a known key"), "{reason}");
    is_refused(verify_detached(
        &bench.ring(),
        &b"data"[..],
        stranger.sign(b"data").as_bytes(),
        now(),
    ));
}

#[test]
fn a_signature_from_the_future_is_refused() {
    let bench = Bench::new();
    let then = now() - TimeDelta::minutes(30);
    is_refused(verify_detached(
        &bench.ring(),
        &b"data"[..],
        bench.sign(b"data").as_bytes(),
        then,
    ));
}

#[test]
fn detached_signatures_hold_for_their_data_only() {
    let bench = Bench::new();
    let signature = bench.sign(b"data");
    let found = verify_detached(&bench.ring(), &b"data"[..], signature.as_bytes(), now()).unwrap();
    assert_eq!(found[0].fingerprint, bench.generated.fingerprint);
    assert_ne!(found[0].key, bench.generated.fingerprint, "a subkey signs");
    is_refused(verify_detached(
        &bench.ring(),
        &b"Data"[..],
        signature.as_bytes(),
        now(),
    ));
    is_refused(verify_detached(&bench.ring(), &b"data"[..], b"", now()));
    is_refused(verify_detached(&bench.ring(), &b"data"[..], &[0x5a; 300], now()));
    is_refused(verify_detached(
        &bench.ring(),
        &b"data"[..],
        &vec![b'x'; MAX_SIGNATURE + 1],
        now(),
    ));
    is_refused(verify_detached(
        &bench.ring(),
        &b"data"[..],
        &bench.cleartext(b"data"),
        now(),
    ));
}

#[test]
fn unreadable_data_is_not_a_bad_signature() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("bad sector"))
        }
    }
    let bench = Bench::new();
    let result = verify_detached(&bench.ring(), Broken, bench.sign(b"data").as_bytes(), now());
    assert!(matches!(result, Err(OpenPgpError::Data(_))), "{result:?}");
}

#[test]
fn a_wrong_passphrase_says_so() {
    let bench = Bench::new();
    let wrong = Passphrase::new(b"wrong".to_vec()).unwrap();
    let result = sign_detached(bench.generated.key.as_bytes(), &wrong, &b"data"[..], now());
    assert!(matches!(result, Err(OpenPgpError::Passphrase { .. })), "{result:?}");
}

#[test]
fn keyrings_of_several_blocks_and_bad_keyrings() {
    let (bench, other) = (Bench::new(), Bench::new());
    let path = bench.directory.path().join("many.asc");
    fs::write(
        &path,
        format!(
            "a comment\n{}\n{}",
            other.generated.certificate, bench.generated.certificate
        ),
    )
    .unwrap();
    assert_eq!(read_keyring(&path).unwrap().len(), 2);
    verify_detached(&path, &b"data"[..], bench.sign(b"data").as_bytes(), now()).unwrap();
    let cut = &bench.generated.certificate[..200];
    for bad in ["", "hello", cut] {
        fs::write(&path, bad).unwrap();
        assert!(
            matches!(read_keyring(&path), Err(OpenPgpError::Keyring { .. })),
            "{bad:?}"
        );
    }
    assert!(matches!(
        read_keyring(&path.join("none")),
        Err(OpenPgpError::Read { .. })
    ));
}

/// GnuPG, which an auditor has, must agree with us: on our signatures, and on the text under a cleartext signature.
#[test]
fn gnupg_agrees() {
    let bench = Bench::new();
    let path = |name: &str| bench.directory.path().join(name);
    let text = b"Origin: Test\n\nHash:\n trailing space \n- dash\nend\n";
    fs::write(path("data"), text).unwrap();
    fs::write(path("data.asc"), bench.sign(text)).unwrap();
    fs::write(path("clear"), bench.cleartext(text)).unwrap();
    let gnupg = || {
        Cmd::new("gpg")
            .args(["--homedir".as_ref(), bench.directory.path()])
            .args(["--batch", "--no-autostart"])
    };
    let Ok(_) = gnupg().arg("--version").run() else {
        eprintln!("gpg is not installed: not compared");
        return;
    };
    gnupg()
        .args(["--dearmor", "-o"])
        .arg(path("ring.gpg"))
        .arg(bench.ring())
        .run()
        .unwrap();
    let gpgv = || Cmd::new("gpgv").arg("--keyring").arg(path("ring.gpg"));
    gpgv().arg(path("data.asc")).arg(path("data")).run().unwrap();
    gpgv().arg("-o").arg(path("text")).arg(path("clear")).run().unwrap();
    let ours = verify_cleartext(&bench.ring(), &fs::read(path("clear")).unwrap(), now()).unwrap();
    assert_eq!(
        String::from_utf8(ours.body).unwrap().trim_end(),
        fs::read_to_string(path("text")).unwrap().trim_end()
    );
}

/// The key file at rest: nothing opens it without the passphrase.
#[test]
fn the_key_file_is_encrypted() {
    let bench = Bench::new();
    let cert = Cert::from_bytes(&bench.generated.key).unwrap();
    assert!(cert.is_tsk());
    assert!(cert.keys().secret().all(|key| key.key().secret().is_encrypted()));
    assert_eq!(cert.keys().secret().count(), cert.keys().count());
}

/// Debian's own signed file on a Debian machine, by Debian's own keyring; elsewhere there is nothing to read.
#[test]
fn debian_verifies() {
    let keyring = Path::new("/usr/share/keyrings/debian-archive-keyring.gpg");
    let lists = fs::read_dir("/var/lib/apt/lists").into_iter().flatten().flatten();
    for entry in lists.filter(|entry| entry.file_name().to_string_lossy().ends_with("_InRelease")) {
        if !entry.file_name().to_string_lossy().contains("debian") || !keyring.exists() {
            continue;
        }
        let message = fs::read(entry.path()).unwrap();
        let verified = verify_cleartext(keyring, &message, now()).unwrap();
        assert!(verified.body.starts_with(b"Origin: Debian"), "{:?}", entry.path());
        let mut tampered = message;
        tampered[100] ^= 1;
        is_refused(verify_cleartext(keyring, &tampered, now()));
    }
}

#[test]
fn secrets_are_for_the_certificates_owner_alone() {
    let (bench, other) = (Bench::new(), Bench::new());
    let text = b"recovery key 1234";
    let certs = read_keyring(&bench.ring()).unwrap();
    let message = encrypt(&certs, text, now()).unwrap();
    assert!(message.starts_with("-----BEGIN PGP MESSAGE-----"));
    let open =
        |bench: &Bench, message: &[u8]| decrypt(bench.generated.key.as_bytes(), &bench.passphrase, message, now());
    assert_eq!(open(&bench, message.as_bytes()).unwrap().as_slice(), text);
    assert!(matches!(
        open(&other, message.as_bytes()),
        Err(OpenPgpError::Refused(Fault::AnotherRecipient { .. }))
    ));
    let wrong = Passphrase::new(b"wrong".to_vec()).unwrap();
    assert!(matches!(
        decrypt(bench.generated.key.as_bytes(), &wrong, message.as_bytes(), now()),
        Err(OpenPgpError::Passphrase { .. })
    ));

    // One bit of the encrypted text is another.
    let mut bytes = Vec::new();
    sequoia_openpgp::armor::Reader::from_bytes(message.as_bytes(), None)
        .read_to_end(&mut bytes)
        .unwrap();
    open(&bench, &bytes).unwrap();
    let last = bytes.len() - 5;
    bytes[last] ^= 1;
    is_refused(open(&bench, &bytes));
    // What is no message, or nobody's secret.
    for message in ["", "hello", &bench.sign(b"data")] {
        is_refused(open(&bench, message.as_bytes()));
    }
    let long = encrypt(&certs, &vec![7; usize::try_from(MAX_SECRET).unwrap() + 1], now()).unwrap();
    assert!(is_refused(open(&bench, long.as_bytes())).contains("longer than"));
    // A certificate that had no such key, or has not any more.
    let (signs_only, _) = sequoia_openpgp::cert::CertBuilder::new()
        .add_userid("old")
        .add_signing_subkey()
        .generate()
        .unwrap();
    assert!(matches!(
        encrypt(&[signs_only], text, now()),
        Err(OpenPgpError::Make { .. })
    ));
}
