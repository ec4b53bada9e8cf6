//! The desk on a whole screen: what comes from the desk, the keyboard and the kernel goes into the model, and the model
//! onto the screen, when it has changed and at most twenty times a second.

use std::io;
use std::time::{Duration, SystemTime};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, interval, sleep_until};

use super::super::super::exit::{Failure, INTERRUPTED};
use super::super::super::output::colour_wanted;
use super::desk::Desk;
use super::keys::{Decoder, Key};
use super::link::{Link, News};
use super::press::Leave;
use super::terminal::Terminal;
use super::view::{Theme, draw};

/// The shortest time between two frames.
const FRAME: Duration = Duration::from_millis(50);

/// How long an escape may be the beginning of a longer key.
const ESCAPE: Duration = Duration::from_millis(50);

/// What a process says that was ended by a signal, as a shell counts it.
const SIGNALLED: u8 = INTERRUPTED - 2;

/// Sits at the desk until the operator leaves.
pub(super) async fn run(desk: Desk, link: Link) -> Result<(), Failure> {
    let mut terminal = Terminal::take().map_err(|error| lost(&error))?;
    let mut sitting = Sitting {
        desk,
        link,
        decoder: Decoder::default(),
        escape: None,
        is_dirty: true,
    };
    let done = sitting.sit(&mut terminal).await;
    // Errors are told on the screen that the shell has.
    drop(terminal);
    sitting.link.leave().await;
    done
}

struct Sitting {
    desk: Desk,
    link: Link,
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
    resized: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            resized: signal(SignalKind::window_change())?,
        })
    }
}

impl Sitting {
    async fn sit(&mut self, terminal: &mut Terminal) -> Result<(), Failure> {
        let mut signals = Signals::new().map_err(|error| lost(&error))?;
        let mut second = interval(Duration::from_secs(1));
        let mut due = Instant::now();
        loop {
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
                news = self.link.news() => self.heard(news)?,
                done = terminal.outlet.flush(), if !terminal.outlet.is_empty() => {
                    done.map_err(|error| lost(&error))?;
                }
                () = sleep_until(due), if may_draw => {
                    self.draw(terminal).map_err(|error| lost(&error))?;
                    due = Instant::now() + FRAME;
                }
                _ = second.tick() => {
                    self.is_dirty |= self.desk.ticks();
                    self.desk.tick(SystemTime::now());
                }
                _ = signals.resized.recv() => {
                    terminal.resize().map_err(|error| lost(&error))?;
                    self.is_dirty = true;
                }
                _ = signals.terminate.recv() => return Err(Failure::Told(SIGNALLED + 15)),
                _ = signals.hang_up.recv() => return Err(Failure::Told(SIGNALLED + 1)),
                _ = signals.interrupt.recv() => return Err(Failure::Interrupted),
            }
            self.ask();
        }
    }

    fn heard(&mut self, news: Option<News>) -> Result<(), Failure> {
        self.is_dirty = true;
        match news {
            None => Err(Failure::error("the desk is no longer heard")),
            Some(News::Ended(failure)) => Err(failure),
            Some(news) => {
                self.desk.hear(news, SystemTime::now());
                Ok(())
            }
        }
    }

    fn pressed(&mut self, keys: Vec<Key>, terminal: &mut Terminal) -> Result<(), Failure> {
        self.is_dirty = true;
        for key in keys {
            match self.desk.press(key, SystemTime::now()) {
                None => {}
                Some(Leave::Quit) => return Err(Failure::Told(0)),
                Some(Leave::Interrupted) => return Err(Failure::Interrupted),
                Some(Leave::Suspend) => terminal.suspend().map_err(|error| lost(&error))?,
                Some(Leave::Repaint) => terminal.resize().map_err(|error| lost(&error))?,
            }
        }
        Ok(())
    }

    /// Asks what the model wants to be asked.
    fn ask(&mut self) {
        for asked in self.desk.take_asks() {
            let id = asked.id.clone();
            if !self.link.ask(asked) {
                self.desk.unasked(&id, SystemTime::now());
            }
        }
    }

    fn draw(&mut self, terminal: &mut Terminal) -> io::Result<()> {
        self.is_dirty = false;
        let theme = Theme {
            colour: colour_wanted(),
        };
        let (rings, now) = (self.desk.take_ring(), SystemTime::now());
        terminal.draw(rings, |frame| draw(&self.desk, theme, now, frame))
    }
}

fn lost(error: &io::Error) -> Failure {
    Failure::error(format_args!("cannot use the terminal: {error}"))
}
