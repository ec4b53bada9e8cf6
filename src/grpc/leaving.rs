//! When the process is to be gone: asked for by signals and by calls, and obeyed by whoever runs the process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// A moment by which every session has left or is cut; none as long as nobody asks. It comes nearer and never recedes.
#[derive(Debug, Clone)]
pub struct Leaving(Arc<watch::Sender<Option<Instant>>>);

impl Default for Leaving {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl Leaving {
    /// Asks to be gone so long from now, or sooner if that was asked before. When it will be.
    pub fn within(&self, grace: Duration) -> Instant {
        let mut deadline = Instant::now() + grace;
        self.0.send_if_modified(|held| {
            let sooner = held.is_none_or(|held| deadline < held);
            if sooner {
                *held = Some(deadline);
            } else {
                deadline = held.unwrap_or(deadline);
            }
            sooner
        });
        deadline
    }

    /// Resolves once somebody has asked, with the moment.
    pub async fn asked(&self) -> Instant {
        let mut held = self.0.subscribe();
        match held.wait_for(Option::is_some).await.map(|held| *held) {
            Ok(Some(deadline)) => deadline,
            // The sender is this one.
            _ => std::future::pending().await,
        }
    }

    /// Resolves when it is time, however often that comes nearer.
    pub async fn over(&self) {
        let mut held = self.0.subscribe();
        loop {
            let deadline = *held.borrow_and_update();
            let time = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = time => return,
                _ = held.changed() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_later_wish_only_brings_it_nearer() {
        let leaving = Leaving::default();
        let first = leaving.within(Duration::from_secs(60));
        assert_eq!(leaving.asked().await, first);
        assert_eq!(leaving.within(Duration::from_secs(90)), first);
        let nearer = leaving.within(Duration::from_secs(1));
        assert!(nearer < first);
        assert_eq!(leaving.within(Duration::from_secs(2)), nearer);
    }
}
