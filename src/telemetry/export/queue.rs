//! Finished spans that wait for export: so many and no more, and nobody ever waits for room.

use super::super::metrics::Losses;
use opentelemetry::Context;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

#[derive(Debug, Clone)]
pub(in super::super) struct Queue(Arc<Waiting>);

#[derive(Debug)]
struct Waiting {
    spans: Mutex<VecDeque<SpanData>>,
    most: usize,
    batch: usize,
    is_batch: Notify,
    losses: Arc<Losses>,
}

impl Queue {
    /// At most `most` spans wait; whoever takes them is woken when `batch` do.
    pub(in super::super) fn new(most: usize, batch: usize, losses: Arc<Losses>) -> Self {
        Self(Arc::new(Waiting {
            spans: Mutex::default(),
            most,
            batch,
            is_batch: Notify::new(),
            losses,
        }))
    }

    /// The oldest that wait: a batch of them, or fewer.
    pub(in super::super) fn take(&self) -> Vec<SpanData> {
        let mut spans = self.spans();
        let count = spans.len().min(self.0.batch);
        spans.drain(..count).collect()
    }

    /// Resolves when there may be a batch.
    pub(super) async fn is_batch(&self) {
        self.0.is_batch.notified().await;
    }

    fn spans(&self) -> MutexGuard<'_, VecDeque<SpanData>> {
        self.0.spans.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        let mut spans = self.spans();
        if spans.len() >= self.0.most {
            self.0.losses.spans.fetch_add(1, Ordering::Relaxed);
            return;
        }
        spans.push_back(span);
        if spans.len() == self.0.batch {
            self.0.is_batch.notify_one();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}
