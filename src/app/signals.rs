//! The signals that end the process, and the one that has it read its files again.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::notify::Notify;
use crate::configuration::Owner;
use crate::grpc::{Configuration, ReloadOptions};

/// SIGTERM, SIGINT and SIGHUP, watched from the moment that this is made.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Option<Signal>,
}

impl Signals {
    /// Must be called within the runtime.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: Some(signal(SignalKind::hangup())?),
        })
    }

    /// The name of the next one that ends the process.
    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// Reloads at each SIGHUP until `stop`; how it went is in the log.
    pub(super) fn reload_at_each(
        &mut self,
        owner: Owner,
        notify: Notify,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + 'static {
        let hangup = self.hangup.take();
        async move {
            let Some(mut hangup) = hangup else {
                return;
            };
            while let Some(Some(())) = stop.run_until_cancelled(hangup.recv()).await {
                let _ = notify
                    .reloading(owner.reload(ReloadOptions::default()))
                    .await;
            }
        }
    }
}
