//! Finished spans that wait for export: so many and no more, and nobody ever waits for room.

use super::super::metrics::Passage;
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
    passage: Arc<Passage>,
}

impl Queue {
    /// At most `most` spans wait; whoever takes them is woken when `batch` do.
    pub(in super::super) fn new(most: usize, batch: usize, passage: Arc<Passage>) -> Self {
        let capacity = u64::try_from(most).unwrap_or(u64::MAX);
        passage.queue.capacity.store(capacity, Ordering::Relaxed);
        Self(Arc::new(Waiting {
            spans: Mutex::default(),
            most,
            batch,
            is_batch: Notify::new(),
            passage,
        }))
    }

    /// The oldest that wait: a batch of them, or fewer.
    pub(in super::super) fn take(&self) -> Vec<SpanData> {
        let mut spans = self.spans();
        let count = spans.len().min(self.0.batch);
        let batch = spans.drain(..count).collect();
        self.tell_size(&spans);
        batch
    }

    fn tell_size(&self, spans: &VecDeque<SpanData>) {
        let size = &self.0.passage.queue.size;
        size.store(spans.len() as u64, Ordering::Relaxed);
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
            let refused = &self.0.passage.queue.refused;
            for count in [&self.0.passage.spans, refused] {
                count.fetch_add(1, Ordering::Relaxed);
            }
            return;
        }
        spans.push_back(span);
        self.tell_size(&spans);
        let entered = &self.0.passage.queue.entered;
        entered.fetch_add(1, Ordering::Relaxed);
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
