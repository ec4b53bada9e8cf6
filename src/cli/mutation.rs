//! The flags that every change takes.

use clap::Args;

/// How a change is told apart from its own repetition.
#[derive(Debug, Args)]
pub(super) struct Once {
    /// A UUID4 of this change: when its answer was lost, the same change with the same id is not made twice
    #[arg(
        long,
        value_name = "UUID",
        default_value = "",
        hide_default_value = true
    )]
    pub(super) request_id: String,
}

/// The same, of a change that has a reason.
#[derive(Debug, Args)]
pub(super) struct Why {
    /// Why, for the audit trail
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(super) reason: String,
    #[command(flatten)]
    pub(super) once: Once,
}
