//! Messages over TCP: the three framings, and the framed shell's answer.

use std::io::{self, BufRead, BufReader, Error, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use serde_json::Value;

use super::super::exit::{Failure, complain};
use super::super::output::legible;
use super::{
    CONNECT_PATIENCE, Framing, Link, MAX_MESSAGE, Screen, again, closed, lost, unreachable,
};

/// What one read takes at most, and so the longest answer of the raw framing.
const READ: usize = 64 << 10;

/// The longest header of a shell's answer that is believed; an honest one stays under 1,024 bytes.
const MAX_HEADER: u32 = 64 << 10;

/// A TCP connection.
#[derive(Debug)]
pub(super) struct Stream {
    socket: BufReader<TcpStream>,
    framing: Framing,
}

impl Stream {
    /// Connects to the first address that answers. `timeout` bounds the wait for each piece of an answer.
    pub(super) fn connect(
        addresses: &[SocketAddr],
        framing: Framing,
        timeout: Option<Duration>,
    ) -> Result<Self, Failure> {
        let mut refused = Failure::error("the name has no address");
        for address in addresses {
            match TcpStream::connect_timeout(address, timeout.unwrap_or(CONNECT_PATIENCE)) {
                Ok(socket) => {
                    socket.set_nodelay(true).map_err(Failure::error)?;
                    socket.set_read_timeout(timeout).map_err(Failure::error)?;
                    socket.set_write_timeout(timeout).map_err(Failure::error)?;
                    return Ok(Self {
                        socket: BufReader::with_capacity(READ, socket),
                        framing,
                    });
                }
                Err(error) => refused = unreachable(address, &error),
            }
        }
        Err(refused)
    }

    /// Whether the line is no message at all: a raw message of no bytes cannot be sent.
    pub(super) fn is_nothing(&self, line: &[u8]) -> bool {
        line.is_empty() && self.framing == Framing::Raw
    }

    /// Sends a command and prints its output as it comes; `false` when it was refused, which is said on stderr.
    pub(super) fn command(
        &mut self,
        line: &[u8],
        screen: &mut Screen<impl Write>,
    ) -> Result<bool, Failure> {
        if self.is_nothing(line) {
            return Ok(true);
        }
        self.send(line).map_err(lost)?;
        let (mut left, refusal) = self.shell_header().map_err(lost)?;
        while left > 0 {
            let piece = self.piece().map_err(lost)?;
            let taken = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            if taken == 0 {
                return Err(closed());
            }
            screen.write(&piece[..taken])?;
            self.socket.consume(taken);
            left -= taken as u64;
        }
        screen.settle()?;
        if let Some(refusal) = &refusal {
            complain(&format!("error: {}", legible(refusal.as_bytes(), b"\\")));
        }
        Ok(refusal.is_none())
    }

    /// The length of the body, and why the command was refused.
    fn shell_header(&mut self) -> io::Result<(u64, Option<String>)> {
        let length = self.length()?;
        match u32::try_from(length) {
            Ok(length @ 1..=MAX_HEADER) => {
                let mut bytes = vec![0; length as usize];
                self.socket.read_exact(&mut bytes)?;
                shell_header(&bytes)
            }
            _ => Err(bad(format!(
                "no shell: it announces a header of {length} bytes"
            ))),
        }
    }

    fn length(&mut self) -> io::Result<i32> {
        let mut bytes = [0; 4];
        self.socket.read_exact(&mut bytes)?;
        Ok(i32::from_le_bytes(bytes))
    }

    /// What has come and is not consumed; empty once the peer has closed.
    fn piece(&mut self) -> io::Result<&[u8]> {
        again(|| self.socket.fill_buf().map(|_| ()))?;
        Ok(self.socket.buffer())
    }

    fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        let piece = self.piece()?.to_vec();
        self.socket.consume(piece.len());
        Ok(Some(piece).filter(|piece| !piece.is_empty()))
    }

    fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        (&mut self.socket)
            .take(MAX_MESSAGE as u64 + 1)
            .read_until(b'\n', &mut line)?;
        match line.pop() {
            None => return Ok(None),
            Some(b'\n') => {}
            Some(_) if line.len() == MAX_MESSAGE => {
                return Err(bad("its answer is a line without end".to_owned()));
            }
            Some(_) => return Err(ErrorKind::UnexpectedEof.into()),
        }
        Ok(Some(line))
    }

    fn frame(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.piece()?.is_empty() {
            return Ok(None);
        }
        let length = self.length()?;
        let bytes = usize::try_from(length)
            .ok()
            .filter(|length| *length <= MAX_MESSAGE);
        let bytes =
            bytes.ok_or_else(|| bad(format!("it announces an answer of {length} bytes")))?;
        let mut message = vec![0; bytes];
        self.socket.read_exact(&mut message)?;
        Ok(Some(message))
    }
}

impl Link for Stream {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let framed;
        let bytes = match self.framing {
            Framing::Raw => message,
            Framing::Line => {
                framed = [message, b"\n"].concat();
                &framed
            }
            Framing::Length => {
                let length = i32::try_from(message.len()).map_err(|e| bad(e.to_string()))?;
                framed = [&length.to_le_bytes()[..], message].concat();
                &framed
            }
        };
        self.socket.get_mut().write_all(bytes)
    }

    fn receive(&mut self) -> io::Result<Option<Vec<u8>>> {
        match self.framing {
            Framing::Raw => self.read(),
            Framing::Line => self.line(),
            Framing::Length => self.frame(),
        }
    }

    fn arrival(&mut self) -> io::Result<Option<Vec<u8>>> {
        match self.framing {
            Framing::Raw | Framing::Line => self.read(),
            Framing::Length => Ok(self.frame()?.map(|mut message| {
                message.push(b'\n');
                message
            })),
        }
    }

    fn buffered(&self) -> bool {
        !self.socket.buffer().is_empty()
    }

    fn finish(&mut self) -> io::Result<()> {
        self.socket.get_ref().shutdown(Shutdown::Write)
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.get_ref().as_fd()
    }
}

/// Reads what is needed and overlooks the rest: other servers know fewer keys, later ones more.
fn shell_header(bytes: &[u8]) -> io::Result<(u64, Option<String>)> {
    let header: Value = serde_json::from_slice(bytes)
        .map_err(|error| bad(format!("no shell: its header is no JSON: {error}")))?;
    let length = header["len"]
        .as_u64()
        .filter(|length| *length <= u64::from(i32::MAX.unsigned_abs()));
    let length = length.ok_or_else(|| bad("no shell: its header has no `len`".to_owned()))?;
    let error = &header["error"];
    let refusal = match (error["code"].as_str(), error["message"].as_str()) {
        _ if error.is_null() => None,
        (Some(code), Some(message)) => Some(format!("{code}: {message}")),
        (None, Some(word)) | (Some(word), None) => Some(word.to_owned()),
        (None, None) => Some(
            error
                .as_str()
                .map_or_else(|| error.to_string(), str::to_owned),
        ),
    };
    Ok((length, refusal))
}

fn bad(message: String) -> Error {
    Error::new(ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_needs_its_length_alone() {
        let read = |text: &str| shell_header(text.as_bytes()).map_err(|error| error.to_string());
        assert_eq!(read(r#"{"len":3}"#), Ok((3, None)));
        assert_eq!(
            read(r#"{"x":[1],"filename":7,"len":0,"error":null}"#),
            Ok((0, None))
        );
        for (error, shown) in [
            (
                r#"{"code":"busy","message":"try later"}"#,
                "busy: try later",
            ),
            (r#"{"message":"try later"}"#, "try later"),
            (r#""no""#, "no"),
            ("7", "7"),
        ] {
            let header = format!(r#"{{"len":1,"error":{error}}}"#);
            assert_eq!(read(&header), Ok((1, Some(shown.to_owned()))));
        }
        for wrong in [
            r#"{"len":-5}"#,
            r#"{"len":2147483648}"#,
            r#"{"len":"3"}"#,
            "{}",
            "[]",
            "[3]",
            "{",
            "3",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
