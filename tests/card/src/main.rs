// SPDX-License-Identifier: GPL-3.0-or-later
//! An OpenPGP card in memory, behind the virtual reader that Debian's pcscd has from vsmartcard: the card's own program (opcard)
//! on a platform in software. For tests only: its random numbers are the same each time, and its keys end with it.

use std::net::{Ipv4Addr, SocketAddr};

use heapless::Vec as Fixed;
use iso7816::command::CommandView;
use opcard::{Card, Options};
use trussed::backend::{Backend as _, BackendId};
use trussed::platform::Platform;
use trussed::serde_extensions::{ExtensionDispatch, ExtensionId, ExtensionImpl};
use trussed::service::ServiceResources;
use trussed::types::Context;
use trussed::virt::{self, StoreConfig};
use trussed_auth::AuthExtension;
use trussed_auth_backend::{AuthBackend, AuthContext, FilesystemLayout, MAX_HW_KEY_LEN};
use trussed_chunked::ChunkedExtension;
use trussed_core::Error;
use trussed_core::api::{Reply, Request, reply, request};
use trussed_core::types::{Bytes, Location};
use trussed_staging::{StagingBackend, StagingContext};
use trussed_wrap_key_to_file::WrapKeyToFileExtension;
use vpicc::VSmartCard;

/// The longest command and response of an OpenPGP card.
const LONGEST: usize = 7609;

enum Parts {
    Auth,
    Staging,
}

const BACKENDS: &[BackendId<Parts>] = &[
    BackendId::Custom(Parts::Auth),
    BackendId::Custom(Parts::Staging),
    BackendId::Core,
];

#[derive(Clone, Copy)]
enum Extension {
    Auth,
    Chunked,
    WrapKeyToFile,
}

impl From<Extension> for u8 {
    fn from(extension: Extension) -> Self {
        extension as Self
    }
}

impl TryFrom<u8> for Extension {
    type Error = Error;

    fn try_from(number: u8) -> Result<Self, Error> {
        let all = [Self::Auth, Self::Chunked, Self::WrapKeyToFile];
        all.get(usize::from(number)).copied().ok_or(Error::FunctionNotSupported)
    }
}

/// What a card's program asks of its platform, beside what the platform itself does: PINs, and keys kept in files.
struct Helpers {
    auth: AuthBackend,
    staging: StagingBackend,
}

#[derive(Default)]
struct Contexts {
    auth: AuthContext,
    staging: StagingContext,
}

impl ExtensionId<AuthExtension> for Helpers {
    type Id = Extension;
    const ID: Extension = Extension::Auth;
}

impl ExtensionId<ChunkedExtension> for Helpers {
    type Id = Extension;
    const ID: Extension = Extension::Chunked;
}

impl ExtensionId<WrapKeyToFileExtension> for Helpers {
    type Id = Extension;
    const ID: Extension = Extension::WrapKeyToFile;
}

impl ExtensionDispatch for Helpers {
    type BackendId = Parts;
    type Context = Contexts;
    type ExtensionId = Extension;

    fn core_request<P: Platform>(
        &mut self,
        part: &Parts,
        context: &mut Context<Contexts>,
        request: &Request,
        resources: &mut ServiceResources<P>,
    ) -> Result<Reply, Error> {
        let (core, own) = (&mut context.core, &mut context.backends);
        match part {
            Parts::Auth => self.auth.request(core, &mut own.auth, request, resources),
            Parts::Staging => self.staging.request(core, &mut own.staging, request, resources),
        }
    }

    fn extension_request<P: Platform>(
        &mut self,
        part: &Parts,
        extension: &Extension,
        context: &mut Context<Contexts>,
        request: &request::SerdeExtension,
        resources: &mut ServiceResources<P>,
    ) -> Result<reply::SerdeExtension, Error> {
        let (core, own) = (&mut context.core, &mut context.backends);
        match (part, extension) {
            (Parts::Auth, Extension::Auth) => {
                self.auth
                    .extension_request_serialized(core, &mut own.auth, request, resources)
            }
            (Parts::Staging, Extension::Chunked) => ExtensionImpl::<ChunkedExtension>::extension_request_serialized(
                &mut self.staging,
                core,
                &mut own.staging,
                request,
                resources,
            ),
            (Parts::Staging, Extension::WrapKeyToFile) => {
                ExtensionImpl::<WrapKeyToFileExtension>::extension_request_serialized(
                    &mut self.staging,
                    core,
                    &mut own.staging,
                    request,
                    resources,
                )
            }
            _ => Err(Error::RequestNotAvailable),
        }
    }
}

/// A card in the virtual reader, whose commands may come in pieces and whose answers may go in some (ISO 7816-4, 5.3.3 and 5.3.4).
struct Reader<C: opcard::Client> {
    card: Card<C>,
    command: Vec<u8>,
    answer: Vec<u8>,
}

impl<C: opcard::Client> Reader<C> {
    fn ask(&mut self, apdu: &[u8]) -> Vec<u8> {
        let Ok(command) = CommandView::try_from(apdu) else {
            return vec![0x67, 0x00];
        };
        let mut reply: Fixed<u8, LONGEST> = Fixed::new();
        match self.card.handle(command, reply.as_mut_view()) {
            Ok(()) => {
                self.answer = reply.to_vec();
                self.next(command.expected())
            }
            Err(status) => <[u8; 2]>::from(status).to_vec(),
        }
    }

    /// As much of the answer as the reader takes, and whether there is more.
    fn next(&mut self, most: usize) -> Vec<u8> {
        let rest = self.answer.split_off(most.min(self.answer.len()));
        let mut piece = std::mem::replace(&mut self.answer, rest);
        match self.answer.len() {
            0 => piece.extend([0x90, 0x00]),
            left => piece.extend([0x61, u8::try_from(left).unwrap_or(0)]),
        }
        piece
    }
}

impl<C: opcard::Client> VSmartCard for Reader<C> {
    fn power_off(&mut self) {
        self.reset();
    }

    fn reset(&mut self) {
        self.card.reset();
        self.command.clear();
        self.answer.clear();
    }

    fn execute(&mut self, apdu: &[u8]) -> Vec<u8> {
        let [class, instruction, _, _, body @ ..] = apdu else {
            return vec![0x67, 0x00];
        };
        if *instruction == 0xc0 {
            let most = body
                .first()
                .map_or(256, |most| if *most == 0 { 256 } else { usize::from(*most) });
            return self.next(most);
        }
        let data = match body {
            [length, data @ ..] if *length != 0 => data.get(..usize::from(*length)).unwrap_or_default(),
            _ => &[],
        };
        if class & 0x10 != 0 {
            self.command.extend(data);
            return if self.command.len() > LONGEST {
                vec![0x67, 0x00]
            } else {
                vec![0x90, 0x00]
            };
        }
        if self.command.is_empty() {
            return self.ask(apdu);
        }
        // The last piece: the whole as one command of extended length.
        let mut whole = std::mem::take(&mut self.command);
        whole.extend(data);
        let [high, low] = u16::try_from(whole.len()).unwrap_or(u16::MAX).to_be_bytes();
        let mut joined = vec![*class, *instruction, apdu[2], apdu[3], 0, high, low];
        joined.extend(whole);
        joined.extend([0, 0]);
        self.ask(&joined)
    }
}

fn main() {
    let port = std::env::args()
        .nth(1)
        .and_then(|port| port.parse().ok())
        .expect("usage: card PORT");
    let helpers = Helpers {
        auth: AuthBackend::with_hw_key(
            Location::Internal,
            Bytes::<MAX_HW_KEY_LEN>::from(&[7; 16]),
            FilesystemLayout::V0,
        ),
        staging: StagingBackend::new(),
    };
    virt::with_platform(StoreConfig::ram(), |platform| {
        platform.run_client_with_backends("opcard", helpers, BACKENDS, |client| {
            let mut reader = Reader {
                card: Card::new(client, Options::default()),
                command: Vec::new(),
                answer: Vec::new(),
            };
            let connection = vpicc::connect_socket(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
                .expect("the virtual reader does not answer");
            connection.run(&mut reader).expect("the virtual reader went away");
        });
    });
}
