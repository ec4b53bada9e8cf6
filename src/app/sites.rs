//! The process's own doors: where the control plane and the HTTP side listen, and how many each lets
//! in.

use std::io;

use super::StartError;
use super::measure::DoorMeasures;
use crate::net::{self, Address, Bound, Transport, UnixSocket, web};
use crate::settings::Settings;

/// Descriptors that each way to the control plane, or to the HTTP side, has for itself.
const RESERVE: (usize, usize) = (8, 2);

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1_024;

/// Binds those of the control plane, and those of the HTTP side.
pub(super) fn sites(
    settings: &Settings,
    descriptors: u64,
    counted: &DoorMeasures,
) -> Result<(web::Site, web::Site), StartError> {
    let (control, pages) = net::most_connections(descriptors);
    let socket = &settings.grpc.socket;
    let unix = || (!socket.as_os_str().is_empty()).then(|| UnixSocket::bind(socket));
    let unix = UnixSocket::passed("grpc", socket).or_else(unix);
    let grpc = web::Site {
        tcp: door("grpc", settings.grpc.address)?,
        unix: unix.transpose().map_err(StartError::Socket)?,
        most_connections: control,
        reserve: RESERVE.0,
        counters: counted.grpc.clone(),
    };
    let http = web::Site {
        tcp: door("http", settings.http.address)?,
        unix: None,
        most_connections: pages,
        reserve: RESERVE.1,
        counters: counted.http.clone(),
    };
    Ok((grpc, http))
}

fn door(whose: &'static str, address: Address) -> Result<tokio::net::TcpListener, StartError> {
    let passed = net::passed(whose, address, Transport::Tcp, BACKLOG);
    let bound = passed.unwrap_or_else(|| net::bind_stream(address, BACKLOG));
    match bound.map_err(|e| StartError::Bind(whose, e))? {
        Bound::Stream(listener) => Ok(tokio::net::TcpListener::from_std(listener)?),
        Bound::Reserved(_) | Bound::Datagram(_) => {
            Err(io::Error::other("a stream was asked for").into())
        }
    }
}
