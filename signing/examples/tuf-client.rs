// SPDX-License-Identifier: GPL-3.0-or-later
//! The TUF client under the command line of the public conformance suite (tuf-conformance, CLIENT-CLI.md):
//!
//! `pytest tuf_conformance --entrypoint target/debug/examples/tuf-client`
//!
//! It speaks plain HTTP/1.0 to the suite's own server and is no part of any product.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use signing::tuf::limits::SameVersion;
use signing::tuf::names::encode_role;
use signing::tuf::{Client, Datastore, Limits, Source, SourceError};
use signing::{clock, durable};

#[derive(Parser)]
struct Arguments {
    #[arg(long)]
    metadata_dir: PathBuf,
    #[arg(long, default_value = "")]
    metadata_url: String,
    #[arg(long)]
    target_name: Vec<String>,
    #[arg(long)]
    target_dir: Option<PathBuf>,
    #[arg(long, default_value = "")]
    target_base_url: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Init { trusted_root: PathBuf },
    Refresh,
    Download,
}

/// A repository behind two `http://HOST:PORT/PATH` addresses.
struct Http {
    metadata: String,
    targets: String,
}

fn get(base: &str, name: &str) -> io::Result<Option<BufReader<TcpStream>>> {
    let address = base.strip_prefix("http://").unwrap_or(base);
    let (host, path) = address.split_once('/').unwrap_or((address, ""));
    let mut stream = TcpStream::connect(host)?;
    let path = path.trim_end_matches('/');
    write!(stream, "GET /{path}/{name} HTTP/1.0\r\nHost: {host}\r\n\r\n")?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.by_ref().take(1024).read_line(&mut line)?;
    let status = line.split(' ').nth(1).unwrap_or_default().to_owned();
    while line.trim_end() != "" {
        line.clear();
        reader.by_ref().take(8192).read_line(&mut line)?;
    }
    match status.as_str() {
        "200" => Ok(Some(reader)),
        "404" | "403" => Ok(None),
        other => Err(io::Error::other(format!("HTTP status {other:?}"))),
    }
}

impl Source for Http {
    fn metadata(&mut self, name: &str, max: u64) -> Result<Option<Vec<u8>>, SourceError> {
        let fail = |source| SourceError::Io {
            name: name.to_owned(),
            source,
        };
        let Some(reader) = get(&self.metadata, name).map_err(fail)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        reader.take(max + 1).read_to_end(&mut bytes).map_err(fail)?;
        Ok(Some(bytes))
    }

    fn target(&mut self, path: &str) -> Result<Option<Box<dyn Read + '_>>, SourceError> {
        match get(&self.targets, path) {
            Ok(reader) => Ok(reader.map(|reader| Box::new(reader) as Box<dyn Read>)),
            Err(source) => Err(SourceError::Io {
                name: path.to_owned(),
                source,
            }),
        }
    }
}

/// The datastore lies beside the directory that the suite looks into.
fn store(metadata: &Path) -> PathBuf {
    metadata.with_extension("store")
}

/// Shows the suite what is trusted, under the names that it expects.
fn show(metadata: &Path) -> Result<()> {
    for old in fs::read_dir(metadata)? {
        fs::remove_file(old?.path())?;
    }
    for entry in fs::read_dir(store(metadata))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(stem) = name.strip_suffix(".json") else {
            continue;
        };
        let shown = match stem.split_once('.') {
            Some(("timestamp" | "snapshot", _)) => stem.split('.').next().unwrap_or(stem).to_owned(),
            Some(("role", role)) => role.to_owned(),
            _ => stem.to_owned(),
        };
        fs::copy(entry.path(), metadata.join(format!("{shown}.json")))?;
    }
    Ok(())
}

fn follow(arguments: &Arguments) -> Result<()> {
    let source = Http {
        metadata: arguments.metadata_url.clone(),
        targets: arguments.target_base_url.clone(),
    };
    let limits = Limits {
        same_version: SameVersion::Keep,
        ..Limits::default()
    };
    let mut client = Client::open(
        Datastore::open(&store(&arguments.metadata_dir))?,
        source,
        limits,
        clock::now(),
    )?;
    client.refresh()?;
    for name in &arguments.target_name {
        let target = client
            .locate(name)?
            .with_context(|| format!("there is no target {name:?}"))?;
        let directory = arguments.target_dir.as_deref().context("--target-dir is missing")?;
        let place = directory.join(encode_role(name));
        if matches!(fs::read(&place), Ok(bytes) if target.hashes.match_bytes(&bytes)) {
            continue;
        }
        let mut writer = durable::Writer::new(&place, 0o644)?;
        client.fetch_located(&target, &mut writer)?;
        writer.commit()?;
    }
    Ok(())
}

fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.command {
        Command::Init { trusted_root } => {
            let place = store(&arguments.metadata_dir);
            Datastore::create(&place, &fs::read(trusted_root)?)?;
            show(&arguments.metadata_dir)
        }
        Command::Refresh | Command::Download => {
            let result = follow(arguments);
            show(&arguments.metadata_dir)?;
            if arguments.metadata_url.is_empty() {
                bail!("--metadata-url is missing");
            }
            result
        }
    }
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(io::stderr(), "tuf-client: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
