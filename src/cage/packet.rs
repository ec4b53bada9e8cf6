//! Packets on the sockets of the cage, with descriptors beside them; and those that are not sent for every command, as
//! JSON.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Failure, Offer};

/// The longest packet: a command of the longest text that the kernel runs, or a profile.
pub(super) const LONGEST: usize = 160 << 10;

/// Descriptors with one packet.
const DESCRIPTORS: usize = 2;

/// What the service asks a launcher for: a further worker.
#[derive(Debug, Serialize, Deserialize)]
pub struct Hire;

/// What a launcher answers, to its profile and to each asking.
#[derive(Debug, Serialize, Deserialize)]
pub enum Told {
    /// A worker, whose socket comes with it and then its process; and what all of them hold commands in.
    Ready(Offer),
    /// There is none.
    Failed(Failure),
}

/// What a launcher hears of a worker that is being made.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Born {
    /// Its number.
    Pid(i32),
    /// It takes commands; what it could not have.
    Ready(Vec<String>),
    /// It could not be what it was to be.
    Failed(Failure),
}

/// Sends one packet, whole or not at all.
pub fn send_bytes(socket: impl AsFd, packet: &[u8], with: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !with.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(with)) {
        return Err(Errno::INVAL);
    }
    let packet = [IoSlice::new(packet)];
    loop {
        match sendmsg(&socket, &packet, &mut beside, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            sent => return sent.map(drop),
        }
    }
}

/// Receives one packet into `room` with the descriptors beside it, and returns its length: 0 when the other end is
/// gone. One that is longer than `room`, or has too many descriptors, is an error: nothing is made of half a packet.
pub fn receive_bytes(
    socket: impl AsFd,
    room: &mut [u8],
    with: &mut Vec<OwnedFd>,
) -> Result<usize, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let mut room = [IoSliceMut::new(room)];
    let received = loop {
        match recvmsg(&socket, &mut room, &mut beside, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            received => break received?,
        }
    };
    for message in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            with.extend(descriptors);
        }
    }
    if received
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
    {
        with.clear();
        return Err(Errno::MSGSIZE);
    }
    Ok(received.bytes)
}

/// Sends one value.
pub fn send(socket: impl AsFd, value: &impl Serialize, with: &[BorrowedFd<'_>]) -> io::Result<()> {
    Ok(send_bytes(socket, &serde_json::to_vec(value)?, with)?)
}

/// Receives one value and the descriptors beside it; none when the other end is gone.
pub fn receive<T: DeserializeOwned>(socket: impl AsFd) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let (mut room, mut with) = (vec![0; LONGEST], Vec::new());
    let length = receive_bytes(socket, &mut room, &mut with)?;
    if length == 0 {
        return Ok(None);
    }
    let value = serde_json::from_slice(&room[..length])?;
    Ok(Some((value, with)))
}
