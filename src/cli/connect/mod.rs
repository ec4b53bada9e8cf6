//! `switchboard connect`: a client for the raw ports, in lockstep as the wire is: a line, its answer, the next line.
//!
//! It knows no more than the wire contract, so that it talks to any server of that wire, and believes nothing that it
//! is told: lengths are bounded, bodies streamed, and what would move a terminal's cursor is shown instead.

mod datagram;
mod free;
mod prompt;
mod screen;
mod stream;

use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::AsFd;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::exit::{ERROR, Failure, UNAVAILABLE};
use datagram::Datagrams;
use prompt::{Input, Prompt};
use screen::Screen;
use stream::Stream;

/// The largest answer that is taken as one message, and the longest line that is sent.
const MAX_MESSAGE: usize = 16 << 20;

/// How long an answer to a datagram is waited for, which may be lost.
const DATAGRAM_PATIENCE: Duration = Duration::from_secs(10);

/// How long a server may take to let somebody in.
const CONNECT_PATIENCE: Duration = Duration::from_secs(30);

/// Whom to talk to, and how.
#[derive(Debug, Args)]
pub(super) struct ConnectArgs {
    /// What is spoken there
    #[arg(value_enum)]
    protocol: Protocol,
    /// Where, as HOST:PORT or [v6]:PORT
    address: String,
    /// Talk in datagrams (chat; uppercase always does)
    #[arg(long)]
    udp: bool,
    /// How a TCP stream is cut into messages [default: raw]
    #[arg(long, value_enum)]
    framing: Option<Framing>,
    /// Print whatever comes, whenever it comes (chat with pace free, rooms)
    #[arg(long)]
    free: bool,
    /// Send this line instead of reading any, then leave; may be repeated
    #[arg(
        short = 'c',
        long = "once",
        value_name = "LINE",
        allow_hyphen_values = true
    )]
    lines: Vec<String>,
    /// How long to wait for an answer; by default 10s over UDP and for ever over TCP
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Protocol {
    /// Every message is acknowledged
    Ack,
    /// Every message is a command, and its output the answer
    Shell,
    /// Every datagram comes back in upper case
    Uppercase,
    /// A person answers, or the other members of a room
    Chat,
}

/// How a byte stream is cut into messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Framing {
    /// What one read returns is a message
    Raw,
    /// A message ends with a line feed
    Line,
    /// Four bytes say how long a message is
    Length,
}

/// A connection that carries messages both ways. Errors are the socket's, and `InvalidData` for what is no message.
trait Link: AsFd {
    /// Sends one message, whole.
    fn send(&mut self, message: &[u8]) -> io::Result<()>;
    /// The next message; `None` once the peer has closed.
    fn receive(&mut self) -> io::Result<Option<Vec<u8>>>;
    /// Whatever has come, to be printed as it is, even if it is no whole message; `None` once the peer has closed.
    fn arrival(&mut self) -> io::Result<Option<Vec<u8>>>;
    /// Whether something has come that the socket does not show any more.
    fn buffered(&self) -> bool;
    /// Says that nothing more will be sent.
    fn finish(&mut self) -> io::Result<()>;
}

/// Talks until the lines end, or the server does.
pub(super) fn run(args: ConnectArgs) -> Result<(), Failure> {
    args.check().map_err(Failure::usage)?;
    let addresses = resolve(&args.address)?;
    let mut screen = Screen::stdout();
    if args.datagrams() {
        let mut peer = Datagrams::connect(&addresses, args.timeout.unwrap_or(DATAGRAM_PATIENCE))?;
        let mut prompt = args.prompt(&peer)?;
        if args.free {
            return free::visit(&mut peer, &mut prompt, &mut screen);
        }
        let mut missed = 0u32;
        visit(&mut prompt, |line| {
            missed += u32::from(!peer.exchange(line, &mut screen)?);
            Ok(())
        })?;
        return match missed {
            0 => Ok(()),
            missed => Err(Failure::Here(
                UNAVAILABLE,
                format!("messages without an answer: {missed}"),
            )),
        };
    }
    let mut peer = Stream::connect(
        &addresses,
        args.framing.unwrap_or(Framing::Raw),
        args.timeout,
    )?;
    let mut prompt = args.prompt(&peer)?;
    match args.protocol {
        _ if args.free => free::visit(&mut peer, &mut prompt, &mut screen),
        Protocol::Shell => shell(&mut peer, &mut prompt, &mut screen),
        _ => visit(&mut prompt, |line| exchange(&mut peer, line, &mut screen)),
    }
}

impl ConnectArgs {
    fn datagrams(&self) -> bool {
        self.udp || self.protocol == Protocol::Uppercase
    }

    fn check(&self) -> Result<(), &'static str> {
        match self.protocol {
            Protocol::Ack | Protocol::Shell if self.udp => Err("only chat and uppercase speak UDP"),
            _ if self.free && self.protocol != Protocol::Chat => Err("only a chat can be free"),
            _ if self.datagrams() && self.framing.is_some() => Err("datagrams have no framing"),
            _ if self.timeout.is_some_and(|timeout| timeout.is_zero()) => {
                Err("a time-out of 0 leaves no time for an answer")
            }
            _ => Ok(()),
        }
    }

    fn prompt(&self, link: &impl Link) -> Result<Prompt, Failure> {
        let watched = self
            .free
            .then(|| link.as_fd().try_clone_to_owned())
            .transpose();
        let watched = watched.map_err(Failure::error)?;
        let name = self.protocol.to_possible_value();
        let name = name.as_ref().map_or("", |name| name.get_name());
        let prompt = Prompt::new(name, &self.lines, watched)?;
        if prompt.is_interactive() {
            eprintln!("connected to {}; `q` leaves", self.address);
        }
        Ok(prompt)
    }
}

/// One line after the other, until there are no more.
fn visit(
    prompt: &mut Prompt,
    mut exchange: impl FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    while let Input::Line(line) = prompt.next()? {
        exchange(&line)?;
    }
    Ok(())
}

/// One command after the other. A person has read what was refused; a script knows it by the exit code.
fn shell(
    peer: &mut Stream,
    prompt: &mut Prompt,
    screen: &mut Screen<impl Write>,
) -> Result<(), Failure> {
    let mut refused = false;
    visit(prompt, |line| {
        refused |= !peer.command(line, screen)?;
        Ok(())
    })?;
    match refused && !prompt.is_interactive() {
        true => Err(Failure::Told(ERROR)),
        false => Ok(()),
    }
}

/// One message, one answer.
fn exchange(
    peer: &mut Stream,
    line: &[u8],
    screen: &mut Screen<impl Write>,
) -> Result<(), Failure> {
    if peer.is_nothing(line) {
        return Ok(());
    }
    peer.send(line).map_err(lost)?;
    match peer.receive().map_err(lost)? {
        Some(answer) => screen.answer(&answer),
        None => Err(closed()),
    }
}

fn resolve(address: &str) -> Result<Vec<SocketAddr>, Failure> {
    match address.to_socket_addrs() {
        Ok(found) => Ok(found.collect()),
        Err(error) if error.kind() == ErrorKind::InvalidInput => Err(Failure::usage(format_args!(
            "{address:?} is no HOST:PORT: {error}"
        ))),
        Err(error) => Err(unreachable(address, &error)),
    }
}

fn unreachable(place: impl std::fmt::Display, error: &io::Error) -> Failure {
    Failure::Here(UNAVAILABLE, format!("cannot connect to {place}: {error}"))
}

fn closed() -> Failure {
    Failure::error("the server closed the connection")
}

/// What became of the conversation when its socket failed.
fn lost(error: io::Error) -> Failure {
    match error.kind() {
        ErrorKind::UnexpectedEof
        | ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::BrokenPipe => closed(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            Failure::Here(UNAVAILABLE, "no answer in time".to_owned())
        }
        ErrorKind::ConnectionRefused => {
            Failure::Here(UNAVAILABLE, format!("nobody listens there: {error}"))
        }
        _ => Failure::error(error),
    }
}

/// A system call with a time-out is not taken up again after a signal, such as a change of the window's size.
fn again<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests;
