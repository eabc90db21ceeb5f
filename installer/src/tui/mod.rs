// SPDX-License-Identifier: GPL-3.0-or-later
//! The screens: they ask for what an answer file says, and show the same events as every other sink.

mod model;
mod view;

use std::io::{self, IsTerminal};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event as Input, KeyCode, KeyEventKind, KeyModifiers};

use crate::answer::Loaded;
use crate::run::{self, Outcome, Setup};
use crate::steps::{Memory, Reporter};
use crate::volume;
use model::{Model, Next};
use signing::output::chain;
use view::Ending;

/// How often the progress is drawn.
const TICK: Duration = Duration::from_millis(150);

/// How the screens were left.
#[derive(Debug)]
pub enum Left {
    /// A host was installed.
    Installed,
    /// The operator left before anything was written.
    Unchanged,
    /// It failed, and the operator has read why.
    Failed(anyhow::Error),
}

/// Asks and installs. The reporter's sinks get the events as from an unattended installation.
///
/// # Errors
/// When there is no terminal.
pub fn run(setup: &Setup, reporter: Reporter) -> Result<Left> {
    // The library would fall back to the controlling terminal, where nobody may be looking.
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Err(anyhow!("the screens need a terminal: give an answer file"));
    }
    let mut terminal = ratatui::try_init().context("cannot use this terminal for screens: give an answer file")?;
    let result = dialogue(&mut terminal, setup, reporter);
    ratatui::restore();
    result
}

fn dialogue(terminal: &mut DefaultTerminal, setup: &Setup, reporter: Reporter) -> Result<Left> {
    let look = || {
        let inventory = setup.inventory()?;
        let keys = volume::find_keys(&inventory);
        Ok::<_, anyhow::Error>((inventory, keys))
    };
    let begin = || {
        let verified = setup.medium.metadata(None)?;
        let (inventory, keys) = look()?;
        Ok::<_, anyhow::Error>(Model::new(inventory, verified.release, keys))
    };
    let mut model = match begin() {
        Ok(model) => model,
        Err(error) => {
            let why = chain(&error);
            wait_for_enter(terminal, |frame| view::failure(frame, &why))?;
            return Ok(Left::Failed(error));
        }
    };
    loop {
        terminal
            .draw(|frame| view::question(frame, &model))
            .context("cannot draw")?;
        let Some(code) = key()? else { continue };
        match model.key(code) {
            Next::Stay => {}
            Next::Leave => return Ok(Left::Unchanged),
            Next::Rescan => match look() {
                Ok((inventory, keys)) => model.rescan(inventory, keys),
                Err(error) => model.message = chain(&error),
            },
            Next::Install => {
                let loaded = model.loaded.take().ok_or_else(|| anyhow!("there is no plan"))?;
                return install(terminal, setup, &loaded, reporter);
            }
        }
    }
}

/// Runs the installation beside the screen, which shows what the events say.
fn install(terminal: &mut DefaultTerminal, setup: &Setup, loaded: &Loaded, mut reporter: Reporter) -> Result<Left> {
    let memory = Memory::default();
    reporter.add(memory.clone());
    let result: Result<Outcome> = std::thread::scope(|scope| {
        let work = scope.spawn(|| run::install(setup, loaded, &mut reporter));
        while !work.is_finished() {
            // A screen that cannot be drawn does not stop the work.
            drop(terminal.draw(|frame| view::progress(frame, &memory.events(), &Ending::Running)));
            if event::poll(TICK).unwrap_or_default() {
                drop(event::read());
            }
        }
        work.join()
            .unwrap_or_else(|_| Err(anyhow!("the installation ended unexpectedly")))
    });
    let ending = match &result {
        Ok(outcome) => Ending::Done(outcome.record.fingerprint.to_string()),
        Err(error) => Ending::Failed(chain(error)),
    };
    wait_for_enter(terminal, |frame| view::progress(frame, &memory.events(), &ending))?;
    Ok(match result {
        Ok(_) => Left::Installed,
        Err(error) => Left::Failed(error),
    })
}

fn wait_for_enter(terminal: &mut DefaultTerminal, draw: impl Fn(&mut ratatui::Frame<'_>)) -> Result<()> {
    loop {
        terminal.draw(&draw).context("cannot draw")?;
        if matches!(key()?, Some(KeyCode::Enter | KeyCode::F(10))) {
            return Ok(());
        }
    }
}

/// The next key; `None` for anything else that a terminal reports. Ctrl-C leaves as F10 does.
fn key() -> Result<Option<KeyCode>> {
    let input = event::read().map_err(|error: io::Error| anyhow!(error).context("cannot read the keyboard"))?;
    let Input::Key(key) = input else { return Ok(None) };
    if key.kind == KeyEventKind::Release {
        return Ok(None);
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return Ok(matches!(key.code, KeyCode::Char('c' | 'd')).then_some(KeyCode::F(10)));
    }
    Ok(Some(key.code))
}
