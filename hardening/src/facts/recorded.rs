// SPDX-License-Identifier: GPL-3.0-or-later
//! Facts written to a directory and read back: the same audit on another machine, and the tests' fixtures.
//!
//! `index.json` says for every question asked whether the answer is known; contents lie beside it under `files/` and
//! `commands/`. A question that was not asked when the recording was made has no answer: it is unknown, not "absent".
//!
//! The attacks: a recording is what a host said about itself, so a host that lies makes a lying recording; it is evidence
//! as good as its way here. A path in the index that leaves the directory is refused, lengths are bounded. The defence not
//! made: nothing signs a recording.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};
use signing::digest::{self, Sha256};
use signing::durable;

use super::{FILE_LIMIT, Facts, Found, Known, Ran, Unknown, Walk};

const INDEX: &str = "index.json";
const FORMAT: u32 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
enum Answer {
    Absent,
    Unknown { why: String },
    Content { file: String },
    Names { names: Vec<String> },
    Found { found: Box<Found> },
    Digest { sha256: Sha256, size: u64 },
    Walked { entries: Vec<Found> },
    Signed { by: String },
    NotSigned { why: String },
    Ran { code: i32, stdout: String, stderr: String },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Index {
    format: u32,
    answers: BTreeMap<String, Answer>,
}

/// A recording.
#[derive(Debug)]
pub struct Recorded {
    directory: PathBuf,
    index: Index,
}

impl Recorded {
    /// Opens a recording.
    ///
    /// # Errors
    /// When its index is missing or not one of ours.
    pub fn open(directory: &Path) -> Result<Self, Unknown> {
        let path = directory.join(INDEX);
        let unknown = |why: String| Unknown(format!("cannot read the recording {}: {why}", path.display()));
        let bytes = digest::read_bounded(&path, 4 * FILE_LIMIT).map_err(|error| unknown(error.to_string()))?;
        let index: Index = serde_json::from_slice(&bytes).map_err(|error| unknown(error.to_string()))?;
        if index.format != FORMAT {
            return Err(unknown(format!(
                "its format is {}, this program knows {FORMAT}",
                index.format
            )));
        }
        Ok(Self {
            directory: directory.to_path_buf(),
            index,
        })
    }

    fn answer(&self, question: &str) -> Known<&Answer> {
        match self.index.answers.get(question) {
            Some(Answer::Unknown { why }) => Err(Unknown(why.clone())),
            Some(answer) => Ok(answer),
            None => Err(Unknown(format!("the recording does not hold `{question}`"))),
        }
    }

    fn content(&self, file: &str) -> Known<Vec<u8>> {
        let inside = Path::new(file);
        if !inside.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(Unknown(format!("the recording names {file:?}, outside its directory")));
        }
        digest::read_bounded(&self.directory.join(inside), FILE_LIMIT)
            .map_err(|error| Unknown(format!("cannot read {file} of the recording: {error}")))
    }

    fn odd<T>(question: &str) -> Known<T> {
        Err(Unknown(format!(
            "the recording's answer to `{question}` is of another kind"
        )))
    }
}

impl Facts for Recorded {
    fn read(&self, path: &str) -> Known<Option<Vec<u8>>> {
        let question = format!("read {path}");
        match self.answer(&question)? {
            Answer::Absent => Ok(None),
            Answer::Content { file } => self.content(file).map(Some),
            _ => Self::odd(&question),
        }
    }

    fn list(&self, path: &str) -> Known<Option<Vec<String>>> {
        let question = format!("list {path}");
        match self.answer(&question)? {
            Answer::Absent => Ok(None),
            Answer::Names { names } => Ok(Some(names.clone())),
            _ => Self::odd(&question),
        }
    }

    fn stat(&self, path: &str) -> Known<Option<Found>> {
        let question = format!("stat {path}");
        match self.answer(&question)? {
            Answer::Absent => Ok(None),
            Answer::Found { found } => Ok(Some((**found).clone())),
            _ => Self::odd(&question),
        }
    }

    fn digest(&self, path: &str) -> Known<Option<(Sha256, u64)>> {
        let question = format!("digest {path}");
        match self.answer(&question)? {
            Answer::Absent => Ok(None),
            Answer::Digest { sha256, size } => Ok(Some((*sha256, *size))),
            _ => Self::odd(&question),
        }
    }

    fn walk(&self, path: &str, walk: Walk) -> Known<Option<Vec<Found>>> {
        let question = walk_question(path, walk);
        match self.answer(&question)? {
            Answer::Absent => Ok(None),
            Answer::Walked { entries } => Ok(Some(entries.clone())),
            _ => Self::odd(&question),
        }
    }

    fn section(&self, path: &str, section: &str) -> Known<Option<Vec<u8>>> {
        let question = format!("section {section} {path}");
        match self.answer(&question)? {
            Answer::Absent => Ok(None),
            Answer::Content { file } => self.content(file).map(Some),
            _ => Self::odd(&question),
        }
    }

    fn boot_signature(&self, path: &str, certificate: &[u8]) -> Known<Option<Result<String, String>>> {
        let question = signature_question(path, certificate);
        match self.answer(&question)? {
            Answer::Absent => Ok(None),
            Answer::Signed { by } => Ok(Some(Ok(by.clone()))),
            Answer::NotSigned { why } => Ok(Some(Err(why.clone()))),
            _ => Self::odd(&question),
        }
    }

    fn run(&self, command: &[&str]) -> Known<Ran> {
        let question = format!("run {}", command.join(" "));
        match self.answer(&question)? {
            Answer::Ran { code, stdout, stderr } => {
                let text = |file| Ok::<_, Unknown>(String::from_utf8_lossy(&self.content(file)?).into_owned());
                Ok(Ran {
                    code: *code,
                    stdout: text(stdout)?,
                    stderr: text(stderr)?,
                })
            }
            _ => Self::odd(&question),
        }
    }
}

fn signature_question(path: &str, certificate: &[u8]) -> String {
    format!("signature {} {path}", Sha256::of(certificate))
}

fn walk_question(path: &str, walk: Walk) -> String {
    match walk {
        Walk::Special => format!("walk special {path}"),
        Walk::All => format!("walk all {path}"),
    }
}

/// The shadow file with each hash cut down to the name of its method.
fn redact(shadow: &[u8]) -> String {
    let text = String::from_utf8_lossy(shadow);
    let lines = text.lines().map(|line| {
        let mut fields: Vec<String> = line.split(':').map(str::to_owned).collect();
        if let Some(hash) = fields.get_mut(1) {
            let locked = if hash.starts_with('!') { "!" } else { "" };
            let bare = hash.trim_start_matches('!');
            if let Some(method) = bare.strip_prefix('$').and_then(|rest| rest.split('$').next()) {
                *hash = format!("{locked}${method}$redacted");
            } else if bare.len() > 1 {
                *hash = format!("{locked}redacted");
            }
        }
        fields.join(":")
    });
    lines.map(|line| line + "\n").collect()
}

/// Passes questions on and writes down every answer.
pub struct Recorder<'a> {
    inner: &'a dyn Facts,
    directory: PathBuf,
    answers: RefCell<BTreeMap<String, Answer>>,
}

impl<'a> Recorder<'a> {
    /// A recorder into a directory that does not exist yet or is empty.
    ///
    /// # Errors
    /// When the directory cannot be made or holds something.
    pub fn new(inner: &'a dyn Facts, directory: &Path) -> std::io::Result<Self> {
        fs::create_dir_all(directory)?;
        if fs::read_dir(directory)?.next().is_some() {
            return Err(std::io::Error::new(
                std::io::ErrorKind::AlreadyExists,
                "the directory is not empty: name a new one for the recording",
            ));
        }
        Ok(Self {
            inner,
            directory: directory.to_path_buf(),
            answers: RefCell::default(),
        })
    }

    /// Writes the index. Without it the directory is no recording.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(self) -> std::io::Result<()> {
        let index = Index {
            format: FORMAT,
            answers: self.answers.into_inner(),
        };
        durable::write(&self.directory.join(INDEX), &serde_json::to_vec_pretty(&index)?)
    }

    fn note<T>(&self, question: String, answer: &Known<T>, write: impl FnOnce(&T) -> Known<Answer>) {
        let noted = match answer {
            Ok(value) => write(value).unwrap_or_else(|Unknown(why)| Answer::Unknown { why }),
            Err(Unknown(why)) => Answer::Unknown { why: why.clone() },
        };
        self.answers.borrow_mut().insert(question, noted);
    }

    fn keep(&self, folder: &str, name: &str, bytes: &[u8]) -> Known<String> {
        // A readable name, and a digest of the question so that two never meet.
        let safe: String = name
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || "._-".contains(c) {
                    c
                } else {
                    '_'
                }
            })
            .take(80)
            .collect();
        let mark = Sha256::of(name.as_bytes()).to_string();
        let file = format!("{folder}/{}-{}", safe.trim_matches(['_', '.']), &mark[..8]);
        let place = self.directory.join(&file);
        fs::create_dir_all(self.directory.join(folder))
            .and_then(|()| durable::write(&place, bytes))
            .map_err(|error| Unknown(format!("cannot write {}: {error}", place.display())))?;
        Ok(file)
    }
}

impl Facts for Recorder<'_> {
    fn read(&self, path: &str) -> Known<Option<Vec<u8>>> {
        let answer = self.inner.read(path);
        self.note(format!("read {path}"), &answer, |content| match content {
            None => Ok(Answer::Absent),
            // A recording travels: it holds no password hash.
            Some(bytes) if path == "/etc/shadow" => Ok(Answer::Content {
                file: self.keep("files", path, redact(bytes).as_bytes())?,
            }),
            Some(bytes) => Ok(Answer::Content {
                file: self.keep("files", path, bytes)?,
            }),
        });
        answer
    }

    fn list(&self, path: &str) -> Known<Option<Vec<String>>> {
        let answer = self.inner.list(path);
        self.note(format!("list {path}"), &answer, |names| {
            Ok(names
                .as_ref()
                .map_or(Answer::Absent, |names| Answer::Names { names: names.clone() }))
        });
        answer
    }

    fn stat(&self, path: &str) -> Known<Option<Found>> {
        let answer = self.inner.stat(path);
        self.note(format!("stat {path}"), &answer, |found| {
            Ok(found.as_ref().map_or(Answer::Absent, |found| Answer::Found {
                found: Box::new(found.clone()),
            }))
        });
        answer
    }

    fn digest(&self, path: &str) -> Known<Option<(Sha256, u64)>> {
        let answer = self.inner.digest(path);
        self.note(format!("digest {path}"), &answer, |known| {
            Ok(known.map_or(Answer::Absent, |(sha256, size)| Answer::Digest { sha256, size }))
        });
        answer
    }

    fn walk(&self, path: &str, walk: Walk) -> Known<Option<Vec<Found>>> {
        let answer = self.inner.walk(path, walk);
        self.note(walk_question(path, walk), &answer, |entries| {
            Ok(entries.as_ref().map_or(Answer::Absent, |entries| Answer::Walked {
                entries: entries.clone(),
            }))
        });
        answer
    }

    fn section(&self, path: &str, section: &str) -> Known<Option<Vec<u8>>> {
        let answer = self.inner.section(path, section);
        self.note(format!("section {section} {path}"), &answer, |content| match content {
            None => Ok(Answer::Absent),
            Some(bytes) => Ok(Answer::Content {
                file: self.keep("sections", &format!("{path}{section}"), bytes)?,
            }),
        });
        answer
    }

    fn boot_signature(&self, path: &str, certificate: &[u8]) -> Known<Option<Result<String, String>>> {
        let answer = self.inner.boot_signature(path, certificate);
        self.note(signature_question(path, certificate), &answer, |signature| {
            Ok(match signature {
                None => Answer::Absent,
                Some(Ok(by)) => Answer::Signed { by: by.clone() },
                Some(Err(why)) => Answer::NotSigned { why: why.clone() },
            })
        });
        answer
    }

    fn run(&self, command: &[&str]) -> Known<Ran> {
        let answer = self.inner.run(command);
        let line = command.join(" ");
        self.note(format!("run {line}"), &answer, |ran| {
            Ok(Answer::Ran {
                code: ran.code,
                stdout: self.keep("commands", &format!("{line}.out"), ran.stdout.as_bytes())?,
                stderr: self.keep("commands", &format!("{line}.err"), ran.stderr.as_bytes())?,
            })
        });
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::super::Live;
    use super::*;

    #[test]
    fn a_recording_answers_as_the_system_did() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("recording");
        let live = Live::default();
        let recorder = Recorder::new(&live, &place).unwrap();
        let asked = |facts: &dyn Facts| {
            (
                facts.read("/etc/passwd"),
                facts.read("/no/such"),
                facts.run(&["sh", "-c", "echo out; echo err >&2; exit 3"]),
                facts.run(&["no-such-program"]),
                facts.list("/etc/no-such"),
            )
        };
        let first = asked(&recorder);
        recorder.finish().unwrap();
        let recorded = Recorded::open(&place).unwrap();
        assert_eq!(asked(&recorded), first);
        assert!(recorded.read("/etc/group").unwrap_err().0.contains("does not hold"));
    }

    #[test]
    fn a_recording_cannot_read_outside_itself() {
        let directory = tempfile::tempdir().unwrap();
        let index = r#"{"format":1,"answers":{"read /x":{"is":"content","file":"../../etc/passwd"}}}"#;
        fs::write(directory.path().join(INDEX), index).unwrap();
        let recorded = Recorded::open(directory.path()).unwrap();
        assert!(recorded.read("/x").unwrap_err().0.contains("outside"));
    }

    #[test]
    fn a_recording_holds_no_password_hash() {
        let shadow = b"root:!*:1::::::\nann:$y$j9T$salt$hash:1::::::\nbob:!$6$s$h:1::::::\nold:aaOldDes:1::::::\n";
        assert_eq!(
            redact(shadow),
            "root:!*:1::::::\nann:$y$redacted:1::::::\nbob:!$6$redacted:1::::::\nold:redacted:1::::::\n"
        );
    }

    #[test]
    fn a_recording_without_its_index_is_none() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Recorded::open(directory.path()).is_err());
    }
}
