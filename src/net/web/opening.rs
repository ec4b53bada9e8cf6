//! The first bytes of a connection, read before it has a place: HTTP/2's own handshake would wait
//! for them without a deadline.

use std::io::{self, Cursor};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::Version;
use super::connection::Ended;
use super::places::Full;

/// For the first request's head, or for HTTP/2's preface and settings, to be there; and for
/// somebody who is turned away to have heard it.
pub(super) const FIRST_BYTES: Duration = Duration::from_secs(5);

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The head of a frame of HTTP/2: three bytes of length, its type, flags, and four of a stream.
const FRAME_HEAD: usize = 9;

/// The type of the frame that must follow the preface.
const SETTINGS: u8 = 4;

/// The longest first settings: there are about ten of 6 bytes each.
const MOST_SETTINGS: usize = 1_024;

/// Read of a stranger's request before it is cut off: 64 KiB.
const MOST_UNREAD: u64 = 64 << 10;

/// A socket with what was read of it put back.
pub(super) struct Opened<T> {
    head: Cursor<Vec<u8>>,
    socket: T,
}

/// Waits so long for what a peer must say first.
pub(super) async fn open<T>(
    mut socket: T,
    version: Version,
    patience: Duration,
) -> Result<Opened<T>, Ended>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut head = Vec::new();
    let first = async {
        match version {
            Version::Http1 => more(&mut socket, &mut head, 1).await.map(|()| true),
            Version::Http2 => greeted(&mut socket, &mut head).await,
        }
    };
    let is_ours = tokio::time::timeout(patience, first)
        .await
        .map_err(|_| Ended::Silent)??;
    if !is_ours {
        say(&mut socket, refusal(400, NOT_HTTP2).as_bytes()).await;
        return Err(Ended::NotHttp2);
    }
    let head = Cursor::new(head);
    Ok(Opened { head, socket })
}

/// Told to whoever speaks something else to a port of gRPC.
const NOT_HTTP2: &str = "this port speaks gRPC (HTTP/2 with prior knowledge) only\n";

/// Whether the preface came, and whole settings behind it. What is something else is known as soon
/// as a byte differs.
async fn greeted(socket: &mut (impl AsyncRead + Unpin), head: &mut Vec<u8>) -> io::Result<bool> {
    while head.len() < PREFACE.len() {
        let wanted = PREFACE.len() - head.len();
        let mut taken = socket.take(wanted as u64);
        if taken.read_buf(head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if !PREFACE.starts_with(head) {
            return Ok(false);
        }
    }
    more(socket, head, FRAME_HEAD).await?;
    let [.., a, b, c, kind, _, _, _, _, _] = head[..] else {
        return Ok(false);
    };
    let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
    if kind != SETTINGS || length > MOST_SETTINGS {
        return Ok(false);
    }
    more(socket, head, length).await?;
    Ok(true)
}

/// Reads exactly so many bytes more.
async fn more(
    socket: &mut (impl AsyncRead + Unpin),
    head: &mut Vec<u8>,
    count: usize,
) -> io::Result<()> {
    let from = head.len();
    head.resize(from + count, 0);
    socket.read_exact(&mut head[from..]).await.map(drop)
}

impl<T: AsyncRead + AsyncWrite + Unpin> Opened<T> {
    /// Says why there is no place, in the peer's own language.
    pub(super) async fn turn_away(mut self, version: Version, full: Full) {
        let why = match full {
            Full::Connections(most) => {
                format!("{most} connections are open, and no more are let in")
            }
            Full::Source(most) => {
                format!("{most} connections are open from here, and no more are let in")
            }
        };
        let words = match version {
            Version::Http1 => refusal(503, &format!("{why}\n")).into_bytes(),
            Version::Http2 => farewell(&why),
        };
        say(&mut self.socket, &words).await;
    }
}

/// An answer of HTTP/1, which a client of HTTP/2 shows as it came.
fn refusal(code: u16, text: &str) -> String {
    let status = match code {
        400 => "Bad Request",
        _ => "Service Unavailable",
    };
    let length = text.len();
    format!(
        "HTTP/1.1 {code} {status}\r\ncontent-type: text/plain\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{text}"
    )
}

/// Empty settings, then GOAWAY: no stream was looked at, ENHANCE_YOUR_CALM, and why.
fn farewell(why: &str) -> Vec<u8> {
    const GOAWAY: u8 = 7;
    const ENHANCE_YOUR_CALM: u8 = 0xb;
    let mut words = vec![0, 0, 0, SETTINGS, 0, 0, 0, 0, 0];
    // The text is short: its length fits the lowest byte.
    let length = u8::try_from(8 + why.len()).unwrap_or(u8::MAX);
    let why = &why.as_bytes()[..usize::from(length) - 8];
    words.extend_from_slice(&[0, 0, length, GOAWAY, 0, 0, 0, 0, 0]);
    words.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, ENHANCE_YOUR_CALM]);
    words.extend_from_slice(why);
    words
}

/// Writes, and reads what is still under way: closed with bytes unread, the connection would be
/// reset, and what was said lost with it. Best effort, and not for long.
async fn say(socket: &mut (impl AsyncRead + AsyncWrite + Unpin), words: &[u8]) {
    let said = async {
        socket.write_all(words).await?;
        socket.shutdown().await?;
        tokio::io::copy(&mut socket.take(MOST_UNREAD), &mut tokio::io::sink()).await
    };
    let _ = tokio::time::timeout(FIRST_BYTES, said).await;
}

impl<T: AsyncRead + Unpin> AsyncRead for Opened<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.head).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Opened<T> {
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

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a peer that says this, and then nothing, is told.
    async fn told(says: &[u8]) -> (Result<Vec<u8>, Option<&'static str>>, Vec<u8>) {
        let (mut peer, ours) = tokio::io::duplex(4_096);
        let talking = async move {
            peer.write_all(says).await.unwrap();
            let mut heard = Vec::new();
            // Until it is answered, or let go; then it leaves.
            let _ = peer.read_to_end(&mut heard).await;
            heard
        };
        let opening = async {
            let opened = open(ours, Version::Http2, Duration::from_millis(20)).await;
            opened.map_err(|e| e.reason()).map(|o| o.head.into_inner())
        };
        tokio::join!(opening, talking)
    }

    #[tokio::test]
    async fn http2_begins_with_a_preface_and_settings() {
        let whole = [&PREFACE[..], &[0, 0, 6, SETTINGS, 0, 0, 0, 0, 0], &[0; 6]].concat();
        assert_eq!(told(&whole).await.0, Ok(whole.clone()));
        for length in [0, 3, 24, 30, whole.len() - 1] {
            assert_eq!(told(&whole[..length]).await.0, Err(Some("preface")));
        }
        let data = [&PREFACE[..], &[0; 9]].concat();
        for other in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"PRX", &data] {
            let (opened, heard) = told(other).await;
            assert_eq!(opened, Err(Some("not_http2")));
            assert!(heard.starts_with(b"HTTP/1.1 400 "), "{heard:?}");
        }
    }

    #[test]
    fn a_farewell_is_two_frames() {
        let words = farewell("no room");
        assert_eq!(words[..9], [0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]);
        assert_eq!(words[9..13], [0, 0, 15, 7]);
        assert!(words.ends_with(b"\0\0\0\x0bno room"));
    }
}
