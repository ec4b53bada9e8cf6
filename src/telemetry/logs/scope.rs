//! The trace that work is done in, so that no line of a control call has to be told its trace id.

use super::super::Trace;

tokio::task_local! {
    static TRACE: Trace;
}

/// `work`, whose log lines bear the id of `trace`.
pub fn traced<F: Future>(trace: Trace, work: F) -> impl Future<Output = F::Output> {
    TRACE.scope(trace, work)
}

/// The trace that is worked in, for whoever hands work to another task; [`Trace::default`] where there is none.
pub fn current_trace() -> Trace {
    TRACE.try_with(|trace| *trace).unwrap_or_default()
}
