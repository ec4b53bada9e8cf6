//! stand-in until the client is there
use super::exit::Failure;
#[derive(Debug, clap::Args)]
pub(super) struct ConnectArgs {}
pub(super) fn run(_: ConnectArgs) -> Result<(), Failure> {
    Err(Failure::error("not there"))
}
