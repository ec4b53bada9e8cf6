//! Where lines come from: the command line, a pipe, or a person at a terminal with history and line editing.
//!
//! A socket may be watched meanwhile. Both are waited for in one place, on one thread, so that nothing is ever printed
//! into a line that is being typed.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use reedline::{DefaultPrompt, DefaultPromptSegment, Reedline, Signal};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::super::exit::Failure;
use super::super::output::colour_wanted;
use super::{MAX_MESSAGE, again};

/// What happened next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// A line, without its end.
    Line(Vec<u8>),
    /// The line `q` or `quit`.
    Quit,
    /// There are no more lines.
    End,
    /// The watched socket has something to say.
    Arrived,
}

/// Lines, and a socket that is watched while they are waited for.
pub(super) struct Prompt {
    lines: Lines,
    watched: Option<OwnedFd>,
    /// The socket had its turn: a flood there must not keep the lines from being read, nor the other way round.
    turn_taken: bool,
}

enum Lines {
    Given(VecDeque<Vec<u8>>),
    Piped(Pipe),
    Typed(Box<Reedline>, DefaultPrompt),
}

impl Prompt {
    /// The lines given, or stdin's when there are none.
    pub(super) fn new(
        name: &str,
        given: &[String],
        watched: Option<OwnedFd>,
    ) -> Result<Self, Failure> {
        let lines = if !given.is_empty() {
            Lines::Given(given.iter().map(|line| line.clone().into_bytes()).collect())
        } else if io::stdin().is_terminal() && io::stderr().is_terminal() {
            let prompt = DefaultPromptSegment::Basic(name.to_owned());
            let editor = editor(watched.as_ref()).map_err(Failure::error)?;
            Lines::Typed(
                Box::new(editor),
                DefaultPrompt::new(prompt, DefaultPromptSegment::Empty),
            )
        } else {
            let stdin = io::stdin()
                .as_fd()
                .try_clone_to_owned()
                .map_err(Failure::error)?;
            Lines::Piped(Pipe::new(File::from(stdin)))
        };
        Ok(Self {
            lines,
            watched,
            turn_taken: false,
        })
    }

    /// Whether somebody is typing.
    pub(super) fn is_interactive(&self) -> bool {
        matches!(self.lines, Lines::Typed(..))
    }

    /// Waits for a line, or for the socket that is watched.
    ///
    /// # Errors
    /// [`Failure::Interrupted`] for Ctrl-C at the prompt, and what goes wrong in reading.
    pub(super) fn next(&mut self) -> Result<Input, Failure> {
        if let Some(socket) = &self.watched
            && !self.turn_taken
            && readable(socket).map_err(Failure::error)?
        {
            self.turn_taken = true;
            return Ok(Input::Arrived);
        }
        self.turn_taken = false;
        let input = match &mut self.lines {
            Lines::Given(lines) => lines.pop_front().map_or(Input::End, Input::Line),
            Lines::Piped(pipe) => pipe.next(self.watched.as_ref()).map_err(Failure::error)?,
            Lines::Typed(editor, prompt) => {
                match editor.read_line(prompt).map_err(Failure::error)? {
                    Signal::Success(line) => Input::Line(line.into_bytes()),
                    Signal::ExternalBreak(_) => {
                        // The unfinished line stays in the editor; the place where it stood is printed on.
                        eprint!("\r\x1b[K");
                        Input::Arrived
                    }
                    Signal::CtrlC => return Err(Failure::Interrupted),
                    _ => Input::End,
                }
            }
        };
        self.turn_taken = input == Input::Arrived;
        Ok(match input {
            Input::Line(line) if matches!(&*line, b"q" | b"quit") => Input::Quit,
            input => input,
        })
    }
}

/// An editor that is left, its line unfinished, as soon as the socket has something to say.
fn editor(watched: Option<&OwnedFd>) -> io::Result<Reedline> {
    let editor = Reedline::create().with_ansi_colors(colour_wanted());
    let Some(socket) = watched else {
        return Ok(editor);
    };
    let socket = socket.try_clone()?;
    let leave = Arc::new(AtomicBool::new(false));
    let editor = editor.with_break_signal(leave.clone());
    Ok(editor.with_idle_callback(Box::new(move || {
        // A socket that cannot be asked is broken, and reading it will say how.
        if readable(&socket).unwrap_or(true) {
            leave.store(true, Ordering::Relaxed);
        }
    })))
}

/// Lines of a pipe or a file, read by hand: std's buffer could hide a line from `poll`.
struct Pipe {
    input: File,
    pending: Vec<u8>,
    ended: bool,
}

impl Pipe {
    fn new(input: File) -> Self {
        Self {
            input,
            pending: Vec::new(),
            ended: false,
        }
    }

    fn next(&mut self, watched: Option<&OwnedFd>) -> io::Result<Input> {
        loop {
            if let Some(line) = self.take_line() {
                return Ok(Input::Line(line));
            }
            if self.ended {
                return Ok(Input::End);
            }
            if self.pending.len() > MAX_MESSAGE {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a line without end",
                ));
            }
            if let Some(socket) = watched
                && !first_is_ready(&self.input, socket)?
            {
                return Ok(Input::Arrived);
            }
            let mut piece = [0; 16 << 10];
            let read = again(|| self.input.read(&mut piece))?;
            self.pending.extend_from_slice(&piece[..read]);
            self.ended = read == 0;
        }
    }

    /// The first line without LF or CRLF; the last one may lack its end.
    fn take_line(&mut self) -> Option<Vec<u8>> {
        let end = memchr::memchr(b'\n', &self.pending);
        let end =
            end.or_else(|| (self.ended && !self.pending.is_empty()).then_some(self.pending.len()))?;
        let rest = self.pending.split_off(self.pending.len().min(end + 1));
        let mut line = std::mem::replace(&mut self.pending, rest);
        line.truncate(end);
        if line.ends_with(b"\r") {
            line.pop();
        }
        Some(line)
    }
}

fn readable(socket: &OwnedFd) -> io::Result<bool> {
    let mut asked = [PollFd::new(socket, PollFlags::IN)];
    Ok(again(|| Ok(poll(&mut asked, Some(&Timespec::default()))?))? > 0)
}

/// Waits for either; false when only the second is ready.
fn first_is_ready(first: &impl AsFd, second: &impl AsFd) -> io::Result<bool> {
    let mut asked = [
        PollFd::new(first, PollFlags::IN),
        PollFd::new(second, PollFlags::IN),
    ];
    again(|| Ok(poll(&mut asked, None)?))?;
    Ok(!asked[0].revents().is_empty())
}

#[cfg(test)]
impl Prompt {
    /// Lines from a file, as if it were stdin.
    pub(super) fn piped(input: File, watched: Option<OwnedFd>) -> Self {
        Self {
            lines: Lines::Piped(Pipe::new(input)),
            watched,
            turn_taken: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, Write};
    use std::net::UdpSocket;

    fn file(text: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        file.rewind().unwrap();
        file
    }

    fn all(text: &[u8]) -> Vec<Input> {
        let mut prompt = Prompt::piped(file(text), None);
        let mut inputs = Vec::new();
        loop {
            inputs.push(prompt.next().unwrap());
            if matches!(inputs.last(), Some(Input::End | Input::Quit)) {
                return inputs;
            }
        }
    }

    #[test]
    fn lines_lose_their_ends_and_nothing_else() {
        let line = |text: &[u8]| Input::Line(text.to_vec());
        assert_eq!(
            all(b"a b\r\n\n\xff\nlast"),
            [
                line(b"a b"),
                line(b""),
                line(b"\xff"),
                line(b"last"),
                Input::End
            ]
        );
        assert_eq!(all(b""), [Input::End]);
        let long = vec![b'x'; 100_000];
        assert_eq!(all(&long), [line(&long), Input::End]);
    }

    #[test]
    fn q_leaves() {
        assert_eq!(all(b"q\nmore\n"), [Input::Quit]);
        assert_eq!(all(b"quit"), [Input::Quit]);
        assert_eq!(all(b"qq\n")[0], Input::Line(b"qq".to_vec()));
    }

    #[test]
    fn a_socket_and_the_lines_take_turns() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket
            .send_to(b"hello", socket.local_addr().unwrap())
            .unwrap();
        let watched = OwnedFd::from(socket.try_clone().unwrap());
        let mut prompt = Prompt::piped(file(b"one\ntwo\n"), Some(watched));
        let seen: Vec<_> = (0..4).map(|_| prompt.next().unwrap()).collect();
        let line = |text: &[u8]| Input::Line(text.to_vec());
        assert_eq!(
            seen,
            [Input::Arrived, line(b"one"), Input::Arrived, line(b"two")]
        );
    }

    #[test]
    fn a_silent_pipe_does_not_hide_the_socket() {
        let (reader, _writer) = io::pipe().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let watched = OwnedFd::from(socket.try_clone().unwrap());
        let mut prompt = Prompt::piped(File::from(OwnedFd::from(reader)), Some(watched));
        socket
            .send_to(b"hello", socket.local_addr().unwrap())
            .unwrap();
        assert_eq!(prompt.next().unwrap(), Input::Arrived);
    }
}
