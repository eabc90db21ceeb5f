// SPDX-License-Identifier: GPL-3.0-or-later
//! What the screen shows while a build works: one line a step, the running one with a spinner and its time.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

/// A finished step, for the report.
#[derive(Debug, Clone, Serialize)]
pub struct StepReport {
    /// Name of the step.
    pub step: String,
    /// Whether an earlier run's result was taken.
    pub kept: bool,
    /// How long it took.
    pub seconds: f64,
}

/// Collects steps and shows them on standard error.
pub struct Progress {
    quiet: bool,
    steps: Vec<StepReport>,
}

impl Progress {
    /// A report that is shown, or only collected.
    #[must_use]
    pub const fn new(quiet: bool) -> Self {
        Self {
            quiet,
            steps: Vec::new(),
        }
    }

    /// Runs one step. `work` says beside its result whether that was kept from an earlier run.
    ///
    /// # Errors
    /// What `work` returns.
    pub fn step<T, E>(&mut self, name: &str, work: impl FnOnce() -> Result<(T, bool), E>) -> Result<T, E> {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
            bar.set_style(style);
        }
        bar.set_message(name.to_owned());
        let shown = !self.quiet && !bar.is_hidden();
        if shown {
            bar.enable_steady_tick(Duration::from_millis(120));
        }
        let start = Instant::now();
        let result = work();
        bar.finish_and_clear();
        let (value, kept) = result?;
        let seconds = start.elapsed().as_secs_f64();
        if !self.quiet {
            let how = if kept {
                "at hand".to_owned()
            } else {
                format!("{seconds:.1} s")
            };
            // A closed standard error must not stop a build.
            drop(std::io::Write::write_all(
                &mut std::io::stderr(),
                format!("  {name:<44} {how}\n").as_bytes(),
            ));
        }
        self.steps.push(StepReport {
            step: name.to_owned(),
            kept,
            seconds: (seconds * 10.0).round() / 10.0,
        });
        Ok(value)
    }

    /// The steps so far.
    #[must_use]
    pub fn steps(&self) -> &[StepReport] {
        &self.steps
    }
}
