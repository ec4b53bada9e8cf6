//! The configuration as `serve` with the same arguments would find it, without any service.

use super::super::ServeArgs;
use super::super::check::complain_of;
use super::super::exit::{BAD_CONFIGURATION, Failure};
use crate::configuration::{revision, rows};
use crate::grpc::{self, api};
use crate::settings::{self, Settings};

/// Every value that files, environment and flags make, at or below a key. What was changed at run time is in the store,
/// which the running service holds.
pub(super) fn settings(
    args: &ServeArgs,
    prefix: &str,
) -> Result<api::GetEffectiveConfigResponse, Failure> {
    let sources = settings::sources(&args.config, &args.set);
    let configured = sources.and_then(|sources| Settings::load(&sources));
    let configured = configured.map_err(|problems| {
        complain_of(&problems);
        Failure::Told(BAD_CONFIGURATION)
    })?;
    let places = |key: &str| configured.origins.at(key).cloned();
    let rows = rows(&configured.settings, places, None).into_iter();
    let within = rows.filter(|row| grpc::is_asked(row, prefix));
    Ok(api::GetEffectiveConfigResponse {
        settings: within.map(grpc::setting).collect(),
        revision: revision(&configured.settings),
    })
}
