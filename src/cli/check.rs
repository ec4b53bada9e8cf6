//! `switchboard check`: every problem of the configuration, without running anything.

use std::io::{self, Write};
use std::process::ExitCode;

use serde_json::{Value, json};

use super::exit::{BAD_CONFIGURATION, OK, complain};
use super::{CheckArgs, CheckFormat};
use crate::config::{Problems, Sources};
use crate::grpc::Warning;
use crate::net;
use crate::settings::{self, Configured, Settings};

/// Prints every problem and every warning; exits 0 or 78.
pub(super) fn run(args: &CheckArgs) -> ExitCode {
    let sources = settings::sources(&args.layers.config, &args.layers.set);
    let checked = sources.and_then(|sources: Sources| Settings::load(&sources));
    let warnings = checked.as_ref().map_or_else(|_| Vec::new(), warnings);
    if args.output == CheckFormat::Json {
        // Whoever does not read it knows by the exit code.
        let _ = writeln!(io::stdout(), "{:#}", as_json(&checked, &warnings));
    } else {
        tell(&checked, &warnings);
    }
    match checked {
        Ok(_) => OK.into(),
        Err(_) => BAD_CONFIGURATION.into(),
    }
}

/// What this host does not carry is known where the service will run: here, as far as this process may tell.
fn warnings(configured: &Configured) -> Vec<Warning> {
    let most_sessions = net::most_sessions(net::raise_descriptor_limit());
    let doubts = configured.doubts(most_sessions);
    configured.warnings.iter().cloned().chain(doubts).collect()
}

fn tell(checked: &Result<Configured, Problems>, warnings: &[Warning]) {
    match checked {
        Ok(configured) => {
            for Warning { key, message, .. } in warnings {
                complain(&format!("warning: {key}: {message}"));
            }
            let count = configured.settings.listeners.len();
            let noun = if count == 1 { "listener" } else { "listeners" };
            let _ = writeln!(io::stdout(), "the configuration is valid: {count} {noun}");
        }
        Err(problems) => complain_of(problems),
    }
}

/// Each problem with the line that it stands in.
pub(super) fn complain_of(problems: &Problems) {
    for problem in problems {
        complain(&problem.explain());
    }
}

fn as_json(checked: &Result<Configured, Problems>, warnings: &[Warning]) -> Value {
    let problems: Vec<_> = match checked {
        Ok(_) => Vec::new(),
        Err(problems) => problems
            .iter()
            .map(crate::config::Problem::to_json)
            .collect(),
    };
    let warning = |warning: &Warning| json!({ "key": warning.key, "reason": warning.reason, "message": warning.message });
    let warnings: Vec<_> = warnings.iter().map(warning).collect();
    json!({ "valid": checked.is_ok(), "problems": problems, "warnings": warnings })
}
