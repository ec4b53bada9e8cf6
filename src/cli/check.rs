//! `switchboard check`: every problem of the configuration, without running anything.

use std::io::{self, Write};
use std::process::ExitCode;

use super::CheckArgs;
use super::exit::{BAD_CONFIGURATION, OK, complain};
use crate::settings::Settings;

/// Prints every problem; exits 0 or 78.
pub(super) fn run(args: &CheckArgs) -> ExitCode {
    match Settings::load(&args.config, &args.set) {
        Ok((settings, _)) => {
            let count = settings.listeners.len();
            let noun = if count == 1 { "listener" } else { "listeners" };
            // Whoever does not read it knows by the exit code.
            let _ = writeln!(io::stdout(), "the configuration is valid: {count} {noun}");
            OK.into()
        }
        Err(problems) => {
            complain(&problems.to_string());
            BAD_CONFIGURATION.into()
        }
    }
}
