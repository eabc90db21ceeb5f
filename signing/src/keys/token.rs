// SPDX-License-Identifier: GPL-3.0-or-later
//! Keys in a token (PKCS #11 2.40), named by URIs (RFC 7512): `pkcs11:token=vault;object=db?module-path=/usr/lib/….so`.
//!
//! # Attacks faced
//! - A key that the token would hand out: one that is extractable or not sensitive is refused.
//! - A PIN on a command line or in a URI that lies about: `pin-value` is refused; PINs come as passphrases do.
//! - The wrong one of several tokens or keys: a URI must fit exactly one of each, and what it does not understand refuses it.
//! - A module that somebody else can replace: it is named by its absolute path.
//!
//! # Defence not made
//! The module's code runs in this process, and a token that lies about its keys' attributes is believed.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use cryptoki::types::{AuthPin, Ulong};
use der::Encode;
use der::asn1::{OctetStringRef, UintRef};
use openssl::bn::{BigNum, BigNumContext};
use openssl::ec::{EcGroup, EcKey, EcPoint};
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::rsa::Rsa;

use super::{Algorithm, KeyError, Passphrase, PublicKey, SigningKey};
use crate::digest::Sha256;
use crate::output::Refused;

/// OBJECT IDENTIFIER prime256v1 in DER, as `CKA_EC_PARAMS` has it.
const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

/// Where a key lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyUri {
    text: String,
    module: PathBuf,
    token: Option<String>,
    serial: Option<String>,
    object: Option<String>,
    id: Option<Vec<u8>>,
}

impl KeyUri {
    /// Reads a URI.
    ///
    /// # Errors
    /// When it is none, has an attribute that is not understood or stands twice, or holds a PIN.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let bad = |reason: String| KeyError::Malformed {
            what: "the URI of the key".to_owned(),
            reason,
        };
        let rest = text
            .strip_prefix("pkcs11:")
            .ok_or_else(|| bad("it does not begin with pkcs11:".to_owned()))?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut uri = Self {
            text: text.to_owned(),
            module: PathBuf::new(),
            token: None,
            serial: None,
            object: None,
            id: None,
        };
        let mut seen = Vec::new();
        let attributes = path.split(';').chain(query.split('&'));
        for attribute in attributes.filter(|attribute| !attribute.is_empty()) {
            let (name, value) = attribute
                .split_once('=')
                .ok_or_else(|| bad(format!("{attribute:?} has no value")))?;
            if name.starts_with("pin-") {
                return Err(bad("a PIN has no place in it: give --passphrase-file".to_owned()));
            }
            let bytes = percent(value).ok_or_else(|| bad(format!("{name} is not percent-encoded")))?;
            let string = || String::from_utf8(bytes.clone()).map_err(|_| bad(format!("{name} is not UTF-8")));
            if seen.contains(&name) {
                return Err(bad(format!("{name} stands twice")));
            }
            seen.push(name);
            match name {
                "token" => uri.token = Some(string()?),
                "serial" => uri.serial = Some(string()?),
                "object" => uri.object = Some(string()?),
                "id" => uri.id = Some(bytes),
                "module-path" => uri.module = string()?.into(),
                "type" if value == "private" => {}
                _ => return Err(bad(format!("{attribute:?} is not understood"))),
            }
        }
        if !uri.module.is_absolute() {
            return Err(bad("it names no ?module-path= by an absolute path".to_owned()));
        }
        if uri.object.is_none() && uri.id.is_none() {
            return Err(bad("it names no key: object= or id= is missing".to_owned()));
        }
        Ok(uri)
    }

    fn template(&self, class: ObjectClass) -> Vec<Attribute> {
        let label = self.object.as_ref().map(|label| Attribute::Label(label.clone().into()));
        let id = self.id.clone().map(Attribute::Id);
        [Attribute::Class(class)].into_iter().chain(label).chain(id).collect()
    }

    fn failed(&self, operation: &'static str) -> impl Fn(Error) -> KeyError + '_ {
        move |error| match error {
            Error::Pkcs11(RvError::PinIncorrect | RvError::PinLenRange | RvError::PinInvalid, _) => {
                KeyError::Passphrase {
                    what: self.text.clone(),
                }
            }
            other => self.says(operation, other.to_string()),
        }
    }

    fn says(&self, operation: &'static str, reason: String) -> KeyError {
        KeyError::Token {
            operation,
            what: self.text.clone(),
            reason,
        }
    }

    fn session(&self, pin: &Passphrase, write: bool) -> Result<Session, KeyError> {
        let failed = self.failed("open");
        let module = Pkcs11::new(&self.module).map_err(&failed)?;
        let initialized = module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK));
        match initialized {
            // One module serves all keys of a process.
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
            Err(error) => return Err(failed(error)),
        }
        let slot = self.slot(&module)?;
        let session = if write {
            module.open_rw_session(slot)
        } else {
            module.open_ro_session(slot)
        }
        .map_err(&failed)?;
        let text = String::from_utf8(pin.expose().to_vec())
            .map_err(|_| self.says("open", "the PIN is not UTF-8".to_owned()))?;
        match session.login(UserType::User, Some(&AuthPin::new(text.into()))) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(session),
            Err(error) => Err(self.not_opened(error, &module, slot)),
        }
    }

    /// Why the PIN did not open the token, and how near it is to being locked: the token counts wrong ones.
    fn not_opened(&self, error: Error, module: &Pkcs11, slot: Slot) -> KeyError {
        let info = module.get_token_info(slot);
        let is = |flag: fn(&TokenInfo) -> bool| info.as_ref().is_ok_and(flag);
        let locked = matches!(error, Error::Pkcs11(RvError::PinLocked, _)) || is(TokenInfo::user_pin_locked);
        match self.failed("open")(error) {
            _ if locked => self.says("open", LOCKED.to_owned()),
            KeyError::Passphrase { .. } if is(TokenInfo::user_pin_final_try) => self.says(
                "open",
                "wrong passphrase (its PIN); one more wrong one locks it".to_owned(),
            ),
            other => other,
        }
    }

    fn slot(&self, module: &Pkcs11) -> Result<Slot, KeyError> {
        let failed = self.failed("open");
        let mut fitting = Vec::new();
        for slot in module.get_slots_with_token().map_err(&failed)? {
            let info = module.get_token_info(slot).map_err(&failed)?;
            let fits = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|wanted| wanted == is.trim_end());
            if info.token_initialized() && fits(&self.token, info.label()) && fits(&self.serial, info.serial_number()) {
                fitting.push(slot);
            }
        }
        match fitting[..] {
            [slot] => Ok(slot),
            _ => Err(self.says("open", format!("{} tokens fit the URI, and one must", fitting.len()))),
        }
    }

    fn one(&self, session: &Session, class: ObjectClass) -> Result<ObjectHandle, KeyError> {
        let found = session
            .find_objects(&self.template(class))
            .map_err(self.failed("open"))?;
        match found[..] {
            [handle] => Ok(handle),
            _ => Err(self.says(
                "open",
                format!("{} objects of class {class} fit the URI, and one must", found.len()),
            )),
        }
    }
}

const LOCKED: &str = "too many wrong PINs have locked it: unlock it with the token's own tools";

fn percent(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                bytes.extend(hex::decode(digits).ok()?);
            }
            other => bytes.push(other),
        }
    }
    Some(bytes)
}

/// A key in a token. It signs there.
pub struct TokenKey {
    uri: KeyUri,
    session: Mutex<Session>,
    handle: ObjectHandle,
    public: PublicKey,
}

impl TokenKey {
    /// Opens a key with the token's PIN.
    ///
    /// # Errors
    /// [`KeyError::Passphrase`] for a wrong PIN, [`KeyError::Exposed`] where the token would give the key away; else when the URI
    /// does not fit exactly one key of a kind that is used here.
    pub fn open(uri: &KeyUri, pin: &Passphrase) -> Result<Self, KeyError> {
        let session = uri.session(pin, false)?;
        let handle = uri.one(&session, ObjectClass::PRIVATE_KEY)?;
        let kept = [AttributeType::Sensitive, AttributeType::Extractable];
        let kept = session.get_attributes(handle, &kept).map_err(uri.failed("look at"))?;
        if !(kept.contains(&Attribute::Sensitive(true)) && kept.contains(&Attribute::Extractable(false))) {
            return Err(KeyError::Exposed(Refused(format!(
                "{} can be taken out of its token (it is extractable or not sensitive): make another one",
                uri.text
            ))));
        }
        let public = uri.one(&session, ObjectClass::PUBLIC_KEY)?;
        let public = public_key(uri, &session, public)?;
        Ok(Self {
            uri: uri.clone(),
            session: Mutex::new(session),
            handle,
            public,
        })
    }

    /// Makes a new key in the token: ECDSA on P-256 or RSA-3072, never to leave it.
    ///
    /// # Errors
    /// As [`TokenKey::open`], and when there is a key of that name already or the token cannot make one.
    pub fn generate(uri: &KeyUri, pin: &Passphrase, algorithm: Algorithm) -> Result<Self, KeyError> {
        let failed = uri.failed("make");
        let Some(label) = uri.object.clone() else {
            return Err(uri.says("make", "its URI must name an object".to_owned()));
        };
        let session = uri.session(pin, true)?;
        let there = session
            .find_objects(&uri.template(ObjectClass::PRIVATE_KEY))
            .map_err(&failed)?;
        if !there.is_empty() {
            return Err(uri.says(
                "make",
                "there is such a key already, and a key is never overwritten".to_owned(),
            ));
        }
        // An identifier ties the two halves together for other programs.
        let id = uri
            .id
            .clone()
            .unwrap_or_else(|| Sha256::of(label.as_bytes()).0[..8].to_vec());
        let common = [
            Attribute::Token(true),
            Attribute::Label(label.into()),
            Attribute::Id(id),
        ];
        let (mechanism, kind) = match algorithm {
            Algorithm::EcdsaP256 => (Mechanism::EccKeyPairGen, vec![Attribute::EcParams(P256.to_vec())]),
            Algorithm::Rsa3072 => (
                Mechanism::RsaPkcsKeyPairGen,
                vec![
                    Attribute::ModulusBits(Ulong::from(3072_u64)),
                    Attribute::PublicExponent(vec![1, 0, 1]),
                ],
            ),
            Algorithm::Ed25519 => return Err(uri.says("make", "tokens make P-256 and RSA-3072 here".to_owned())),
        };
        let public: Vec<_> = common
            .iter()
            .cloned()
            .chain([Attribute::Private(false), Attribute::Verify(true)])
            .chain(kind)
            .collect();
        let private: Vec<_> = common
            .into_iter()
            .chain([
                Attribute::Private(true),
                Attribute::Sensitive(true),
                Attribute::Extractable(false),
                Attribute::Sign(true),
            ])
            .collect();
        session
            .generate_key_pair(&mechanism, &public, &private)
            .map_err(&failed)?;
        drop(session);
        Self::open(uri, pin)
    }
}

impl TokenKey {
    fn ask(&self, mechanism: &Mechanism<'_>, data: &[u8]) -> Result<Vec<u8>, KeyError> {
        // Who died with the session in hand left at most a signature that nobody took.
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        session
            .sign(mechanism, self.handle, data)
            .map_err(self.uri.failed("sign with"))
    }
}

impl SigningKey for TokenKey {
    fn public(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        match self.public.algorithm() {
            Algorithm::EcdsaP256 => {
                let raw = self.sign_digest(Sha256::of(message))?;
                let der = |_| {
                    self.uri
                        .says("sign with", "its signature is no pair of numbers".to_owned())
                };
                let (r, s) = raw.split_at(raw.len() / 2);
                let signature = [UintRef::new(r).map_err(der)?, UintRef::new(s).map_err(der)?];
                signature.to_vec().to_der().map_err(der)
            }
            Algorithm::Rsa3072 => self.ask(&Mechanism::Sha256RsaPkcs, message),
            Algorithm::Ed25519 => Err(self
                .uri
                .says("sign with", "Ed25519 in a token is not used here".to_owned())),
        }
    }

    fn sign_digest(&self, digest: Sha256) -> Result<Vec<u8>, KeyError> {
        if self.public.algorithm() != Algorithm::EcdsaP256 {
            return Err(self
                .uri
                .says("sign a digest with", "it is not ECDSA on P-256".to_owned()));
        }
        self.ask(&Mechanism::Ecdsa, &digest.0)
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenKey({}, {:?})", self.uri.text, self.public)
    }
}

/// The public half, as the token has it beside the private one.
fn public_key(uri: &KeyUri, session: &Session, handle: ObjectHandle) -> Result<PublicKey, KeyError> {
    let wanted = [
        AttributeType::EcPoint,
        AttributeType::EcParams,
        AttributeType::Modulus,
        AttributeType::PublicExponent,
    ];
    let (mut point, mut curve, mut modulus, mut exponent) = (None, None, None, None);
    for attribute in session.get_attributes(handle, &wanted).map_err(uri.failed("look at"))? {
        match attribute {
            Attribute::EcPoint(bytes) => point = Some(bytes),
            Attribute::EcParams(bytes) => curve = Some(bytes),
            Attribute::Modulus(bytes) => modulus = Some(bytes),
            Attribute::PublicExponent(bytes) => exponent = Some(bytes),
            _ => {}
        }
    }
    let spki = || -> Result<Vec<u8>, Box<dyn std::error::Error>> {
        if let (Some(modulus), Some(exponent)) = (&modulus, &exponent) {
            let key = Rsa::from_public_components(BigNum::from_slice(modulus)?, BigNum::from_slice(exponent)?)?;
            return Ok(PKey::from_rsa(key)?.public_key_to_der()?);
        }
        if curve.as_deref() != Some(&P256[..]) {
            return Err("it is neither RSA nor ECDSA on P-256".into());
        }
        let point = point.as_deref().unwrap_or_default();
        // PKCS #11 wraps the point in an OCTET STRING; some tokens do not.
        let point = <OctetStringRef<'_> as der::Decode>::from_der(point).map_or(point, |wrapped| wrapped.as_bytes());
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
        let point = EcPoint::from_bytes(&group, point, &mut *BigNumContext::new()?)?;
        Ok(PKey::from_ec_key(EcKey::from_public_key(&group, &point)?)?.public_key_to_der()?)
    };
    let spki = spki().map_err(|error| uri.says("look at", error.to_string()))?;
    PublicKey::from_der(&uri.text, &spki)
}
