// SPDX-License-Identifier: GPL-3.0-or-later
//! The screens, drawn from the model and from events. Made for 80 columns and 25 lines, in the colours that every
//! console has.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Gauge, Paragraph, Wrap};

use super::model::{BRIDGE, CARD, DHCP, FIELDS, Field, Model, Screen};
use crate::inventory::Disk;
use crate::steps::{Event, Phase, Step};

const TITLE: Style = Style::new().fg(Color::Black).bg(Color::Gray);
const FOCUS: Style = Style::new().add_modifier(Modifier::REVERSED);
const DIM: Style = Style::new().fg(Color::DarkGray);
const BAD: Style = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
/// Where the values of a plan's lines begin.
const PLAN_COLUMN: usize = 10;
const STRONG: Style = Style::new().add_modifier(Modifier::BOLD);

/// The frame that all screens share: a title, a body, a message, the keys.
fn frame(frame: &mut Frame<'_>, title: &str, message: &str, keys: &str) -> Rect {
    let message_lines = if message.is_empty() { 1 } else { 4 };
    let [top, body, middle, bottom] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(message_lines),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(format!(" {title}")).style(TITLE), top);
    frame.render_widget(Paragraph::new(message).style(BAD).wrap(Wrap { trim: true }), middle);
    frame.render_widget(Paragraph::new(format!(" {keys}")).style(TITLE), bottom);
    let [_, body, _] =
        Layout::horizontal([Constraint::Length(1), Constraint::Min(1), Constraint::Length(1)]).areas(body);
    let [_, body] = Layout::vertical([Constraint::Length(1), Constraint::Min(1)]).areas(body);
    body
}

/// A question.
pub(super) fn question(target: &mut Frame<'_>, model: &Model) {
    let (name, keys) = match model.screen {
        Screen::Disk => (
            "1 of 5: the disk",
            "Up/Down choose  Enter next  F5 look again  F10 leave",
        ),
        Screen::Wipe => ("1 of 5: the disk holds data", "Enter next  Esc back  F10 leave"),
        Screen::Host => ("2 of 5: the host's name", "Enter next  Esc back  F10 leave"),
        Screen::Network => (
            "3 of 5: the network",
            "Up/Down line  Left/Right/Space change  Enter next  Esc back  F10 leave",
        ),
        Screen::Keys => (
            "4 of 5: who may log in",
            "Up/Down choose  Space yes/no  Enter next  F5 look again  Esc back  F10 leave",
        ),
        Screen::Summary => (
            "5 of 5: the plan",
            "Left/Right choose  Enter do it  Up/Down scroll  Esc back  F10 leave",
        ),
    };
    let release = &model.release;
    let title = format!("Bastide {} ({})   {name}", release.version, release.channel);
    let body = frame(target, &title, &model.message, keys);
    match model.screen {
        Screen::Disk => target.render_widget(Paragraph::new(disks(model, body.height)), body),
        Screen::Wipe => target.render_widget(Paragraph::new(wipe(model)).wrap(Wrap { trim: false }), body),
        Screen::Host => target.render_widget(Paragraph::new(field(&model.host, true, body.width)), body),
        Screen::Network => target.render_widget(Paragraph::new(network(model, body.width)), body),
        Screen::Keys => target.render_widget(Paragraph::new(keys_lines(model, body.width)), body),
        Screen::Summary => summary(target, model, body),
    }
}

fn disks(model: &Model, height: u16) -> Vec<Line<'static>> {
    let mut lines = vec![
        Line::raw("Which disk becomes this host's? All of it will be used."),
        Line::raw(""),
    ];
    if model.inventory.disks.is_empty() {
        lines.push(Line::raw("There is no disk. Plug one in and press F5."));
    }
    // Three lines a disk; those before the focus scroll away.
    let room = usize::from(height.saturating_sub(2) / 4).max(1);
    let first = (model.disk + 1).saturating_sub(room);
    for (index, disk) in model.inventory.disks.iter().enumerate().skip(first).take(room) {
        let style = if index == model.disk { FOCUS } else { Style::new() };
        let serial = disk.serial.as_deref().unwrap_or("unknown");
        let model_name = disk.model_words();
        lines.push(Line::styled(format!(" {model_name} "), style.patch(STRONG)));
        lines.push(Line::raw(format!(
            "   serial {serial}   {}   {} {}",
            crate::inventory::human_size(disk.size),
            disk.transport.as_deref().unwrap_or_default(),
            disk.path.display()
        )));
        lines.push(contents(disk));
        lines.push(Line::raw(""));
    }
    lines
}

fn contents(disk: &Disk) -> Line<'static> {
    let text = if disk.medium {
        "a medium of this installation, never written".to_owned()
    } else if disk.holds_data() {
        let text = shortened(&format!("   holds {}", disk.contents().join("; ")), 78);
        return Line::styled(text, Style::new().fg(Color::Yellow));
    } else {
        "empty".to_owned()
    };
    Line::styled(format!("   {text}"), DIM)
}

/// A text that ends in dots where it does not fit: the next screen shows all of it.
fn shortened(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width - 4).chain(" ...".chars()).collect()
}

fn wipe(model: &Model) -> Vec<Line<'static>> {
    let mut lines = vec![Line::styled("All of this will be destroyed:", BAD), Line::raw("")];
    if let Some(disk) = model.chosen() {
        lines.push(Line::styled(disk.title(), STRONG));
        let contents = disk.contents();
        let shown = 12;
        lines.extend(contents.iter().take(shown).map(|line| Line::raw(format!("  {line}"))));
        if contents.len() > shown {
            lines.push(Line::raw(format!("  and {} more", contents.len() - shown)));
        }
        lines.push(Line::raw(""));
    }
    lines.extend(field(&model.wipe, true, 78));
    lines
}

/// A label, what was typed, and a hint below. A text that is too long shows its end, where the typing is.
fn field(field: &Field, focus: bool, width: u16) -> Vec<Line<'static>> {
    let room = usize::from(width).saturating_sub(18);
    let count = field.text.chars().count();
    let shown: String = field.text.chars().skip(count.saturating_sub(room)).collect();
    let style = if focus { FOCUS } else { Style::new() };
    vec![
        Line::from(vec![
            Span::styled(format!("{:<14} ", field.label), STRONG),
            Span::styled(format!("{shown}{}", if focus { "_" } else { "" }), style),
        ]),
        Line::styled(format!("{:<14} {}", "", field.hint), DIM),
    ]
}

fn choice(label: &str, value: &str, hint: &str, focus: bool) -> Vec<Line<'static>> {
    let style = if focus { FOCUS } else { Style::new() };
    vec![
        Line::from(vec![
            Span::styled(format!("{label:<14} "), STRONG),
            Span::styled(format!("< {value} >"), style),
        ]),
        Line::styled(format!("{:<14} {hint}", ""), DIM),
    ]
}

fn network(model: &Model, width: u16) -> Vec<Line<'static>> {
    let card = match model
        .card
        .checked_sub(1)
        .and_then(|index| model.inventory.cards.get(index))
    {
        Some(card) => format!(
            "{} {}{}",
            card.name,
            card.mac,
            if card.carrier == Some(true) { ", link" } else { "" }
        ),
        None => "none: the host has no network".into(),
    };
    let yes = |value: bool| if value { "yes" } else { "no" };
    let mut lines = choice("Card", &card, "", model.line == CARD);
    lines.extend(choice(
        "DHCP",
        yes(model.dhcp),
        "ask a server for the address",
        model.line == DHCP,
    ));
    lines.extend(choice(
        "Guests' bridge",
        yes(model.bridge),
        "guests share this card through xenbr0",
        model.line == BRIDGE,
    ));
    for (index, own) in model.fields.iter().enumerate() {
        lines.extend(field(own, model.line == FIELDS + index, width));
    }
    lines.push(Line::raw(""));
    let hint = if model.inventory.other_machine {
        "The cards of another machine are not known here: use an answer file."
    } else {
        "Bonds and several interfaces: use an answer file."
    };
    lines.push(Line::styled(hint, DIM));
    lines
}

fn keys_lines(model: &Model, width: u16) -> Vec<Line<'static>> {
    let mut lines = vec![
        Line::raw("These OpenSSH keys may log in as root. There is no password."),
        Line::styled("Keys are found as *.pub on a stick labelled BASTIDE-ANS.", DIM),
        Line::raw(""),
    ];
    for (index, (name, key, wanted)) in model.keys.iter().enumerate() {
        let style = if index == model.key_line { FOCUS } else { Style::new() };
        let mark = if *wanted { "[x]" } else { "[ ]" };
        let end = key.rsplit(' ').next().unwrap_or_default();
        let text: String = format!("{mark} {name}   {end}")
            .chars()
            .take(usize::from(width))
            .collect();
        lines.push(Line::styled(text, style));
    }
    lines.push(Line::raw(""));
    lines.extend(field(&model.typed_key, model.key_line == model.keys.len(), width));
    lines
}

fn summary(target: &mut Frame<'_>, model: &Model, body: Rect) {
    let [text, buttons] = Layout::vertical([Constraint::Min(1), Constraint::Length(2)]).areas(body);
    let lines = model.plan.as_ref().map(crate::plan::Plan::lines).unwrap_or_default();
    // Broken here, so that scrolling counts what is seen.
    let shown: Vec<Line<'_>> = lines
        .iter()
        .flat_map(|line| {
            let warns = ["wiped ", "NOT enforced", "nobody can log in"];
            let bad = warns.iter().any(|words| line.contains(words));
            let style = if bad { BAD } else { Style::new() };
            broken(line, usize::from(text.width))
                .into_iter()
                .map(move |part| Line::styled(part, style))
        })
        .collect();
    let most = shown.len().saturating_sub(usize::from(text.height));
    let shown: Vec<Line<'_>> = shown.into_iter().skip(model.scroll.min(most)).collect();
    target.render_widget(Paragraph::new(shown), text);
    let style = |focus: bool| if focus { FOCUS } else { Style::new() };
    let line = Line::from(vec![
        Span::raw("  "),
        Span::styled("[ Back ]", style(!model.install)),
        Span::raw("    "),
        Span::styled("[ Install ]", style(model.install)),
    ]);
    target.render_widget(Paragraph::new(vec![Line::raw(""), line]), buttons);
}

/// A line of the plan in lines that fit, the further ones below the first one's value.
fn broken(line: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in line.split_inclusive(' ') {
        let last = lines.last().map_or(0, |last| last.chars().count());
        if last > PLAN_COLUMN && last + word.trim_end().chars().count() > width {
            lines.push(" ".repeat(PLAN_COLUMN));
        }
        if let Some(last) = lines.last_mut() {
            last.push_str(word);
        }
    }
    lines
}

/// What came of the installation, for the last screen.
pub(super) enum Ending {
    /// It goes on.
    Running,
    /// It is done; the host key's fingerprint.
    Done(String),
    /// It failed.
    Failed(String),
}

/// The installation, from its events alone.
pub(super) fn progress(target: &mut Frame<'_>, events: &[Event], ending: &Ending) {
    let (title, keys) = match ending {
        Ending::Running => ("Bastide   installing", "Do not switch the machine off"),
        Ending::Done(_) => ("Bastide   installed", "Enter end"),
        Ending::Failed(_) => ("Bastide   not installed", "Enter end"),
    };
    let body = frame(target, title, "", keys);
    let [steps, gauge, text] = Layout::vertical([
        Constraint::Length(u16::try_from(Step::ALL.len()).unwrap_or(13)),
        Constraint::Length(1),
        Constraint::Min(1),
    ])
    .areas(body);
    let lines: Vec<Line<'_>> = Step::ALL.iter().map(|step| step_line(*step, events)).collect();
    target.render_widget(Paragraph::new(lines), steps);
    match ending {
        Ending::Running => {
            if let Some(Event {
                state: Phase::Progress,
                done: Some(done),
                total: Some(total),
                ..
            }) = events.last()
            {
                let ratio = (*done as f64 / (*total).max(1) as f64).clamp(0.0, 1.0);
                target.render_widget(Gauge::default().ratio(ratio), gauge);
            }
            let said: Vec<Line<'_>> = events
                .iter()
                .filter(|event| !event.detail.is_empty())
                .rev()
                .take(usize::from(text.height))
                .map(|event| Line::styled(event.detail.clone(), DIM))
                .collect();
            target.render_widget(Paragraph::new(said.into_iter().rev().collect::<Vec<_>>()), text);
        }
        Ending::Done(key) => {
            let lines = vec![
                Line::styled("The host is installed. Take the medium out.", STRONG),
                Line::raw("Write down the fingerprint of its key; the signed record is checked by it:"),
                Line::raw(key.clone()),
            ];
            target.render_widget(Paragraph::new(lines).wrap(Wrap { trim: true }), text);
        }
        Ending::Failed(why) => {
            let block = Block::bordered().title(" Nothing boots from this disk now ").style(BAD);
            let touched = events.iter().any(|event| event.step >= Step::Erase);
            let block = if touched {
                block
            } else {
                Block::bordered().title(" The disk was not touched ").style(BAD)
            };
            let paragraph = Paragraph::new(why.clone()).wrap(Wrap { trim: true }).block(block);
            let [_, area] = Layout::vertical([Constraint::Length(0), Constraint::Min(1)]).areas(text);
            target.render_widget(paragraph, area);
        }
    }
}

fn step_line(step: Step, events: &[Event]) -> Line<'static> {
    let last = events.iter().rev().find(|event| event.step == step);
    let (mark, style) = match last.map(|event| event.state) {
        None => ("   ", DIM),
        Some(Phase::Start | Phase::Progress | Phase::Warning) => (" > ", STRONG),
        Some(Phase::Done) => (" + ", Style::new()),
        Some(Phase::Failed) => (" ! ", BAD),
    };
    Line::styled(format!("{mark}{}", step.words()), style)
}

/// A reason why there is nothing to ask.
pub(super) fn failure(target: &mut Frame<'_>, why: &str) {
    let body = frame(target, "Bastide   cannot install", "", "Enter leave");
    let lines = vec![
        Line::styled("Nothing was written.", STRONG),
        Line::raw(""),
        Line::raw(why.to_owned()),
    ];
    target.render_widget(Paragraph::new(lines).wrap(Wrap { trim: true }), body);
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::crossterm::event::KeyCode;

    use super::super::model::tests::{enter, example, type_in};
    use super::*;

    fn drawn(draw: impl FnOnce(&mut Frame<'_>)) -> String {
        let mut terminal = Terminal::new(TestBackend::new(80, 25)).unwrap();
        terminal.draw(draw).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn every_question_fits_80_by_25() {
        let mut model = example();
        let show = |model: &Model| drawn(|frame| question(frame, model));
        let text = show(&model);
        for word in [
            "SAMSUNG MZ7LH480HAHQ-00005",
            "serial S4EWNX0N1",
            "480.1 GB",
            "oldvg",
            "never written",
            "F10 leave",
        ] {
            assert!(text.contains(word), "{word}:\n{text}");
        }
        model.key(KeyCode::Down);
        enter(&mut model);
        let text = show(&model);
        assert!(
            text.contains("All of this will be destroyed") && text.contains("S4EWNX0N2"),
            "{text}"
        );
        type_in(&mut model, "S4EWNX0N2");
        enter(&mut model);
        type_in(&mut model, "rack1");
        assert!(show(&model).contains("rack1_"));
        enter(&mut model);
        model.key(KeyCode::Right);
        let text = show(&model);
        assert!(
            text.contains("eno1 52:54:00:12:34:56, link") && text.contains("VLAN"),
            "{text}"
        );
        enter(&mut model);
        let text = show(&model);
        assert!(text.contains("[x] admin.pub   admin@site"), "{text}");
        enter(&mut model);
        let text = show(&model);
        for word in ["LVM physical volume", "bastide-state", "[ Install ]", "setup mode"] {
            assert!(text.contains(word), "{word}:\n{text}");
        }
    }

    #[test]
    fn a_long_line_of_the_plan_is_seen_to_its_end() {
        let short = "  wiped   1 partition";
        assert_eq!(broken(short, 78), [short]);
        let lines = broken(
            &format!("Network   bond0 = bond of {}active-backup", "eno10 + ".repeat(12)),
            78,
        );
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(
            lines.iter().all(|line| line.trim_end().chars().count() <= 78),
            "{lines:?}"
        );
        assert!(
            lines[1].starts_with("          eno10") && lines[1].ends_with("active-backup"),
            "{lines:?}"
        );
    }

    #[test]
    fn another_machine_s_cards_are_not_offered() {
        let mut model = example();
        model.inventory.for_another_machine();
        model.key(KeyCode::Down);
        enter(&mut model);
        type_in(&mut model, "S4EWNX0N2");
        enter(&mut model);
        type_in(&mut model, "rack1");
        enter(&mut model);
        model.key(KeyCode::Right);
        let text = drawn(|frame| question(frame, &model));
        assert!(
            text.contains("cards of another machine are not known") && !text.contains("eno1"),
            "{text}"
        );
        assert!(text.contains("F10 leave"), "{text}");
    }

    #[test]
    fn a_failure_says_whether_the_disk_was_touched() {
        let event = |step, state| Event {
            time: "2026-11-22T16:00:00Z".parse().unwrap(),
            step,
            state,
            done: None,
            total: None,
            detail: String::new(),
        };
        let text = drawn(|frame| {
            let events = [event(Step::VerifyMedium, Phase::Failed)];
            progress(frame, &events, &Ending::Failed("root.erofs was altered".into()));
        });
        assert!(
            text.contains("was not touched") && text.contains("root.erofs was altered"),
            "{text}"
        );
        let text = drawn(|frame| {
            let events = [event(Step::WriteRoot, Phase::Failed)];
            progress(frame, &events, &Ending::Failed("gone".into()));
        });
        assert!(text.contains("Nothing boots"), "{text}");
    }
}
