//! The trace that work is done in, so that no line of a control call has to be told its trace id.

use super::super::Trace;

tokio::task_local! {
    static TRACE: Trace;
}

/// `work`, whose log lines bear the id of `trace`.
pub fn traced<F: Future>(trace: Trace, work: F) -> impl Future<Output = F::Output> {
    TRACE.scope(trace, work)
}

/// `work` in the trace of whoever hands it to another task.
pub fn traced_here<F: Future>(work: F) -> impl Future<Output = F::Output> {
    traced(current().unwrap_or_default(), work)
}

/// The trace that is worked in, if any.
pub(super) fn current() -> Option<Trace> {
    let current = TRACE.try_with(|trace| *trace).ok();
    current.filter(|trace| *trace != Trace::default())
}
