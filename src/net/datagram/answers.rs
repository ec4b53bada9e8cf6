//! The answers to one batch, one behind the other, and how they leave: a run of one length to one peer as one message.

use std::io;
use std::net::SocketAddr;

use super::{Datagram, MAX_DATAGRAM};
use crate::net::counters::{Counters, Totals};
use crate::net::kernel::{self, BATCH, Departure, Local};
use crate::net::udp::DatagramSocket;

/// Answers that have not left yet.
#[derive(Debug, Default)]
pub struct Answers {
    bytes: Vec<u8>,
    runs: Vec<Run>,
    /// How many runs have left.
    gone: usize,
}

/// Answers that follow one another to one peer, of one length but for the last, which may be shorter.
#[derive(Debug, Clone, Copy)]
struct Run {
    peer: SocketAddr,
    local: Option<Local>,
    start: usize,
    end: usize,
    segment: usize,
}

impl Run {
    /// How many answers it is.
    fn count(&self) -> usize {
        (self.end - self.start).div_ceil(self.segment.max(1)).max(1)
    }

    /// Whether an answer of `length` bytes to the same peer may follow. The kernel cuts a message into full segments
    /// and a rest, and an empty one into nothing.
    fn takes(&self, length: usize) -> bool {
        let whole = self.end - self.start;
        (1..=self.segment).contains(&length)
            && whole.is_multiple_of(self.segment)
            && whole + length <= MAX_DATAGRAM
            && whole / self.segment < BATCH
    }

    fn departure<'a>(&self, bytes: &'a [u8]) -> Departure<'a> {
        let segment = u16::try_from(self.segment).ok();
        Departure {
            peer: self.peer,
            local: self.local,
            data: &bytes[self.start..self.end],
            segment: segment.filter(|_| self.count() > 1),
        }
    }
}

impl Answers {
    /// Answers `datagram` with what `write` appends; it says whether that is to be sent.
    pub fn push(&mut self, datagram: &Datagram<'_>, write: impl FnOnce(&mut Vec<u8>) -> bool) {
        let start = self.bytes.len();
        if !write(&mut self.bytes) {
            self.bytes.truncate(start);
            return;
        }
        let (end, peer, local) = (self.bytes.len(), datagram.peer, datagram.local);
        match self.runs.last_mut() {
            Some(run) if run.takes(end - start) && (run.peer, run.local) == (peer, local) => {
                run.end = end;
            }
            _ => self.runs.push(Run {
                peer,
                local,
                start,
                end,
                segment: end - start,
            }),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Hands over what the kernel takes; `WouldBlock` while it takes no more. What cannot be sent is counted.
    pub(super) fn send(&mut self, socket: &DatagramSocket, counters: &Counters) -> io::Result<()> {
        let mut sent = Totals::default();
        let handed = loop {
            let rest = &self.runs[self.gone..];
            let Some(first) = rest.first() else {
                self.clear();
                break Ok(());
            };
            let departures = rest.iter().map(|run| run.departure(&self.bytes));
            match kernel::send(socket, departures) {
                Ok(taken) => {
                    for run in &rest[..taken] {
                        sent.sent_messages += run.count() as u64;
                        sent.sent_bytes += (run.end - run.start) as u64;
                    }
                    self.gone += taken;
                }
                Err(full) if full.kind() == io::ErrorKind::WouldBlock => break Err(full),
                // Segments are too long for the way there, or it knows none.
                Err(_) if first.count() > 1 => self.divide(),
                Err(error) => {
                    counters.refuse(failure(&error));
                    self.gone += 1;
                }
            }
        };
        counters.ended.absorb(sent);
        handed
    }

    /// Makes single answers of the next run, which has several.
    fn divide(&mut self) {
        let run = self.runs[self.gone];
        let starts = (run.start..run.end).step_by(run.segment);
        let single = starts.map(|start| Run {
            start,
            end: run.end.min(start + run.segment),
            ..run
        });
        self.runs.splice(self.gone..=self.gone, single);
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.runs.clear();
        self.gone = 0;
    }
}

fn failure(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EMSGSIZE) => "answer_too_large",
        _ => "send_failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pushed(answers: &[(u8, Vec<u8>)]) -> Answers {
        let mut gathered = Answers::default();
        for (peer, text) in answers {
            let datagram = Datagram {
                peer: ([127, 0, 0, *peer], 9).into(),
                data: b"",
                local: None,
            };
            gathered.push(&datagram, |out| {
                out.extend_from_slice(text);
                true
            });
        }
        gathered
    }

    /// What the kernel makes of the runs.
    fn cut(answers: &Answers) -> Vec<(u8, Vec<u8>)> {
        let mut cut = Vec::new();
        for run in &answers.runs {
            let departure = run.departure(&answers.bytes);
            let SocketAddr::V4(peer) = departure.peer else {
                panic!("all are of IPv4");
            };
            let peer = peer.ip().octets()[3];
            match departure.segment {
                None => cut.push((peer, departure.data.to_vec())),
                Some(length) => {
                    let segments = departure.data.chunks(length.into());
                    assert!(segments.len() <= BATCH && departure.data.len() <= MAX_DATAGRAM);
                    cut.extend(segments.map(|segment| (peer, segment.to_vec())));
                }
            }
        }
        cut
    }

    #[test]
    fn a_run_is_of_one_peer_and_one_length() {
        let said = |peer, length| (peer, vec![b'x'; length]);
        for (answers, runs) in [
            (vec![said(1, 4), said(1, 4), said(1, 4)], 1),
            (vec![said(1, 4), said(2, 4), said(1, 4)], 3),
            (vec![said(1, 4), said(1, 2), said(1, 4)], 2),
            (vec![said(1, 2), said(1, 4)], 2),
            (vec![said(1, 0), said(1, 0), said(1, 4), said(1, 0)], 4),
            (vec![said(1, 40_000), said(1, 40_000)], 2),
            (vec![said(1, 1); 3 * BATCH], 3),
        ] {
            let gathered = pushed(&answers);
            assert_eq!(gathered.runs.len(), runs);
            assert_eq!(cut(&gathered), answers);
        }
    }

    proptest! {
        #[test]
        fn every_answer_is_in_its_place_and_whole(
            answers in prop::collection::vec((0_u8..3, prop::collection::vec(any::<u8>(), 0..4)), 0..150),
        ) {
            let mut gathered = pushed(&answers);
            prop_assert_eq!(&cut(&gathered), &answers);
            let count: usize = gathered.runs.iter().map(Run::count).sum();
            prop_assert_eq!(count, answers.len());
            while gathered.gone < gathered.runs.len() {
                if gathered.runs[gathered.gone].count() > 1 {
                    gathered.divide();
                }
                gathered.gone += 1;
            }
            prop_assert_eq!(&cut(&gathered), &answers);
            prop_assert_eq!(gathered.runs.len(), answers.len());
        }
    }
}
