//! The terminal while a whole screen has it: raw, on its other screen, and given back as it was, however this ends.
//!
//! It is opened anew, so that neither reading nor writing ever waits and the shell's own end stays as it is. A frame is
//! drawn only once the one before has left: a slow link is shown fewer of them, and never an old one.

use std::cell::RefCell;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::panic;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ratatui::backend::CrosstermBackend;
use ratatui::layout::Rect;
use ratatui::{Frame, TerminalOptions, Viewport};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::inlet::Inlet;
use crate::net::watch_for;

/// The other screen, and pastes told from typing.
const ENTER: &[u8] = b"\x1b[?1049h\x1b[?2004h\x1b[2J";

/// All of it back: no attributes, the cursor seen, the screen as it was.
const LEAVE: &[u8] = b"\x1b[0m\x1b[?2004l\x1b[?25h\x1b[?1049l";

/// A frame is shown at once, by terminals that know how; the others overlook it.
const FRAME: (&[u8], &[u8]) = (b"\x1b[?2026h", b"\x1b[?2026l");

/// How long a terminal that takes nothing is waited for at the end, in milliseconds.
const PATIENCE: i64 = 500;

/// The largest screen that is filled; of a larger one a part is used.
const LARGEST: (u16, u16) = (1_000, 400);

/// What a terminal is taken for that does not know its size.
const USUAL: (u16, u16) = (80, 24);

/// A terminal, taken.
pub(in super::super) struct Terminal {
    /// What is typed.
    pub(in super::super) inlet: Inlet,
    /// What is shown.
    pub(in super::super) outlet: Outlet,
    screen: ratatui::Terminal<CrosstermBackend<Sink>>,
    sink: Sink,
    state: Arc<State>,
}

/// What is to be given back.
struct State {
    terminal: OwnedFd,
    before: Termios,
    is_taken: AtomicBool,
}

impl Terminal {
    /// Takes the terminal of this process. Must be called within the runtime.
    pub(in super::super) fn take() -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let terminal = rustix::fs::open("/dev/tty", flags, Mode::empty())?;
        let state = Arc::new(State {
            before: tcgetattr(&terminal)?,
            is_taken: AtomicBool::new(false),
            terminal,
        });
        let sink = Sink::default();
        let area = size(&state.terminal);
        let viewport = Viewport::Fixed(area);
        let options = TerminalOptions { viewport };
        let screen = ratatui::Terminal::with_options(CrosstermBackend::new(sink.clone()), options)?;
        let taken = Self {
            inlet: Inlet::new(state.terminal.as_fd())?,
            outlet: Outlet::new(&state.terminal)?,
            screen,
            sink,
            state,
        };
        taken.restore_on_panic();
        taken.state.enter()?;
        Ok(taken)
    }

    /// A panic is told on the screen that the shell has, in lines that end as lines do there.
    fn restore_on_panic(&self) {
        let (state, tell) = (Arc::downgrade(&self.state), panic::take_hook());
        panic::set_hook(Box::new(move |what| {
            if let Some(state) = state.upgrade() {
                state.leave();
            }
            tell(what);
        }));
    }

    /// Draws a frame, to be flushed; with a bell in front if it is to ring.
    pub(in super::super) fn draw(
        &mut self,
        rings: bool,
        view: impl FnOnce(&mut Frame<'_>),
    ) -> io::Result<()> {
        self.screen.draw(view)?;
        let frame = self.sink.take();
        self.outlet
            .push(&[if rings { b"\x07" } else { b"" }, FRAME.0, &frame, FRAME.1]);
        Ok(())
    }

    /// Takes up another size, or the same on a screen that somebody else wrote on.
    pub(in super::super) fn resize(&mut self) -> io::Result<()> {
        self.screen.resize(size(&self.state.terminal))
    }

    /// Gives it back, waits in the background until it is wanted again, and takes it anew.
    pub(in super::super) fn suspend(&mut self) -> io::Result<()> {
        self.state.leave();
        rustix::process::kill_current_process_group(rustix::process::Signal::TSTP)?;
        self.outlet.clear();
        self.state.enter()?;
        self.resize()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.state.leave();
    }
}

impl State {
    fn enter(&self) -> io::Result<()> {
        let mut raw = self.before.clone();
        raw.make_raw();
        tcsetattr(&self.terminal, OptionalActions::Flush, &raw)?;
        self.is_taken.store(true, Ordering::SeqCst);
        self.write(ENTER);
        Ok(())
    }

    fn leave(&self) {
        if self.is_taken.swap(false, Ordering::SeqCst) {
            self.write(LEAVE);
            // A terminal that is gone needs nothing back.
            let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
        }
    }

    /// Writes all of it, as far as the terminal takes it in time.
    fn write(&self, mut bytes: &[u8]) {
        let patience = Timespec {
            tv_sec: 0,
            tv_nsec: PATIENCE * 1_000_000,
        };
        while !bytes.is_empty() {
            match rustix::io::write(&self.terminal, bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => {
                    let mut fds = [PollFd::new(&self.terminal, PollFlags::OUT)];
                    if !matches!(poll(&mut fds, Some(&patience)), Ok(1..)) {
                        return;
                    }
                }
                Err(_) => return,
            }
        }
    }
}

fn size(terminal: &OwnedFd) -> Rect {
    let known = tcgetwinsize(terminal).ok();
    let known = known.filter(|size| size.ws_col > 0 && size.ws_row > 0);
    let (width, height) = known.map_or(USUAL, |size| (size.ws_col, size.ws_row));
    Rect::new(0, 0, width.min(LARGEST.0), height.min(LARGEST.1))
}

/// What has been drawn and not taken by the terminal yet: one frame.
#[derive(Debug)]
pub(in super::super) struct Outlet {
    terminal: AsyncFd<OwnedFd>,
    bytes: Vec<u8>,
    written: usize,
}

impl Outlet {
    fn new(terminal: &OwnedFd) -> io::Result<Self> {
        Ok(Self {
            terminal: watch_for(terminal.try_clone()?, Interest::WRITABLE)?,
            bytes: Vec::new(),
            written: 0,
        })
    }

    fn push(&mut self, pieces: &[&[u8]]) {
        for piece in pieces {
            self.bytes.extend_from_slice(piece);
        }
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.written = 0;
    }

    /// Whether everything that was drawn has left.
    pub(in super::super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Hands it to the terminal, as it takes it. May be dropped while it waits.
    pub(in super::super) async fn flush(&mut self) -> io::Result<()> {
        while self.written < self.bytes.len() {
            let mut guard = self.terminal.writable().await?;
            let rest = &self.bytes[self.written..];
            let write = |fd: &AsyncFd<OwnedFd>| Ok(rustix::io::write(fd.get_ref(), rest)?);
            match guard.try_io(write) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(written) => self.written += written?,
                // Not now; it says when.
                Err(_) => {}
            }
        }
        self.clear();
        Ok(())
    }
}

/// Where ratatui writes its frame.
#[derive(Debug, Clone, Default)]
struct Sink(Rc<RefCell<Vec<u8>>>);

impl Sink {
    fn take(&self) -> Vec<u8> {
        self.0.take()
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
