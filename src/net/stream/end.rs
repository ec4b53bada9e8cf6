//! How a session ends: noticing that its peer is gone, settling what is owed, closing without
//! losing the last answer.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use tokio::io::Interest;

use super::send::flush;
use super::{Event, Stream};
use crate::net::buffer::Buffer;
use crate::net::close::{Ask, CloseReason};
use crate::net::framing::Framing;

/// How long and how much an ended session goes on reading, so that what the peer still had under
/// way does not make the kernel reset the connection before the last answer is read.
const LINGER: (Duration, usize) = (Duration::from_secs(1), 1 << 20);

impl Stream {
    /// Ready when the session must end whatever it is doing: it was cut, or its peer reset the
    /// connection. A peer that only ended its side is not gone. What the peer sends meanwhile is
    /// kept for the next call of [`next`](Self::next), up to one message's worth; the current
    /// message is forgotten. Cancel safe.
    pub async fn gone(&mut self) -> CloseReason {
        self.skip();
        loop {
            // While there is room to read, a reset shows there; later only as an error condition.
            // With raw framing a read is a message: a second one must not be read into the first.
            let unread = self.input.unread().len();
            let most = self.terms.bounds.max_message_bytes;
            let full = unread >= most || (unread > 0 && self.framing == Framing::Raw);
            if self.ended || full {
                let mut failed = pin!(self.tcp.ready(Interest::ERROR));
                return std::future::poll_fn(|cx| match self.session.poll_asked(cx) {
                    Poll::Ready(Ask::Cut(reason)) => Poll::Ready(reason),
                    _ => failed.as_mut().poll(cx).map(|_| CloseReason::ClientReset),
                })
                .await;
            }
            let read = std::future::poll_fn(|cx| match self.session.poll_asked(cx) {
                Poll::Ready(Ask::Cut(reason)) => Poll::Ready(Err(reason)),
                _ => self.poll_read(cx).map_err(|_| CloseReason::ClientReset),
            });
            match read.await {
                Ok(0) => self.ended = true,
                Ok(_) => {}
                Err(reason) => return reason,
            }
        }
    }

    /// Waits until the peer is owed nothing and has been sent everything, for a peer that has
    /// ended its side. [`Event::Ended`] then; what came in between otherwise.
    pub async fn settle(&mut self) -> Event {
        let mut failed = pin!(self.tcp.ready(Interest::ERROR));
        std::future::poll_fn(|cx| {
            if let Poll::Ready(ask) = self.session.poll_asked(cx) {
                return Poll::Ready(Event::Asked(ask));
            }
            let flushed = flush(&self.tcp, &self.session, &mut self.unsent, cx);
            if matches!(flushed, Poll::Ready(Err(_))) || failed.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Event::Reset);
            }
            let owed = self.session.owed.load(Ordering::Acquire) > 0;
            if flushed.is_ready() && !owed {
                Poll::Ready(Event::Ended)
            } else {
                Poll::Pending
            }
        })
        .await
    }

    /// Ends the connection: what is queued goes out first unless the session was cut. Returns why
    /// it ended at last: a cut meanwhile says more than what its handler knew.
    pub(in crate::net) async fn close(&mut self, reason: CloseReason) -> CloseReason {
        if reason == CloseReason::ClientReset {
            return reason;
        }
        if let Err(cut) = self.flush().await {
            if self.session.abort.load(Ordering::Acquire) {
                // An error leaves an ordinary close, which is all that is left to do.
                let _ = self.tcp.set_zero_linger();
            }
            return cut;
        }
        // It fails when the peer is gone, and then there is nothing to end.
        let _ = rustix::net::shutdown(&self.tcp, rustix::net::Shutdown::Write);
        self.skip();
        let said_last_word = matches!(
            reason,
            CloseReason::Completed
                | CloseReason::MessageTooLarge
                | CloseReason::BadFrame
                | CloseReason::RateLimited
        );
        if !self.ended && (said_last_word || !self.input.unread().is_empty()) {
            let _ = tokio::time::timeout(LINGER.0, self.discard(LINGER.1)).await;
        }
        reason
    }

    async fn discard(&mut self, most: usize) {
        let mut seen = 0;
        while seen < most {
            self.skip();
            self.input = Buffer::default();
            match std::future::poll_fn(|cx| self.poll_read(cx)).await {
                Ok(count) if count > 0 => seen += count,
                _ => return,
            }
        }
    }
}
