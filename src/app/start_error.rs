//! Why the service cannot start: what keeps the whole process from serving.

use std::fmt;
use std::io;

use crate::{net, store, telemetry};

/// Why the service cannot start.
#[derive(Debug)]
pub enum StartError {
    /// The control plane's or the HTTP side's address cannot be had.
    Bind(&'static str, net::BindError),
    /// The control plane's socket cannot be had.
    Socket(net::UnixError),
    /// Logs, traces or metrics cannot be set up.
    Telemetry(telemetry::Error),
    /// What was kept cannot be had.
    Store(store::OpenError),
    /// Something of the operating system's.
    Io(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind(whose, error) => write!(
                f,
                "{whose}: {error}; is another switchboard running? {whose}.address says where this one listens"
            ),
            Self::Socket(error) => write!(f, "grpc.socket: {error}"),
            Self::Telemetry(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}
