// SPDX-License-Identifier: GPL-3.0-or-later
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use chrono::{DateTime, Utc};
use tempfile::TempDir;

use super::*;
use crate::clock::now;
use crate::keys::{Algorithm, PrivateKey};
use crate::process::Cmd;

/// RSA keys take a second each: made once for all tests.
fn identities() -> &'static [Identity; 2] {
    static MADE: OnceLock<[Identity; 2]> = OnceLock::new();
    MADE.get_or_init(|| {
        [0, 1].map(|at| {
            let pem = keys()[at].to_unencrypted_pem().unwrap();
            let key = PrivateKey::from_unencrypted_pem("test", &pem).unwrap();
            Identity::certify(["Test db", "Stranger"][at], key, now()).unwrap()
        })
    })
}

/// The keys of [`identities`], for other people's tools.
fn keys() -> &'static [PrivateKey; 2] {
    static MADE: OnceLock<[PrivateKey; 2]> = OnceLock::new();
    MADE.get_or_init(|| [(), ()].map(|()| PrivateKey::generate(Algorithm::Rsa3072).unwrap()))
}

/// The recipe of the smallest honest image: DOS header, PE32+ headers, two sections of 512 bytes, some data behind.
fn image(tail: usize) -> Vec<u8> {
    let mut image = vec![0; 0x200];
    image[..2].copy_from_slice(b"MZ");
    image[0x3c] = 0x40;
    image[0x40..0x44].copy_from_slice(b"PE\0\0");
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x44, &0x8664u16.to_le_bytes());
    put(0x46, &2u16.to_le_bytes());
    put(0x54, &240u16.to_le_bytes());
    put(0x58, &0x20bu16.to_le_bytes());
    put(0x58 + 32, &0x1000u32.to_le_bytes());
    put(0x58 + 36, &0x200u32.to_le_bytes());
    put(0x58 + 56, &0x3000u32.to_le_bytes());
    put(0x58 + 60, &0x200u32.to_le_bytes());
    put(0x58 + 68, &10u16.to_le_bytes());
    put(0x58 + 108, &16u32.to_le_bytes());
    for (index, name) in [&b".text"[..], b".data"].into_iter().enumerate() {
        let at = 0x58 + 240 + index * 40;
        let offset = 0x200 * (index + 1);
        put(at, name);
        put(at + 8, &0x200u32.to_le_bytes());
        put(at + 12, &u32::try_from(0x1000 * (index + 1)).unwrap().to_le_bytes());
        put(at + 16, &0x200u32.to_le_bytes());
        put(at + 20, &u32::try_from(offset).unwrap().to_le_bytes());
    }
    image.extend((0..0x400u32).map(|byte| (byte % 251) as u8));
    image.extend(std::iter::repeat_n(0x77, tail));
    image
}

fn is_refused<T: std::fmt::Debug>(result: Result<T, SecureBootError>) -> String {
    match result {
        Err(SecureBootError::Refused(reason)) => reason.0,
        other => panic!("not refused: {other:?}"),
    }
}

fn has(program: &str) -> bool {
    let there = ["/usr/bin", "/usr/sbin", "/bin"]
        .iter()
        .any(|path| Path::new(path).join(program).exists());
    if !there {
        eprintln!("{program} is not installed: not compared");
    }
    there
}

fn pem(identity: &Identity, directory: &TempDir, name: &str) -> [std::path::PathBuf; 2] {
    let [key, certificate] = ["key", "crt"].map(|end| directory.path().join(format!("{name}.{end}")));
    let private = keys()
        .iter()
        .find(|key| key.public() == identity.key().public())
        .unwrap();
    fs::write(&key, private.to_unencrypted_pem().unwrap()).unwrap();
    let x509 = openssl::x509::X509::from_der(identity.certificate().to_der()).unwrap();
    fs::write(&certificate, x509.to_pem().unwrap()).unwrap();
    [key, certificate]
}

/// Boot images of Debian's packages, where they are installed, beside our own.
fn images() -> Vec<Vec<u8>> {
    let mut images = vec![image(0), image(3), image(8)];
    for path in [
        "/usr/lib/efitools/x86_64-linux-gnu/HelloWorld.efi",
        "/usr/lib/efitools/x86_64-linux-gnu/KeyTool.efi",
        "/usr/lib/systemd/boot/efi/linuxx64.efi.stub",
    ] {
        images.extend(fs::read(path).ok());
    }
    images
}

#[test]
fn a_signed_image_verifies_and_sbverify_agrees() {
    let [ours, stranger] = identities();
    let directory = tempfile::tempdir().unwrap();
    let [_, certificate] = pem(ours, &directory, "db");
    let [_, other] = pem(stranger, &directory, "other");
    for image in images() {
        let signed = sign_pe(&image, ours).unwrap();
        assert_eq!(signed, sign_pe(&image, ours).unwrap(), "deterministic");
        let found = verify_pe(&signed, ours.certificate().to_der()).unwrap();
        assert_eq!(found.image_sha256, authenticode_sha256(&signed).unwrap());
        is_refused(verify_pe(&signed, stranger.certificate().to_der()));
        assert!(matches!(sign_pe(&signed, ours), Err(SecureBootError::Signed)));
        if has("sbverify") {
            let path = directory.path().join("signed.efi");
            fs::write(&path, &signed).unwrap();
            let verify = |certificate| Cmd::new("sbverify").arg("--cert").arg(certificate).arg(&path);
            verify(&certificate).run().unwrap();
            assert!(verify(&other).run().is_err());
        }
    }
}

#[test]
fn we_verify_what_sbsign_signs() {
    if !has("sbsign") {
        return;
    }
    let [ours, stranger] = identities();
    let directory = tempfile::tempdir().unwrap();
    let [key, certificate] = pem(ours, &directory, "db");
    for image in images() {
        let path = directory.path().join("image.efi");
        fs::write(&path, &image).unwrap();
        Cmd::new("sbsign")
            .arg("--key")
            .arg(&key)
            .arg("--cert")
            .arg(&certificate)
            .arg("--output")
            .arg(&path)
            .arg(&path)
            .run()
            .unwrap();
        let signed = fs::read(&path).unwrap();
        verify_pe(&signed, ours.certificate().to_der()).unwrap();
        is_refused(verify_pe(&signed, stranger.certificate().to_der()));
    }
}

/// The digest by another implementation, over every image.
#[test]
fn the_digest_agrees_with_another_implementation() {
    struct Collect(Vec<u8>);
    impl ::digest::Update for Collect {
        fn update(&mut self, bytes: &[u8]) {
            self.0.extend_from_slice(bytes);
        }
    }
    for mut image in images() {
        image.resize(image.len().next_multiple_of(8), 0);
        let signed = sign_pe(&image, &identities()[0]).unwrap();
        for image in [image, signed] {
            let parsed = object::read::pe::PeFile64::parse(&*image).unwrap();
            let mut collected = Collect(Vec::new());
            ::authenticode::authenticode_digest(&parsed, &mut collected).unwrap();
            assert_eq!(
                crate::digest::Sha256::of(&collected.0),
                authenticode_sha256(&image).unwrap()
            );
        }
    }
}

#[test]
fn every_byte_of_a_signed_image_counts() {
    let ours = &identities()[0];
    let signed = sign_pe(&image(3), ours).unwrap();
    let certificate = ours.certificate().to_der();
    let table = Layout::of(&signed).unwrap().table;
    let checksum = Layout::of(&signed).unwrap().checksum;
    for at in 0..table.start {
        let mut tampered = signed.clone();
        tampered[at] ^= 0x01;
        // The checksum is the one field that a signature does not cover.
        if !(checksum..checksum + 4).contains(&at) {
            assert!(verify_pe(&tampered, certificate).is_err(), "byte {at:#x}");
        }
    }
    let mut tampered = signed.clone();
    tampered[0x300] ^= 1;
    assert!(is_refused(verify_pe(&tampered, certificate)).contains("changed after it was signed"));
}

#[test]
fn bytes_around_the_signature_are_refused() {
    let ours = &identities()[0];
    let signed = sign_pe(&image(0), ours).unwrap();
    let certificate = ours.certificate().to_der();
    let mut longer = signed.clone();
    longer.extend([0; 8]);
    assert!(matches!(
        verify_pe(&longer, certificate),
        Err(SecureBootError::Image(_))
    ));
    for length in 0..signed.len() {
        assert!(verify_pe(&signed[..length], certificate).is_err(), "{length}");
    }
    assert!(is_refused(verify_pe(&image(0), certificate)).contains("not signed"));
    // A certificate table that claims to be longer, or of another kind, than it is.
    let table = Layout::of(&signed).unwrap().table.start;
    for (at, byte) in [(0, 0), (3, 0xff), (4, 1), (6, 9)] {
        let mut tampered = signed.clone();
        tampered[table + at] = byte;
        is_refused(verify_pe(&tampered, certificate));
    }
}

/// What a flipped byte in the signature itself may do: be refused, or, in the parts that nothing signs (the certificate that
/// travels along, padding), change nothing about what was verified. Never a panic, never another image.
#[test]
fn a_flipped_byte_in_the_signature_never_vouches_for_something_else() {
    let ours = &identities()[0];
    let signed = sign_pe(&image(0), ours).unwrap();
    let digest = authenticode_sha256(&signed).unwrap();
    for at in Layout::of(&signed).unwrap().table {
        for bit in [0x01, 0x80] {
            let mut tampered = signed.clone();
            tampered[at] ^= bit;
            match verify_pe(&tampered, ours.certificate().to_der()) {
                Ok(found) => assert_eq!(found.image_sha256, digest),
                Err(error) => assert!(matches!(error, SecureBootError::Refused(_)), "{at:#x}: {error:?}"),
            }
        }
    }
}

#[test]
fn images_in_which_bytes_could_hide_are_refused() {
    let section = 0x58 + 240;
    let reason = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut image = image(0);
        change(&mut image);
        match sign_pe(&image, &identities()[0]) {
            Err(SecureBootError::Image(reason)) => reason,
            other => panic!("{other:?}"),
        }
    };
    assert!(reason(&|image| image[section + 21] = 4).contains("gaps and overlaps"));
    assert!(reason(&|image| image[section + 40 + 21] = 2).contains("gaps and overlaps"));
    assert!(reason(&|image| image[section + 40 + 18] = 0xff).contains("beyond its end"));
    assert!(reason(&|image| image[0x3f] = 0xff).contains("cut off"));
    assert!(reason(&|image| image[0x59] = 1).contains("64-bit"));
    assert!(reason(&|image| image[0x58 + 108] = 4).contains("no room"));
    assert!(reason(&|image| image[0x58 + 61] = 0xff).contains("size of its headers"));
    assert!(reason(&|image| image.clear()).contains("cut off"));
    assert!(reason(&|image| image[0] = 0).contains("MZ"));
}

#[test]
fn a_certificate_belongs_to_its_key() {
    let [ours, stranger] = identities();
    let key = PrivateKey::generate(Algorithm::Rsa3072).unwrap();
    let error = Identity::new(key, stranger.certificate().clone()).unwrap_err();
    assert!(matches!(error, SecureBootError::Mismatch { .. }), "{error}");
    let mut der = ours.certificate().to_der().to_vec();
    der.push(0);
    assert!(Certificate::from_der(&der).is_err());
    assert!(Certificate::from_der(b"").is_err());
}

#[test]
fn guids_have_one_spelling() {
    let text = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
    assert_eq!(text.parse::<Guid>().unwrap(), Variable::Pk.vendor());
    assert_eq!(Variable::Pk.vendor().to_string(), text);
    let random = random_guid().unwrap().to_string();
    assert_eq!(random.as_bytes()[14], b'4');
    assert_eq!(random.parse::<Guid>().unwrap().to_string(), random);
}

#[test]
fn updates_hold_for_their_variable_content_and_signer_only() {
    let [ours, stranger] = identities();
    let owner = random_guid().unwrap();
    let list = signature_list(owner, ours.certificate()).unwrap();
    let update = sign_update(Variable::Kek, &list, ours, now()).unwrap();
    assert_eq!(verify_update(Variable::Kek, &update, ours.certificate()).unwrap(), list);
    is_refused(verify_update(Variable::Db, &update, ours.certificate()));
    is_refused(verify_update(Variable::Pk, &update, ours.certificate()));
    is_refused(verify_update(Variable::Kek, &update, stranger.certificate()));
    for length in 0..update.len() {
        is_refused(verify_update(Variable::Kek, &update[..length], ours.certificate()));
    }
    for at in (0..40).chain(update.len() - list.len()..update.len()) {
        let mut tampered = update.clone();
        tampered[at] ^= 1;
        is_refused(verify_update(Variable::Kek, &tampered, ours.certificate()));
    }
}

#[test]
fn signature_lists_are_read_back() {
    let [ours, stranger] = identities();
    let owner = random_guid().unwrap();
    let mut content = signature_list(owner, ours.certificate()).unwrap();
    content.extend(signature_list(owner, stranger.certificate()).unwrap());
    let entries = SignatureList::parse(&content).unwrap();
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[1].data, stranger.certificate().to_der());
    assert!(entries[0].is_certificate() && entries[0].owner == owner);
    for (at, value) in [(16, 0), (19, 0xff), (20, 0xff), (24, 3), (27, 0xff)] {
        let mut tampered = content.clone();
        tampered[at] = value;
        assert!(SignatureList::parse(&tampered).is_err(), "{at}");
    }
    assert!(SignatureList::parse(&content[..100]).is_err());
    assert!(SignatureList::parse(b"").unwrap().is_empty());
}

/// efitools, the tools that everybody enrols with, make the same bytes.
#[test]
fn efitools_make_the_same_bytes() {
    if !has("sign-efi-sig-list") || !has("cert-to-efi-sig-list") {
        return;
    }
    let [signer, subject] = identities();
    let directory = tempfile::tempdir().unwrap();
    let [key, certificate] = pem(signer, &directory, "signer");
    let [_, enrolled] = pem(subject, &directory, "subject");
    let owner = random_guid().unwrap();
    let [esl, auth] = ["esl", "auth"].map(|name| directory.path().join(name));
    Cmd::new("cert-to-efi-sig-list")
        .args(["-g", &owner.to_string()])
        .arg(&enrolled)
        .arg(&esl)
        .run()
        .unwrap();
    let list = signature_list(owner, subject.certificate()).unwrap();
    assert_eq!(fs::read(&esl).unwrap(), list);
    let at: DateTime<Utc> = "2026-03-04T05:06:07Z".parse().unwrap();
    for variable in Variable::ENROLMENT_ORDER {
        Cmd::new("sign-efi-sig-list")
            .args(["-t", "2026-03-04 05:06:07", "-g", &variable.vendor().to_string(), "-k"])
            .arg(&key)
            .arg("-c")
            .arg(&certificate)
            .arg(variable.name())
            .arg(&esl)
            .arg(&auth)
            .run()
            .unwrap();
        assert_eq!(
            hex::encode(fs::read(&auth).unwrap()),
            hex::encode(sign_update(variable, &list, signer, at).unwrap()),
            "{variable:?}"
        );
    }
}

/// The small image with one of its two sections named and cut to `used` bytes.
fn with_section(name: &[u8], used: u32) -> Vec<u8> {
    let mut image = image(0);
    let at = 0x58 + 240 + 40;
    image[at..at + 8].fill(0);
    image[at..at + name.len()].copy_from_slice(name);
    image[at + 8..at + 12].copy_from_slice(&used.to_le_bytes());
    image
}

#[test]
fn a_section_is_read_without_its_padding() {
    let content = |image: &[u8], name| pe_section(std::io::Cursor::new(image), name, 0x200);
    let image = with_section(b".config", 9);
    assert_eq!(content(&image, ".config").unwrap().unwrap(), image[0x400..0x409]);
    assert_eq!(content(&image, ".kernel").unwrap(), None);
    // Without a size in memory it is as long as in the file; a size beyond the file's is that of the file.
    for used in [0, 0x1000] {
        let image = with_section(b".config", used);
        assert_eq!(content(&image, ".config").unwrap().unwrap().len(), 0x200);
    }
    // A name may take all eight bytes.
    let image = with_section(b".ramdisk", 1);
    assert!(content(&image, ".ramdisk").unwrap().is_some());
}

#[test]
fn hostile_headers_are_refused_and_take_no_memory() {
    let read = |image: &[u8]| pe_section(std::io::Cursor::new(image), ".config", 0x1ff);
    let honest = with_section(b".config", 0x100);
    assert!(read(&honest).is_ok());
    let foreign = b"\x7fELF".repeat(200);
    let mut many = honest.clone();
    many[0x46] = 97;
    let long = with_section(b".config", 0x200);
    let mut far = honest.clone();
    far[0x58 + 240 + 40 + 23] = 0xff;
    let mut nowhere = honest.clone();
    nowhere[0x3c..0x40].fill(0xff);
    let mut narrow = honest.clone();
    narrow[0x54] = 111;
    for (index, image) in [&foreign[..], &many, &long, &far, &nowhere, &narrow, &honest[..0x480]]
        .into_iter()
        .enumerate()
    {
        assert!(matches!(read(image), Err(SecureBootError::Image(_))), "{index}");
    }
    for length in 0..0x58 + 240 + 80 {
        assert!(read(&honest[..length]).is_err(), "cut at {length}");
    }
}
