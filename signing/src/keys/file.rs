// SPDX-License-Identifier: GPL-3.0-or-later
//! Key files: encrypted PKCS#8 in PEM.

use std::fs::File;
use std::path::Path;

use pkcs8::der::SecretDocument;
use pkcs8::der::pem::LineEnding;
use pkcs8::pkcs5::pbes2::{EncryptionScheme, Kdf, Parameters, ScryptParams};
use pkcs8::rand_core::{OsRng, RngCore};
use pkcs8::{EncryptedPrivateKeyInfo, PrivateKeyInfo, pkcs5};
use zeroize::Zeroizing;

use super::{KeyError, Passphrase, PrivateKey, check_private};
use crate::digest::read_to_limit;
use crate::durable;

/// The longest key file that is read; an RSA-3072 one is about 2.6 KB.
const MAX_FILE: u64 = 64 << 10;
const LABEL: &str = "ENCRYPTED PRIVATE KEY";

/// N = 2^14, r = 8, p = 5: 16 MiB a guess, five times over. More memory in one lane would be better still, but `openssl`
/// refuses to use more than 32 MiB, and an auditor's openssl must open the file.
const COST: u64 = 1 << 14;
const BLOCK_SIZE: u16 = 8;
const LANES: u16 = 5;

/// What a foreign key file may ask for: at most 256 MiB, and about a minute.
const MAX_SCRYPT_MEMORY: u64 = 256 << 20;
const MAX_SCRYPT_WORK: u64 = MAX_SCRYPT_MEMORY * 16;
const MAX_PBKDF2_ROUNDS: u32 = 10_000_000;

/// The key as an encrypted PEM.
///
/// # Errors
/// When there is no randomness or the key cannot be encoded.
pub fn encrypt(key: &PrivateKey, passphrase: &Passphrase) -> Result<String, KeyError> {
    let made = |error: &dyn std::fmt::Display| KeyError::Malformed {
        what: "the key to be encrypted".to_owned(),
        reason: error.to_string(),
    };
    let (mut salt, mut iv) = ([0; 16], [0; 16]);
    OsRng.try_fill_bytes(&mut salt).map_err(|error| made(&error))?;
    OsRng.try_fill_bytes(&mut iv).map_err(|error| made(&error))?;
    let parameters = Parameters {
        kdf: Kdf::Scrypt(ScryptParams {
            salt: &salt,
            cost_parameter: COST,
            block_size: BLOCK_SIZE,
            parallelization: LANES,
            key_length: None,
        }),
        encryption: EncryptionScheme::Aes256Cbc { iv: &iv },
    };
    let der = key.to_pkcs8_der()?;
    let pem = PrivateKeyInfo::try_from(der.as_slice())
        .and_then(|info| info.encrypt_with_params(parameters, passphrase.expose()))
        .map_err(|error| made(&error))?
        .to_pem(LABEL, LineEnding::LF)
        .map_err(|error| made(&error))?;
    Ok(pem.as_str().to_owned())
}

/// Opens an encrypted PEM; `what` names it in errors.
///
/// # Errors
/// [`KeyError::Malformed`] when it is not an encrypted key file, [`KeyError::Passphrase`] when the passphrase does not open
/// it.
pub fn decrypt(what: &str, pem: &[u8], passphrase: &Passphrase) -> Result<PrivateKey, KeyError> {
    let malformed = |reason: String| KeyError::Malformed {
        what: what.to_owned(),
        reason,
    };
    let text = std::str::from_utf8(pem).map_err(|_| malformed("not a PEM file".to_owned()))?;
    if text.contains("-----BEGIN PRIVATE KEY-----") {
        return Err(malformed(
            "it is NOT encrypted; encrypt it with `openssl pkcs8 -topk8 -scrypt` and destroy the plain one".to_owned(),
        ));
    }
    if text.contains("-----BEGIN PGP ") {
        return Err(malformed(format!(
            "it is OpenPGP, and expected is a PEM of {LABEL:?} (a custodian's is NAME.key.pem); an OpenPGP key is for \
             `ceremony sign-transcript`"
        )));
    }
    let (label, document) =
        SecretDocument::from_pem(text).map_err(|error| malformed(format!("not a whole PEM file ({error})")))?;
    if label != LABEL {
        return Err(malformed(format!("a PEM of {label:?}, not of {LABEL:?}")));
    }
    let info = EncryptedPrivateKeyInfo::try_from(document.as_bytes())
        .map_err(|error| malformed(format!("not encrypted PKCS#8 ({error})")))?;
    check_bounds(&info.encryption_algorithm).map_err(&malformed)?;
    let wrong = || KeyError::Passphrase { what: what.to_owned() };
    let der: Zeroizing<Vec<u8>> = Zeroizing::new(
        info.encryption_algorithm
            .decrypt(passphrase.expose(), info.encrypted_data)
            .map_err(|_| wrong())?,
    );
    // One in 256 wrong passphrases passes the padding check; what comes out is then no key.
    if PrivateKeyInfo::try_from(der.as_slice()).is_err() {
        return Err(wrong());
    }
    PrivateKey::from_pkcs8_der(what, &der)
}

/// Reads a key file that its owner alone can get at.
///
/// # Errors
/// [`KeyError::Exposed`] when others can too; else when it cannot be read.
pub fn read_private(path: &Path, limit: u64) -> Result<Vec<u8>, KeyError> {
    let failed = |source| KeyError::File {
        operation: "read",
        path: path.to_path_buf(),
        source,
    };
    let mut file = File::open(path).map_err(failed)?;
    check_private(path, &file).map_err(failed)?.map_err(KeyError::Exposed)?;
    read_to_limit(&mut file, limit).map_err(failed)
}

/// Reads and opens a key file.
///
/// # Errors
/// As [`decrypt`], and when the file cannot be read.
pub fn read(path: &Path, passphrase: &Passphrase) -> Result<PrivateKey, KeyError> {
    let pem = read_private(path, MAX_FILE)?;
    decrypt(&path.display().to_string(), &pem, passphrase)
}

/// Writes a new key file, readable by its owner only. One that exists is never overwritten.
///
/// # Errors
/// As [`encrypt`], and when the file exists or cannot be written.
pub fn write_new(path: &Path, key: &PrivateKey, passphrase: &Passphrase) -> Result<(), KeyError> {
    let failed = |source| KeyError::File {
        operation: "write",
        path: path.to_path_buf(),
        source,
    };
    if path.symlink_metadata().is_ok() {
        return Err(failed(std::io::ErrorKind::AlreadyExists.into()));
    }
    durable::write_private(path, encrypt(key, passphrase)?.as_bytes()).map_err(failed)
}

fn check_bounds(scheme: &pkcs5::EncryptionScheme<'_>) -> Result<(), String> {
    let pkcs5::EncryptionScheme::Pbes2(parameters) = scheme else {
        return Err("encrypted with an obsolete scheme (PBES1)".to_owned());
    };
    match &parameters.kdf {
        Kdf::Scrypt(scrypt) => {
            let memory = scrypt
                .cost_parameter
                .saturating_mul(u64::from(scrypt.block_size))
                .saturating_mul(128);
            if memory > MAX_SCRYPT_MEMORY || memory.saturating_mul(scrypt.parallelization.into()) > MAX_SCRYPT_WORK {
                return Err("its scrypt parameters ask for too much memory or time".to_owned());
            }
        }
        Kdf::Pbkdf2(pbkdf2) => {
            if pbkdf2.iteration_count > MAX_PBKDF2_ROUNDS {
                return Err("its PBKDF2 parameters ask for too much time".to_owned());
            }
        }
        _ => return Err("encrypted with an unknown key derivation".to_owned()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Algorithm;
    use crate::process::Cmd;
    use std::os::unix::fs::PermissionsExt;

    fn passphrase() -> Passphrase {
        Passphrase::new(b"correct horse".to_vec()).unwrap()
    }

    #[test]
    fn a_key_file_is_private_and_openssl_opens_it_with_the_passphrase_only() {
        let directory = tempfile::tempdir().unwrap();
        for algorithm in [Algorithm::Ed25519, Algorithm::Rsa3072] {
            let key = PrivateKey::generate(algorithm).unwrap();
            let path = directory.path().join(format!("{algorithm}.pem"));
            write_new(&path, &key, &passphrase()).unwrap();
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
            assert_eq!(read(&path, &passphrase()).unwrap().public(), key.public());
            let public = |secret: &str| {
                Cmd::new("openssl")
                    .args(["pkey", "-pubout", "-outform", "DER", "-passin", "stdin", "-in"])
                    .arg(&path)
                    .input(format!("{secret}\n"))
                    .output()
            };
            assert_eq!(public("correct horse").unwrap(), key.public().to_der());
            assert!(public("wrong").is_err());
            assert!(matches!(
                write_new(&path, &key, &passphrase()),
                Err(KeyError::File { operation: "write", .. })
            ));
        }
    }

    #[test]
    fn a_key_file_that_others_can_get_at_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.pem");
        write_new(&path, &PrivateKey::generate(Algorithm::Ed25519).unwrap(), &passphrase()).unwrap();
        for (mode, taken) in [
            (0o644, false),
            (0o640, false),
            (0o602, false),
            (0o400, true),
            (0o600, true),
        ] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(
                !matches!(read(&path, &passphrase()), Err(KeyError::Exposed(_))),
                taken,
                "{mode:o}"
            );
        }
    }

    #[test]
    fn key_files_of_openssl_are_opened() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.pem");
        for extra in [&["-scrypt"][..], &["-v2", "aes-256-cbc", "-v2prf", "hmacWithSHA256"]] {
            let key = PrivateKey::generate(Algorithm::Ed25519).unwrap();
            Cmd::new("openssl")
                .args(["pkcs8", "-topk8", "-passout", "pass:correct horse", "-out"])
                .arg(&path)
                .args(extra)
                .input(key.to_unencrypted_pem().unwrap().to_vec())
                .run()
                .unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            assert_eq!(read(&path, &passphrase()).unwrap().public(), key.public());
        }
    }

    #[test]
    fn bad_key_files_say_what_is_wrong() {
        let key = PrivateKey::generate(Algorithm::Ed25519).unwrap();
        let pem = encrypt(&key, &passphrase()).unwrap();
        let wrong = Passphrase::new(b"wrong".to_vec()).unwrap();
        assert!(matches!(
            decrypt("k", pem.as_bytes(), &wrong),
            Err(KeyError::Passphrase { .. })
        ));
        let reason = |pem: &[u8]| decrypt("k", pem, &passphrase()).unwrap_err().to_string();
        assert!(reason(&pem.as_bytes()[..pem.len() / 2]).contains("not a whole PEM"));
        assert!(reason(b"").contains("not a whole PEM"));
        let openpgp = reason(b"-----BEGIN PGP PRIVATE KEY BLOCK-----\n");
        assert!(
            openpgp.contains(LABEL) && openpgp.contains("sign-transcript"),
            "{openpgp}"
        );
        assert!(reason(&[0xff; 100]).contains("not a PEM"));
        assert!(reason(&key.to_unencrypted_pem().unwrap()).contains("NOT encrypted"));
        assert!(reason(key.public().to_pem().unwrap().as_bytes()).contains("PUBLIC KEY"));
    }

    /// The recipe: our own file with N = 2^31 in place of 2^14, lengths mended by the encoder.
    #[test]
    fn absurd_work_is_refused_before_it_is_done() {
        for (cost, lanes) in [(1 << 31, 1), (1 << 14, 60_000)] {
            let kdf = Kdf::Scrypt(ScryptParams {
                salt: &[7; 16],
                cost_parameter: cost,
                block_size: 8,
                parallelization: lanes,
                key_length: None,
            });
            let info = EncryptedPrivateKeyInfo {
                encryption_algorithm: pkcs5::EncryptionScheme::Pbes2(Parameters {
                    kdf,
                    encryption: EncryptionScheme::Aes256Cbc { iv: &[0; 16] },
                }),
                encrypted_data: &[0; 64],
            };
            let pem = SecretDocument::try_from(info)
                .unwrap()
                .to_pem(LABEL, LineEnding::LF)
                .unwrap();
            let error = decrypt("k", pem.as_bytes(), &passphrase()).unwrap_err().to_string();
            assert!(error.contains("too much"), "{error}");
        }
    }
}
