// SPDX-License-Identifier: GPL-3.0-or-later
//! The steps of an installation and the events that they emit. Screens, the serial console and the record only show
//! events; they decide nothing.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
pub use hypervisor::events::Phase;
use serde::{Deserialize, Serialize};
use signing::output::chain;

/// A step, in the order in which they are done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Signatures, hashes and bytes of the medium, before any disk is touched.
    VerifyMedium,
    /// The machine is looked at.
    Inventory,
    /// What will be done is decided, and refused if it must not be.
    Plan,
    /// The old boot data goes first, then every old signature.
    Erase,
    /// The new partition table.
    Partition,
    /// The root file system.
    WriteRoot,
    /// Its hash tree.
    WriteVerity,
    /// The boot images, under names that no firmware starts.
    WriteBoot,
    /// Everything written so far is read from the disk and compared.
    ReadBack,
    /// The site's keys into a firmware in setup mode.
    EnrolKeys,
    /// The firmware's boot entry.
    BootEntry,
    /// The state partition, with the host's configuration and the signed record.
    WriteState,
    /// The boot images get their names: from here on the disk boots.
    BootFiles,
}

impl Step {
    /// Every step, in order.
    pub const ALL: [Self; 13] = [
        Self::VerifyMedium,
        Self::Inventory,
        Self::Plan,
        Self::Erase,
        Self::Partition,
        Self::WriteRoot,
        Self::WriteVerity,
        Self::WriteBoot,
        Self::ReadBack,
        Self::EnrolKeys,
        Self::BootEntry,
        Self::WriteState,
        Self::BootFiles,
    ];

    /// The step in words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::VerifyMedium => "Verify the medium",
            Self::Inventory => "Look at the machine",
            Self::Plan => "Plan",
            Self::Erase => "Erase the disk",
            Self::Partition => "Write the partition table",
            Self::WriteRoot => "Write the root file system",
            Self::WriteVerity => "Write its hash tree",
            Self::WriteBoot => "Write the boot images",
            Self::ReadBack => "Read everything back",
            Self::EnrolKeys => "Enrol the Secure Boot keys",
            Self::BootEntry => "Write the boot entry",
            Self::WriteState => "Write the state partition",
            Self::BootFiles => "Make the disk bootable",
        }
    }
}

/// One event of an installation, one JSON line.
pub type Event = hypervisor::events::Event<Step>;

/// Something that shows events. It cannot fail: an unplugged serial cable must not stop an installation.
pub trait Sink {
    /// Takes one event.
    fn event(&mut self, event: &Event);
}

/// Writes events as JSON lines.
pub struct JsonLines<W>(pub W);

impl<W: Write> Sink for JsonLines<W> {
    fn event(&mut self, event: &Event) {
        if let Ok(mut line) = serde_json::to_vec(event) {
            line.push(b'\n');
            drop(self.0.write_all(&line).and_then(|()| self.0.flush()));
        }
    }
}

/// Writes events as lines for a reader; of a step's progress, every tenth part.
pub struct Text<W> {
    out: W,
    tenth: u64,
}

impl<W: Write> Text<W> {
    /// Writes to `out`.
    pub const fn new(out: W) -> Self {
        Self { out, tenth: 0 }
    }
}

impl<W: Write> Sink for Text<W> {
    fn event(&mut self, event: &Event) {
        let words = event.step.words();
        let line = match event.state {
            Phase::Start => {
                self.tenth = 0;
                format!("{words} ...")
            }
            Phase::Progress => match (event.done, event.total) {
                (Some(done), Some(total)) if total > 0 => {
                    let tenth = done.saturating_mul(10) / total;
                    if tenth <= self.tenth {
                        return;
                    }
                    self.tenth = tenth;
                    format!("  {:3} %", tenth * 10)
                }
                _ => format!("  {}", event.detail),
            },
            Phase::Done => format!(
                "  done{}{}",
                if event.detail.is_empty() { "" } else { ": " },
                event.detail
            ),
            Phase::Warning => format!("  WARNING: {}", event.detail),
            Phase::Failed => format!("  FAILED: {}", event.detail),
        };
        drop(writeln!(self.out, "{line}").and_then(|()| self.out.flush()));
    }
}

/// Keeps the events for the record and the screens; progress replaces progress.
#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<VecDeque<Event>>>);

impl Memory {
    /// What was kept, oldest first.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.0
            .lock()
            .map(|events| events.iter().cloned().collect())
            .unwrap_or_default()
    }
}

impl Sink for Memory {
    fn event(&mut self, event: &Event) {
        if let Ok(mut events) = self.0.lock() {
            let replaces = |last: &Event| {
                last.state == Phase::Progress
                    && last.total.is_some()
                    && last.step == event.step
                    && event.total.is_some()
            };
            if event.state == Phase::Progress && events.back().is_some_and(replaces) {
                events.pop_back();
            }
            events.push_back(event.clone());
        }
    }
}

/// Emits the events of one installation to all its sinks.
#[derive(Default)]
pub struct Reporter {
    sinks: Vec<Box<dyn Sink + Send>>,
}

impl Reporter {
    /// Adds a sink.
    pub fn add(&mut self, sink: impl Sink + Send + 'static) {
        self.sinks.push(Box::new(sink));
    }

    /// Does a step: emits its start, and its end with what `work` says of it, or its failure with the error's chain.
    ///
    /// # Errors
    /// That of `work`, with the step's name.
    pub fn step<T>(&mut self, step: Step, work: impl FnOnce(&mut Running<'_>) -> Result<T>) -> Result<T> {
        self.emit(step, Phase::Start, None, String::new());
        let mut running = Running {
            reporter: self,
            step,
            detail: String::new(),
            told: 0,
        };
        let result = work(&mut running);
        let detail = std::mem::take(&mut running.detail);
        match &result {
            Ok(_) => self.emit(step, Phase::Done, None, detail),
            Err(error) => self.emit(step, Phase::Failed, None, chain(error)),
        }
        result.with_context(|| step.words().to_lowercase())
    }

    fn emit(&mut self, step: Step, state: Phase, amount: Option<(u64, u64)>, detail: String) {
        let event = Event {
            done: amount.map(|(done, _)| done),
            total: amount.map(|(_, total)| total),
            ..Event::now(step, state, detail)
        };
        for sink in &mut self.sinks {
            sink.event(&event);
        }
    }
}

/// A step that is being done.
pub struct Running<'a> {
    reporter: &'a mut Reporter,
    step: Step,
    detail: String,
    told: u64,
}

impl Running<'_> {
    /// Says what the step's end will say.
    pub fn detail(&mut self, text: impl Into<String>) {
        self.detail = text.into();
    }

    /// Tells something that the reader and the record must see, such as what is being wiped.
    pub fn say(&mut self, text: impl Into<String>) {
        self.reporter.emit(self.step, Phase::Progress, None, text.into());
    }

    /// Tells how far the step is; at most a hundred times a step.
    pub fn progress(&mut self, done: u64, total: u64) {
        let hundredth = done.saturating_mul(100) / total.max(1);
        if hundredth != self.told {
            self.told = hundredth;
            self.reporter
                .emit(self.step, Phase::Progress, Some((done, total)), String::new());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_tells_its_start_its_way_and_its_end() {
        let memory = Memory::default();
        let mut reporter = Reporter::default();
        reporter.add(memory.clone());
        reporter
            .step(Step::WriteRoot, |running| {
                for done in 0..=10_000 {
                    running.progress(done, 10_000);
                }
                running.detail("whole");
                Ok(())
            })
            .unwrap();
        let error = reporter.step(Step::ReadBack, |_| Err::<(), _>(anyhow::anyhow!("no luck")));
        assert_eq!(format!("{:#}", error.unwrap_err()), "read everything back: no luck");
        let states: Vec<_> = memory
            .events()
            .into_iter()
            .map(|event| (event.state, event.detail))
            .collect();
        assert_eq!(
            states,
            [
                (Phase::Start, String::new()),
                (Phase::Progress, String::new()),
                (Phase::Done, "whole".into()),
                (Phase::Start, String::new()),
                (Phase::Failed, "no luck".into()),
            ]
        );
    }

    #[test]
    fn an_event_is_one_json_line() {
        let mut out = Vec::new();
        let event = Event {
            time: "2026-11-22T16:00:00.5Z".parse().unwrap(),
            step: Step::WriteRoot,
            state: Phase::Progress,
            done: Some(1),
            total: Some(2),
            detail: "a\nb".into(),
        };
        JsonLines(&mut out).event(&event);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"time\":\"2026-11-22T16:00:00Z\",\"step\":\"write-root\",\"state\":\"progress\",\"done\":1,\"total\":2,\
             \"detail\":\"a\\nb\"}\n"
        );
    }
}
