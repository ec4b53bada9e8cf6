//! What the service and a worker say to each other: one packet each, with no length and no end to get wrong.
//!
//! ```text
//! service ─▶ worker   Run    1 · sequence · short in ms · program NUL argument NUL …   with stdout and stderr beside it
//!                     End    2 · sequence · grace in ms
//! worker ─▶ service   Exited 1 · sequence · status · user µs · system µs · peak KiB · others left
//!                     Gone   2 · sequence
//!                     Failed 3 · sequence · errno · step
//!                     Lasts  4 · sequence
//! ```
//!
//! Every run is answered by one `Exited` without others left, by one `Failed`, or by `Gone` (and before it an `Exited`,
//! unless the command was ended). One that takes longer than is short `Lasts` meanwhile. Numbers are little-endian. What is not of this form is refused, never guessed at.

use std::ffi::CStr;
use std::time::Duration;

/// What a worker is told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Order<'a> {
    /// Run this, and tell when it takes longer than is short: the program, and then its arguments from the nought on,
    /// each with its NUL.
    Run {
        sequence: u32,
        short: Duration,
        words: Words<'a>,
    },
    /// End the run of this number: ask it, and after so long kill it.
    End { sequence: u32, grace: Duration },
}

/// A program and its arguments: texts with a NUL behind each, at least two of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Words<'a>(&'a [u8]);

impl<'a> Words<'a> {
    /// Each of them, the program first.
    pub(super) fn iter(self) -> impl Iterator<Item = &'a CStr> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let word = CStr::from_bytes_until_nul(rest).ok()?;
            rest = &rest[word.count_bytes() + 1..];
            Some(word)
        })
    }
}

/// What a worker tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// The run that it is about.
    pub sequence: u32,
    /// What happened.
    pub what: What,
}

/// What happened to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Its command has exited.
    Exited(Exit),
    /// All that it started has ended.
    Gone,
    /// It did not start.
    Failed {
        /// The system's error number.
        errno: i32,
        /// At which step.
        step: Step,
    },
    /// It goes on for longer than most.
    Lasts,
}

impl What {
    /// Whether nothing follows it.
    pub fn is_last(&self) -> bool {
        match self {
            Self::Exited(exit) => !exit.left,
            Self::Gone | Self::Failed { .. } => true,
            Self::Lasts => false,
        }
    }
}

/// How a command ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exit {
    /// As `wait` gives it.
    pub status: i32,
    /// CPU time in user mode, with that of the children it waited for.
    pub user: Duration,
    /// CPU time in the kernel, likewise.
    pub system: Duration,
    /// The largest resident set of a process of it, in KiB.
    pub peak_kib: u64,
    /// Whether processes that it started still run: the run is over with `Gone` then.
    pub left: bool,
}

/// The steps from an order to a running command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A process for it.
    Process,
    /// Its outputs.
    Outputs,
    /// Its limits.
    Limits,
    /// Its user.
    User,
    /// Where it starts.
    Directory,
    /// The program.
    Program,
}

impl Step {
    const ALL: [Self; 6] = [
        Self::Process,
        Self::Outputs,
        Self::Limits,
        Self::User,
        Self::Directory,
        Self::Program,
    ];

    pub(super) fn of(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

/// The longest report.
pub const REPORT: usize = 34;

/// A run's packet.
pub fn run(sequence: u32, short: Duration, program: &[u8], arguments: &[&[u8]]) -> Vec<u8> {
    let length: usize = arguments.iter().map(|argument| argument.len() + 1).sum();
    let mut packet = Vec::with_capacity(9 + program.len() + 1 + length);
    packet.push(1);
    packet.extend_from_slice(&sequence.to_le_bytes());
    packet.extend_from_slice(&millis(short).to_le_bytes());
    for word in std::iter::once(&program).chain(arguments) {
        packet.extend_from_slice(word);
        packet.push(0);
    }
    packet
}

/// An end's packet.
pub fn end(sequence: u32, grace: Duration) -> [u8; 9] {
    let mut packet = [2; 9];
    packet[1..5].copy_from_slice(&sequence.to_le_bytes());
    packet[5..].copy_from_slice(&millis(grace).to_le_bytes());
    packet
}

fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

/// What an order says; none when it is not one.
pub(super) fn order(packet: &[u8]) -> Option<Order<'_>> {
    let (&kind, rest) = packet.split_first()?;
    let (sequence, rest) = number(rest)?;
    match kind {
        1 => {
            let (short, rest) = number(rest)?;
            let words = rest.iter().filter(|byte| **byte == 0).count();
            let whole = words >= 2 && rest.last() == Some(&0) && rest[0] != 0;
            whole.then_some(Order::Run {
                sequence,
                short: Duration::from_millis(short.into()),
                words: Words(rest),
            })
        }
        2 => {
            let (grace, rest) = number(rest)?;
            let grace = Duration::from_millis(grace.into());
            rest.is_empty().then_some(Order::End { sequence, grace })
        }
        _ => None,
    }
}

fn number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_le_bytes(*number), rest))
}

fn long(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<8>()?;
    Some((u64::from_le_bytes(*number), rest))
}

impl Report {
    /// As a packet, of whose bytes the first so many count.
    pub(super) fn packet(&self) -> ([u8; REPORT], usize) {
        let mut packet = [0; REPORT];
        packet[1..5].copy_from_slice(&self.sequence.to_le_bytes());
        let length = match self.what {
            What::Exited(exit) => {
                packet[0] = 1;
                packet[5..9].copy_from_slice(&exit.status.to_le_bytes());
                let micros = |time: Duration| time.as_micros() as u64;
                let numbers = [micros(exit.user), micros(exit.system), exit.peak_kib];
                for (place, number) in packet[9..33].chunks_exact_mut(8).zip(numbers) {
                    place.copy_from_slice(&number.to_le_bytes());
                }
                packet[33] = exit.left.into();
                REPORT
            }
            What::Gone => {
                packet[0] = 2;
                5
            }
            What::Failed { errno, step } => {
                packet[0] = 3;
                packet[5..9].copy_from_slice(&errno.to_le_bytes());
                packet[9] = step as u8;
                10
            }
            What::Lasts => {
                packet[0] = 4;
                5
            }
        };
        (packet, length)
    }

    /// What a packet says; none when it is no report.
    pub fn read(packet: &[u8]) -> Option<Self> {
        let (&kind, rest) = packet.split_first()?;
        let (sequence, rest) = number(rest)?;
        let what = match kind {
            1 => {
                let (status, rest) = number(rest)?;
                let (user, rest) = long(rest)?;
                let (system, rest) = long(rest)?;
                let (peak_kib, rest) = long(rest)?;
                let &[left @ (0 | 1)] = rest else {
                    return None;
                };
                What::Exited(Exit {
                    status: status.cast_signed(),
                    user: Duration::from_micros(user),
                    system: Duration::from_micros(system),
                    peak_kib,
                    left: left == 1,
                })
            }
            2 if rest.is_empty() => What::Gone,
            3 => {
                let (errno, rest) = number(rest)?;
                let &[step] = rest else {
                    return None;
                };
                let step = Step::of(step)?;
                let errno = errno.cast_signed();
                What::Failed { errno, step }
            }
            4 if rest.is_empty() => What::Lasts,
            _ => return None,
        };
        Some(Self { sequence, what })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn words(packet: &[u8]) -> Option<(u32, Duration, Vec<Vec<u8>>)> {
        match order(packet)? {
            Order::Run {
                sequence,
                short,
                words,
            } => {
                let words = words.iter().map(|word| word.to_bytes().to_vec());
                Some((sequence, short, words.collect()))
            }
            Order::End { .. } => None,
        }
    }

    #[test]
    fn an_end_comes_out_as_it_went_in() {
        let grace = Duration::from_millis(1500);
        let sequence = 7;
        assert_eq!(order(&end(7, grace)), Some(Order::End { sequence, grace }));
    }

    proptest! {
        #[test]
        fn a_run_comes_out_as_it_went_in(
            sequence: u32,
            short: u32,
            program in vec(1u8.., 1..20),
            arguments in vec(vec(1u8.., 0..20), 1..5),
        ) {
            let slices: Vec<&[u8]> = arguments.iter().map(Vec::as_slice).collect();
            let short = Duration::from_millis(short.into());
            let read = words(&run(sequence, short, &program, &slices)).unwrap();
            prop_assert_eq!((read.0, read.1), (sequence, short));
            prop_assert_eq!(&read.2[0], &program);
            prop_assert_eq!(&read.2[1..], &arguments);
        }

        #[test]
        fn nothing_else_is_an_order(packet in vec(any::<u8>(), 0..64)) {
            if let Some(order) = order(&packet) {
                match order {
                    Order::Run { words, .. } => prop_assert!(words.iter().count() >= 2),
                    Order::End { .. } => prop_assert_eq!(packet.len(), 9),
                }
            }
        }

        #[test]
        fn a_report_comes_out_as_it_went_in(
            sequence: u32, status: i32, user in 0..u64::MAX / 1000, system in 0..u64::MAX / 1000, peak_kib: u64,
            left: bool, errno: i32, step in 0u8..6,
        ) {
            let exit = Exit {
                status,
                user: Duration::from_micros(user),
                system: Duration::from_micros(system),
                peak_kib,
                left,
            };
            let step = Step::of(step).unwrap();
            for what in [What::Exited(exit), What::Gone, What::Lasts, What::Failed { errno, step }] {
                let report = Report { sequence, what };
                let (packet, length) = report.packet();
                prop_assert_eq!(Report::read(&packet[..length]), Some(report));
                prop_assert_eq!(Report::read(&packet[..length - 1]), None);
            }
        }

        #[test]
        fn any_packet_can_be_read(packet in vec(any::<u8>(), 0..64)) {
            if let Some(report) = Report::read(&packet) {
                let (again, length) = report.packet();
                prop_assert_eq!(&again[..length], &packet[..]);
            }
        }
    }
}
