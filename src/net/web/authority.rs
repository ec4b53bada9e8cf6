//! Clients that reach a socket in the file system send its path for the name of a host, and the
//! HTTP/2 library takes that for a broken protocol. So what no name may hold becomes a `-` before it
//! is read. One byte, or one code, for another of the same length: every length stays as it is, and
//! so does what both sides remember of the headers to compress the next.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The preface of HTTP/2, which is no frame.
const PREFACE: usize = 24;

/// The head of a frame.
const HEAD: usize = 9;

/// The longest frame that is read at all.
const LONGEST: usize = 16 << 10;

/// A socket whose callers are named as callers over TCP are.
pub(super) struct Named<T> {
    socket: T,
    /// Read, and not yet handed on; so many bytes at its front may be.
    held: Vec<u8>,
    ready: usize,
    /// What is still to come of something that is handed on as it is.
    passing: usize,
}

impl<T> Named<T> {
    pub(super) fn new(socket: T) -> Self {
        Self {
            socket,
            held: Vec::new(),
            ready: 0,
            passing: PREFACE,
        }
    }

    /// Lets go of all that is whole.
    fn release(&mut self) {
        while self.ready < self.held.len() {
            let rest = &mut self.held[self.ready..];
            if self.passing > 0 {
                let passed = self.passing.min(rest.len());
                self.passing -= passed;
                self.ready += passed;
                continue;
            }
            let [a, b, c, kind, flags, ..] = *rest else {
                return;
            };
            let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            const HEADERS: u8 = 1;
            if kind != HEADERS || length > LONGEST {
                self.passing = HEAD + length;
            } else if let Some(payload) = rest.get_mut(HEAD..HEAD + length) {
                name(payload, flags);
                self.ready += HEAD + length;
            } else {
                return;
            }
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Named<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.ready == 0 {
            let mut chunk = [0; 4_096];
            let mut read = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                // Whatever is left is cut short, and handed on as it is.
                self.ready = self.held.len();
                break;
            }
            self.held.extend_from_slice(read.filled());
            self.release();
        }
        let count = self.ready.min(buf.remaining());
        buf.put_slice(&self.held[..count]);
        self.held.drain(..count);
        self.ready -= count;
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Named<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// Makes a name of the `:authority` in the payload of a HEADERS frame. What is not understood is
/// left to whoever reads it next.
fn name(payload: &mut [u8], flags: u8) -> Option<()> {
    const PADDED: u8 = 0x8;
    const PRIORITY: u8 = 0x20;
    /// Where `:authority` stands in the static table.
    const AUTHORITY: usize = 1;
    /// `:authority` in Huffman's code.
    const SPELT: &[u8] = b"\xb8\x3b\x53\x39\xec\x32\x7d\x7f";
    let mut at = usize::from(flags & PADDED != 0) + 5 * usize::from(flags & PRIORITY != 0);
    while at < payload.len() {
        let bits = match payload[at].leading_zeros() {
            0 => 7,
            1 => 6,
            2 => 5,
            _ => 4,
        };
        let index = integer(payload, &mut at, bits)?;
        // A field of the table, or the table's size, has nothing behind it.
        if matches!(bits, 7 | 5) {
            continue;
        }
        // Some clients spell the name out.
        let is_authority = if index == 0 {
            let (name, huffman) = text(payload, &mut at)?;
            *name == *(if huffman { SPELT } else { b":authority" })
        } else {
            index == AUTHORITY
        };
        let (value, huffman) = text(payload, &mut at)?;
        if is_authority {
            if huffman {
                name_coded(value);
            } else {
                let odd = value.iter_mut().filter(|b| matches!(b, b'/' | b'%'));
                odd.for_each(|byte| *byte = b'-');
            }
            return Some(());
        }
    }
    None
}

/// An integer of HPACK in the low `bits` of a byte, and what follows.
fn integer(block: &[u8], at: &mut usize, bits: u32) -> Option<usize> {
    let most = (1 << bits) - 1;
    let mut value = usize::from(*block.get(*at)?) & most;
    *at += 1;
    if value < most {
        return Some(value);
    }
    for shift in [0, 7, 14] {
        let byte = *block.get(*at)?;
        *at += 1;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// A text of HPACK, and whether it is in Huffman's code.
fn text<'a>(block: &'a mut [u8], at: &mut usize) -> Option<(&'a mut [u8], bool)> {
    let huffman = *block.get(*at)? & 0x80 != 0;
    let length = integer(block, at, 7)?;
    let text = block.get_mut(*at..*at + length)?;
    *at += length;
    Some((text, huffman))
}

/// The same within a text in Huffman's code, in which all three characters have six bits. Codes
/// are told apart by their first eight bits; those of more are of characters that no path has.
fn name_coded(text: &mut [u8]) {
    const DASH: u8 = 0b01_0110;
    const SLASH: u8 = 0b01_1000;
    const PERCENT: u8 = 0b01_0101;
    let mut at = 0;
    while let Some(&byte) = text.get(at / 8) {
        let next = text.get(at / 8 + 1).copied().unwrap_or(0xff);
        let shift = 8 - at % 8;
        let pair = u16::from_be_bytes([byte, next]);
        let [_, first] = (pair >> shift).to_be_bytes();
        let bits = match first {
            0..0b0101_0000 => 5,
            0b0101_0000..0b1011_1000 => 6,
            0b1011_1000..0b1111_1000 => 7,
            0b1111_1000..0b1111_1110 => 8,
            _ => return,
        };
        if bits == 6 && matches!(first >> 2, SLASH | PERCENT) {
            let place = shift + 2;
            let named = pair & !(0b11_1111 << place) | u16::from(DASH) << place;
            let [high, low] = named.to_be_bytes();
            text[at / 8] = high;
            if let Some(byte) = text.get_mut(at / 8 + 1) {
                *byte = low;
            }
        }
        at += bits;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// `:method: POST` of the table, then `:authority` as a literal that is remembered.
    fn block(huffman: bool, value: &[u8]) -> Vec<u8> {
        let length = u8::try_from(value.len()).unwrap() | u8::from(huffman) << 7;
        [&[0x83, 0x41, length], value, &[0x84]].concat()
    }

    #[test]
    fn a_path_becomes_a_name_of_the_same_length() {
        let mut plain = block(false, b"/tmp/a%2fb.sock");
        name(&mut plain, 0);
        assert_eq!(plain, block(false, b"-tmp-a-2fb.sock"));
        // "/a/0" and "-a-0": 6, 5, 6 and 5 bits, and two of padding.
        let bits = |a: u32| a << 18 | 0b00011 << 13 | a << 7 | 0b11;
        let bytes = |a| bits(a).to_be_bytes()[1..].to_vec();
        let mut coded = block(true, &bytes(0b01_1000));
        name(&mut coded, 0);
        assert_eq!(coded, block(true, &bytes(0b01_0110)));
        let mut usual = block(true, &bytes(0b01_0111));
        name(&mut usual, 0);
        assert_eq!(usual, block(true, &bytes(0b01_0111)));
    }

    #[test]
    fn an_authority_is_found_however_its_name_is_written() {
        let spelt = |name: &[u8], value: &[u8]| {
            let length = value.len() as u8;
            [&[0x83, 0x40], name, &[length], value, &[0x84]].concat()
        };
        let plain = b"\x0a:authority";
        let coded = b"\x88\xb8\x3b\x53\x39\xec\x32\x7d\x7f";
        for written in [&plain[..], coded] {
            let mut block = spelt(written, b"tmp%2Fb.sock");
            name(&mut block, 0);
            assert_eq!(block, spelt(written, b"tmp-2Fb.sock"));
        }
        let other = spelt(b"\x05:path", b"/a/b");
        let mut block = other.clone();
        name(&mut block, 0);
        assert_eq!(block, other);
    }

    #[test]
    fn whatever_stands_in_a_frame_is_survived() {
        for length in 0..64 {
            for seed in 0..=u8::MAX {
                let junk = |i: u8| i.wrapping_mul(73).wrapping_add(seed).rotate_left(3);
                let mut payload: Vec<_> = (0..length).map(junk).collect();
                name(&mut payload, seed);
                name_coded(&mut payload);
                assert_eq!(payload.len(), usize::from(length));
            }
        }
    }

    #[tokio::test]
    async fn frames_are_named_however_they_come() {
        let frame = |kind: u8, payload: &[u8]| {
            let length = u8::try_from(payload.len()).unwrap();
            [&[0, 0, length, kind, 4, 0, 0, 0, 1], payload].concat()
        };
        let said = |path: &[u8]| {
            let (settings, data) = (frame(4, &[0; 6]), frame(0, b"/a/b"));
            [
                &[b'P'; PREFACE][..],
                &settings,
                &frame(1, &block(false, path)),
                &data,
            ]
            .concat()
        };
        for piece in [1, 7, 1_000] {
            let (mut peer, ours) = tokio::io::duplex(piece);
            let talking = async move {
                peer.write_all(&said(b"/s%")).await.unwrap();
            };
            let mut heard = Vec::new();
            let mut named = Named::new(ours);
            let (read, ()) = tokio::join!(named.read_to_end(&mut heard), talking);
            assert_eq!(read.unwrap(), heard.len());
            assert_eq!(heard, said(b"-s-"));
        }
    }
}
