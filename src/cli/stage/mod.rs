//! What every whole screen shares: the terminal, its keys, text in cells, and the loop between them.
//!
//! A screen is a model of its own, a [`Stage`]: keys and news go in, and it is drawn when it has changed and at most
//! twenty times a second, however fast things happen and however slow the terminal is.

mod inlet;
mod keys;
mod terminal;
mod text;
mod theme;

use std::env;
use std::io::{self, IsTerminal};
use std::time::{Duration, SystemTime};

use ratatui::Frame;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, interval, sleep_until};

use super::exit::{Failure, INTERRUPTED};
use super::output::colour_wanted;
use keys::Decoder;
use terminal::Terminal;

pub(super) use inlet::Inlet;
pub(super) use keys::Key;
pub(super) use text::{columns, put, tail, wrapped};
pub(super) use theme::Theme;

/// The shortest time between two frames.
const FRAME: Duration = Duration::from_millis(50);

/// How long an escape may be the beginning of a longer key.
const ESCAPE: Duration = Duration::from_millis(50);

/// What a process says that was ended by a signal, as a shell counts it.
const SIGNALLED: u8 = INTERRUPTED - 2;

/// Whether the service is heard.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Connection {
    Opening,
    Open,
    Lost { why: String, until: SystemTime },
}

/// What a model wants of whoever has the terminal, since it cannot do it itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leave {
    Quit,
    /// Ctrl-C.
    Interrupted,
}

/// A model on a whole screen.
pub(super) trait Stage {
    /// Waits for what is heard next, and takes it in. May be dropped while it waits.
    async fn hear(&mut self) -> Result<(), Failure>;
    /// Does what a key says; those that are about the terminal itself do not come here.
    fn press(&mut self, key: Key, now: SystemTime) -> Option<Leave>;
    /// Asks what keys and news have made it want; never waits.
    fn ask(&mut self);
    /// A second has passed; whether something on the screen changes by itself.
    fn tick(&mut self, now: SystemTime) -> bool;
    /// Whether the bell is to ring now.
    fn take_ring(&mut self) -> bool {
        false
    }
    /// Draws all of it.
    fn draw(&self, theme: Theme, now: SystemTime, frame: &mut Frame<'_>);
}

/// Why there can be no whole screen.
pub(super) fn unfit() -> Option<&'static str> {
    if env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb") {
        return Some("TERM says that this terminal has no screen");
    }
    let is_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    (!is_terminal).then_some("this is no terminal")
}

/// Has the terminal until the model or a signal ends it; the end is an error, which may be [`Failure::Told`].
pub(super) async fn play(stage: &mut impl Stage) -> Result<(), Failure> {
    // From now on a signal ends the loop instead of the process, which would leave the terminal as it is.
    let mut signals = Signals::new().map_err(|error| lost(&error))?;
    let mut terminal = Terminal::take().map_err(|error| lost(&error))?;
    let mut play = Play {
        stage,
        decoder: Decoder::default(),
        escape: None,
        is_dirty: true,
    };
    // Errors are told on the screen that the shell has: the terminal is given back when this is over.
    play.go_on(&mut terminal, &mut signals).await
}

struct Play<'a, S> {
    stage: &'a mut S,
    decoder: Decoder,
    /// When an escape that stands alone is the key.
    escape: Option<Instant>,
    /// The screen is not as it should be.
    is_dirty: bool,
}

/// What ends a process, or changes its screen.
struct Signals {
    terminate: Signal,
    hang_up: Signal,
    interrupt: Signal,
    quit: Signal,
    resized: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            resized: signal(SignalKind::window_change())?,
        })
    }
}

impl<S: Stage> Play<'_, S> {
    async fn go_on(
        &mut self,
        terminal: &mut Terminal,
        signals: &mut Signals,
    ) -> Result<(), Failure> {
        let mut second = interval(Duration::from_secs(1));
        let mut due = Instant::now();
        loop {
            self.stage.ask();
            let may_draw = self.is_dirty && terminal.outlet.is_empty();
            tokio::select! {
                typed = terminal.inlet.read() => {
                    let typed = typed.map_err(|error| lost(&error))?;
                    if typed.is_empty() {
                        return Err(Failure::error("the terminal is gone"));
                    }
                    let keys = self.decoder.feed(&typed);
                    self.escape = self.decoder.is_undecided().then(|| Instant::now() + ESCAPE);
                    self.pressed(keys, terminal)?;
                }
                () = sleep_until(self.escape.unwrap_or(due)), if self.escape.is_some() => {
                    self.escape = None;
                    let keys = self.decoder.decide();
                    self.pressed(keys, terminal)?;
                }
                heard = self.stage.hear() => {
                    heard?;
                    self.is_dirty = true;
                }
                done = terminal.outlet.flush(), if !terminal.outlet.is_empty() => {
                    done.map_err(|error| lost(&error))?;
                }
                () = sleep_until(due), if may_draw => {
                    self.draw(terminal).map_err(|error| lost(&error))?;
                    due = Instant::now() + FRAME;
                }
                _ = second.tick() => self.is_dirty |= self.stage.tick(SystemTime::now()),
                _ = signals.resized.recv() => {
                    terminal.resize().map_err(|error| lost(&error))?;
                    self.is_dirty = true;
                }
                _ = signals.terminate.recv() => return Err(Failure::Told(SIGNALLED + 15)),
                _ = signals.hang_up.recv() => return Err(Failure::Told(SIGNALLED + 1)),
                _ = signals.quit.recv() => return Err(Failure::Told(SIGNALLED + 3)),
                _ = signals.interrupt.recv() => return Err(Failure::Interrupted),
            }
        }
    }

    fn pressed(&mut self, keys: Vec<Key>, terminal: &mut Terminal) -> Result<(), Failure> {
        self.is_dirty = true;
        for key in keys {
            let leave = match key {
                Key::Ctrl('z') => {
                    terminal.suspend().map_err(|error| lost(&error))?;
                    None
                }
                // Everything is painted anew.
                Key::Ctrl('l') => {
                    terminal.resize().map_err(|error| lost(&error))?;
                    None
                }
                key => self.stage.press(key, SystemTime::now()),
            };
            match leave {
                None => {}
                Some(Leave::Quit) => return Err(Failure::Told(0)),
                Some(Leave::Interrupted) => return Err(Failure::Interrupted),
            }
        }
        Ok(())
    }

    fn draw(&mut self, terminal: &mut Terminal) -> io::Result<()> {
        self.is_dirty = false;
        let theme = Theme {
            colour: colour_wanted(),
        };
        let (rings, now) = (self.stage.take_ring(), SystemTime::now());
        terminal.draw(rings, |frame| self.stage.draw(theme, now, frame))
    }
}

fn lost(error: &io::Error) -> Failure {
    Failure::error(format_args!("cannot use the terminal: {error}"))
}
