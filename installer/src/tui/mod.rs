// SPDX-License-Identifier: GPL-3.0-or-later
//! The screens (soon).
use crate::answer::Then;
use crate::run::Setup;
use crate::steps::Reporter;
/// Asks and installs.
/// # Errors
/// always
pub fn run(_setup: &Setup, _reporter: Reporter) -> anyhow::Result<Then> {
    Err(anyhow::anyhow!("no screens yet: give an answer file"))
}
