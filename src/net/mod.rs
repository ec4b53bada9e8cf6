//! Sockets: how they are bound, accepted from, read, limited, swept and drained.
//!
//! This floor knows no protocol by name. A protocol hands it a [`Handler`]; it hands the protocol a
//! [`Stream`] for each TCP session or a [`Batch`] of datagrams, and keeps every promise that all
//! listeners make alike: limits, idle time, outboxes, close reasons, counters.
//!
//! ```text
//!  accept ──▶ Door::admit ──▶ Session ──▶ Stream ──▶ StreamHandler::serve ──▶ CloseReason
//!  recvmmsg ─▶ Batch ───────────────────────────▶ DatagramHandler::batch
//!               Door ── sessions, counters, terms; swept on one timer for all of them
//! ```

mod accept;
mod admission;
mod bind;
mod buffer;
mod close;
mod counters;
mod datagram;
mod door;
mod drain;
mod entrance;
mod feed;
mod framing;
mod gate;
mod handler;
mod id;
mod kernel;
mod limits;
mod loops;
mod networks;
mod pace;
mod passed;
mod rate;
mod session;
mod sessions;
mod stream;
mod sweep;
mod tap;
mod telling;
mod telnet;
mod terms;
mod udp;
mod unix;
pub mod web;

pub use accept::{Incoming, Reserve};
pub use bind::{Address, BindError, Bound, bind_datagram, bind_reserved, bind_stream};
pub use buffer::Buffer;
pub use close::{Ask, CloseReason};
pub use counters::{Counters, Totals};
pub use datagram::{Batch, Datagram, MAX_DATAGRAM};
pub use door::{Door, DoorParts, canonical};
pub use drain::{Drained, Running};
pub use feed::{Feed, Follower, Numbered};
pub use framing::{Cut, Framing, Violation};
pub use gate::{Gate, PauseMode, Why};
pub use handler::{DatagramHandler, Handler, Serving, StreamHandler, UNAVAILABLE};
pub use id::SessionId;
pub use kernel::{AcceptQueue, TcpInfo, descriptors, raise_descriptor_limit, watch, watch_for};
pub use limits::{Bounds, Limits, Transport, most_connections, most_sessions, parse_network};
pub use networks::{Bans, Networks};
pub use pace::Pace;
pub use passed::{passed, take_over_passed, unused as unused_passed};
pub use rate::{Rate, RateKey, RateTable, TokenBucket};
pub use session::{Parcel, Route, Session};
pub use sessions::{Closed, Closures, Opened, SessionEvent, Sessions};
pub use stream::{Event, Part, Stream, Wire};
pub use tap::{Direction, Frame, Tap, TapBounds, Taps, TooManyTaps};
pub use telnet::strip_telnet;
pub use terms::Terms;
pub use udp::PeerSocket;
pub use unix::{UnixError, UnixSocket};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, and goes on after a panic elsewhere: what these locks guard is never left half-changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
pub(crate) mod tests;
