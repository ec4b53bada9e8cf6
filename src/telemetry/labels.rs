//! A listener as telemetry knows it: what its series are called, and the distributions that were recorded under that.
//!
//! The two go together, so that what was recorded of a listener goes when the last of its names does, and one that is
//! made anew under the same name begins anew.

use super::metrics::Recorded;
use std::sync::Arc;

/// The listener that something belongs to, as metrics and spans name it. Clones share what is recorded.
#[derive(Debug, Clone)]
pub struct Labels {
    /// The listener's name.
    pub listener: Arc<str>,
    /// What is spoken there: `ack`, `shell`, `uppercase`, `chat`.
    pub protocol: &'static str,
    /// `tcp` or `udp`.
    pub transport: &'static str,
    /// `ipv4` or `ipv6`: of the address that it is bound to.
    pub network: &'static str,
    pub(super) recorded: Arc<Recorded>,
}

impl Labels {
    /// Of a new listener: nothing is recorded of it yet.
    pub fn new(
        listener: Arc<str>,
        protocol: &'static str,
        transport: &'static str,
        network: &'static str,
    ) -> Self {
        Self {
            listener,
            protocol,
            transport,
            network,
            recorded: Arc::default(),
        }
    }
}
