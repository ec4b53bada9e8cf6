//! Answers of any length, from memory and from files, as fast as the peer reads them.

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::Interest;

use super::Stream;
use super::send::{note_held, write};
use crate::net::close::{Ask, CloseReason};
use crate::net::tap::Direction;

/// The most of a file that is sent with one call: others get their turn in between.
const PIECE: u64 = 1 << 20;

/// The same where somebody is shown what is sent, for which it must be in memory.
const SHOWN: u64 = 64 << 10;

/// A piece of an answer.
#[derive(Debug, Clone, Copy)]
pub enum Part<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// So many bytes from the beginning of a file, which has them and keeps them.
    File(&'a OwnedFd, u64),
}

impl Part<'_> {
    fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(_, len) => *len,
        }
    }
}

/// What can be sent with one call.
enum Piece<'a> {
    /// Bytes, and whether a file follows them.
    Bytes(Vec<IoSlice<'a>>, bool),
    /// So many bytes of a file, from an offset on.
    File(&'a OwnedFd, u64, u64),
}

/// What follows the first `done` bytes of `parts`.
fn rest<'a>(parts: &[Part<'a>], done: u64) -> Piece<'a> {
    let mut skip = done;
    let mut bytes = Vec::new();
    for part in parts {
        let cut = skip.min(part.len());
        skip -= cut;
        match *part {
            _ if cut == part.len() => {}
            Part::Bytes(part) => {
                let cut = usize::try_from(cut).unwrap_or(part.len());
                bytes.push(IoSlice::new(&part[cut..]));
            }
            Part::File(..) if !bytes.is_empty() => return Piece::Bytes(bytes, true),
            Part::File(file, len) => return Piece::File(file, cut, len - cut),
        }
    }
    Piece::Bytes(bytes, false)
}

impl Stream {
    /// Writes all of `parts`, however long, as fast as the peer reads. For answers larger than an
    /// outbox; what has gathered there goes first. A peer that does not read for `patience` is a
    /// slow consumer.
    pub async fn send_all(
        &mut self,
        parts: &[Part<'_>],
        patience: Duration,
    ) -> Result<(), CloseReason> {
        self.flush().await?;
        let total: u64 = parts.iter().map(Part::len).sum();
        let mut done = 0;
        while done < total {
            match tokio::time::timeout(patience, self.write_some(parts, done)).await {
                Ok(sent) => done += sent? as u64,
                Err(_) => {
                    self.door.counters.stalls.fetch_add(1, Ordering::Relaxed);
                    return Err(CloseReason::SlowConsumer);
                }
            }
        }
        let total = usize::try_from(total).unwrap_or(usize::MAX);
        self.session.note_sent(1, total, Instant::now());
        Ok(())
    }

    /// One write of what follows the first `done` bytes of `parts`.
    async fn write_some(&self, parts: &[Part<'_>], done: u64) -> Result<usize, CloseReason> {
        let piece = rest(parts, done);
        std::future::poll_fn(|cx| {
            if let Poll::Ready(Ask::Cut(reason)) = self.session.poll_asked(cx) {
                return Poll::Ready(Err(reason));
            }
            loop {
                if ready!(self.tcp.poll_write_ready(cx)).is_err() {
                    return Poll::Ready(Err(CloseReason::ClientReset));
                }
                match self.write_piece(&piece) {
                    // A file that has not what was said of it.
                    Ok(0) => return Poll::Ready(Err(CloseReason::Internal)),
                    Ok(sent) => {
                        note_held(&self.session, 0);
                        return Poll::Ready(Ok(sent));
                    }
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => note_held(&self.session, 1),
                    Err(_) => return Poll::Ready(Err(CloseReason::ClientReset)),
                }
            }
        })
        .await
    }

    /// Hands the kernel what it takes at once of a piece, and shows it to whoever taps.
    fn write_piece(&self, piece: &Piece<'_>) -> io::Result<usize> {
        match piece {
            Piece::Bytes(bytes, more) => self.write_bytes(bytes, *more),
            Piece::File(file, offset, len) if self.session.tapped.load(Ordering::Relaxed) => {
                let mut bytes = vec![0; usize::try_from(SHOWN.min(*len)).unwrap_or_default()];
                let count = rustix::io::pread(file, &mut bytes, *offset)?;
                self.write_bytes(&[IoSlice::new(&bytes[..count])], false)
            }
            Piece::File(file, offset, len) => {
                let most = usize::try_from(PIECE.min(*len)).unwrap_or_default();
                let mut offset = *offset;
                self.tcp.try_io(Interest::WRITABLE, || {
                    let sent = rustix::fs::sendfile(&self.tcp, file, Some(&mut offset), most);
                    Ok(sent?)
                })
            }
        }
    }

    fn write_bytes(&self, bytes: &[IoSlice<'_>], more: bool) -> io::Result<usize> {
        let sent = write(&self.tcp, bytes, more)?;
        self.session.tell_bytes(Direction::Transmit, bytes, sent);
        Ok(sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The next piece, in words: bytes as they are, files by offset and length.
    fn next(parts: &[Part<'_>], done: u64) -> String {
        match rest(parts, done) {
            Piece::Bytes(bytes, more) => {
                let bytes: Vec<u8> = bytes.iter().flat_map(|part| part.to_vec()).collect();
                let bytes = String::from_utf8(bytes).unwrap();
                format!("{bytes}{}", if more { " and more" } else { "" })
            }
            Piece::File(_, offset, len) => format!("{len} from {offset}"),
        }
    }

    #[test]
    fn bytes_go_together_and_each_file_by_itself() {
        let (file, _) = std::io::pipe().unwrap();
        let file = OwnedFd::from(file);
        let (head, body) = (Part::Bytes(b"head"), Part::Bytes(b"body"));
        let (none, long) = (Part::Bytes(b""), Part::File(&file, 100));
        assert_eq!(next(&[head, none, body], 0), "headbody");
        assert_eq!(next(&[head, none, body], 2), "adbody");
        assert_eq!(next(&[head, body], 4), "body");
        assert_eq!(next(&[head, long, body], 0), "head and more");
        assert_eq!(next(&[head, long, body], 3), "d and more");
        assert_eq!(next(&[head, long, body], 4), "100 from 0");
        assert_eq!(next(&[head, long, long, body], 94), "10 from 90");
        assert_eq!(next(&[head, long, long, body], 104), "100 from 0");
        assert_eq!(next(&[head, none, long, body], 104), "body");
    }
}
