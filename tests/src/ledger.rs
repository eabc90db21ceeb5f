// SPDX-License-Identifier: GPL-3.0-or-later
//! Steps that are reused by content: a step whose inputs are those of its last success is not done again.

use std::fmt::Write as _;
use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use signing::digest::{Hasher, Sha256};
use signing::{clock, durable};

/// A finished step, as kept under `out/steps/`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Stamp {
    key: Sha256,
    seconds: f64,
    proved: String,
}

/// How a step ended in this run.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "lowercase")]
enum End {
    Done,
    Reused,
    Failed(String),
}

/// One line of the closing table.
#[derive(Debug, Clone, Serialize)]
struct Row {
    #[serde(rename = "step")]
    title: String,
    end: End,
    seconds: f64,
    proved: String,
}

/// The steps of one run. Stories on several threads share it.
pub struct Ledger {
    stamps: PathBuf,
    rows: Mutex<Vec<Row>>,
    screen: MultiProgress,
    since: Instant,
}

/// The inputs of a step, hashed into its key.
#[derive(Default)]
pub struct Inputs(Hasher);

impl Inputs {
    /// No inputs yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a text.
    #[must_use]
    pub fn text(mut self, text: &str) -> Self {
        self.0.update(&(text.len() as u64).to_le_bytes());
        self.0.update(text.as_bytes());
        self
    }

    /// Adds a file's content.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn file(self, path: &Path) -> Result<Self> {
        let (digest, _) = Sha256::of_file(path).with_context(|| format!("reading {}", path.display()))?;
        Ok(self.text(&digest.to_string()))
    }

    /// Adds the content and names of all files below a directory, build output excepted.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn tree(mut self, directory: &Path) -> Result<Self> {
        let mut entries = fs::read_dir(directory)
            .with_context(|| format!("reading {}", directory.display()))?
            .map(|entry| Ok(entry?.path()))
            .collect::<std::io::Result<Vec<_>>>()?;
        entries.sort();
        for entry in entries {
            let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if entry.is_dir() && !entry.is_symlink() {
                if !matches!(name.as_str(), "target" | "out" | ".git") {
                    self = self.text(&name).tree(&entry)?;
                }
            } else if entry.is_symlink() {
                self = self.text(&name).text(&fs::read_link(&entry)?.to_string_lossy());
            } else {
                self = self.text(&name).file(&entry)?;
            }
        }
        Ok(self)
    }

    fn finish(self) -> Sha256 {
        self.0.finish().0
    }
}

impl Ledger {
    /// Opens the ledger below `out`.
    ///
    /// # Errors
    /// When its directory cannot be made.
    pub fn open(out: &Path) -> Result<Self> {
        let stamps = out.join("steps");
        fs::create_dir_all(&stamps).with_context(|| format!("making {}", stamps.display()))?;
        let screen = MultiProgress::new();
        Ok(Self {
            stamps,
            rows: Mutex::default(),
            screen,
            since: Instant::now(),
        })
    }

    /// Does a step, or takes its last success when inputs and outputs are as they were then.
    ///
    /// `work` returns what it proved, in a few words.
    ///
    /// # Errors
    /// What `work` returned; the table tells it too.
    pub fn step(
        &self,
        id: &str,
        title: &str,
        inputs: Inputs,
        outputs: &[&Path],
        work: impl FnOnce() -> Result<String>,
    ) -> Result<()> {
        let key = inputs.finish();
        let place = self.stamps.join(format!("{id}.json"));
        if let Some(stamp) = last_success(&place, key, outputs) {
            self.say(&format!("= {title}: as before"));
            self.add(Row {
                title: title.into(),
                end: End::Reused,
                seconds: stamp.seconds,
                proved: stamp.proved,
            });
            return Ok(());
        }
        drop(fs::remove_file(&place));
        self.say(&format!("> {title}"));
        let bar = self.screen.add(ProgressBar::new_spinner());
        bar.set_style(ProgressStyle::with_template("  {spinner} {elapsed} {msg}")?);
        bar.set_message(title.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        let start = Instant::now();
        let result = work();
        let seconds = start.elapsed().as_secs_f64();
        bar.finish_and_clear();
        match result {
            Ok(proved) => {
                let stamp = Stamp {
                    key,
                    seconds,
                    proved: proved.clone(),
                };
                durable::write(&place, &serde_json::to_vec_pretty(&stamp)?)?;
                self.say(&format!("+ {title}: {proved} ({seconds:.0} s)"));
                self.add(Row {
                    title: title.into(),
                    end: End::Done,
                    seconds,
                    proved,
                });
                Ok(())
            }
            Err(error) => {
                self.say(&format!("! {title}: {error:#}"));
                let end = End::Failed(format!("{error:#}"));
                self.add(Row {
                    title: title.into(),
                    end,
                    seconds,
                    proved: String::new(),
                });
                bail!("the step \"{title}\" failed: {error:#}")
            }
        }
    }

    fn say(&self, text: &str) {
        let line = format!("[{}] {text}", clock::now().format("%H:%M:%S"));
        if std::io::stderr().is_terminal() {
            drop(self.screen.println(line));
        } else {
            eprintln!("{line}");
        }
    }

    fn add(&self, row: Row) {
        self.rows
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .push(row);
    }

    /// Leaves the closing table in a file, for scripts.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, place: &Path) -> Result<()> {
        let rows = self.rows.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        durable::write(place, &serde_json::to_vec_pretty(&*rows)?)
            .with_context(|| format!("writing {}", place.display()))
    }

    /// The closing table, and whether nothing failed. Its last line counts, in the words that test runners use.
    #[must_use]
    pub fn table(&self) -> (String, bool) {
        let rows = self.rows.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let width = rows.iter().map(|row| row.title.chars().count()).max().unwrap_or(0);
        let mut text = String::new();
        let mut failed = 0;
        for row in rows.iter() {
            let (mark, proved) = match &row.end {
                End::Done => ("done  ", row.proved.clone()),
                End::Reused => ("reused", row.proved.clone()),
                End::Failed(why) => {
                    failed += 1;
                    ("FAILED", why.lines().next().unwrap_or_default().to_owned())
                }
            };
            let pad = width - row.title.chars().count();
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{mark}  {}{:pad$}  {:>6.0} s  {proved}",
                row.title, "", row.seconds
            );
        }
        let _ = writeln!(text, "\nthis run took {:.0} s", self.since.elapsed().as_secs_f64());
        let _ = write!(text, "journey: {} passed, {failed} failed", rows.len() - failed);
        (text, failed == 0)
    }
}

fn last_success(place: &Path, key: Sha256, outputs: &[&Path]) -> Option<Stamp> {
    let stamp: Stamp = serde_json::from_slice(&fs::read(place).ok()?).ok()?;
    (stamp.key == key && outputs.iter().all(|output| output.exists())).then_some(stamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_reused_by_content_and_done_again_when_an_output_is_gone() {
        let out = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(out.path()).unwrap();
        let product = out.path().join("product");
        let mut done = 0;
        let mut run = |input: &str| {
            ledger
                .step("s", "a step", Inputs::new().text(input), &[&product], || {
                    done += 1;
                    fs::write(&product, "x")?;
                    Ok("made".into())
                })
                .unwrap();
            done
        };
        assert_eq!(run("one"), 1);
        assert_eq!(run("one"), 1);
        assert_eq!(run("two"), 2);
        fs::remove_file(&product).unwrap();
        assert_eq!(run("two"), 3);
    }

    #[test]
    fn a_failed_step_is_not_taken_for_a_success_later() {
        let out = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(out.path()).unwrap();
        let step = |work: Result<String>| ledger.step("s", "a step", Inputs::new(), &[], || work);
        assert!(step(Ok("first".into())).is_ok());
        drop(fs::remove_file(out.path().join("steps/s.json")));
        assert!(step(Err(anyhow::anyhow!("broken"))).is_err());
        assert!(!out.path().join("steps/s.json").exists());
        assert!(ledger.table().0.ends_with("1 passed, 1 failed"));
    }
}
