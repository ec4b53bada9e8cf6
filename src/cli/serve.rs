//! `switchboard serve`: runs the service.

use std::io;
use std::process::ExitCode;

use super::ServeArgs;
use super::check::complain_of;
use super::exit::{BAD_CONFIGURATION, ERROR, OK, complain};
use crate::app::{App, Start};
use crate::config::{Layers, Problems};
use crate::net::take_over_passed;
use crate::settings;

/// Runs until a signal; the exit code.
pub(super) fn run(args: &ServeArgs) -> ExitCode {
    // Before anything is opened that could be taken for one of them.
    take_over_passed();
    let start = match read(args) {
        Ok(start) => start,
        Err(problems) => {
            complain_of(&problems);
            return BAD_CONFIGURATION.into();
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return refuse(&error),
    };
    let ended = runtime.block_on(async {
        let app = App::bind(start)?;
        app.known().await;
        // Nobody has to read it: a closed stdout is no reason not to serve.
        let _ = app.announce(&mut io::stdout().lock());
        app.run().await;
        Ok::<_, crate::app::StartError>(())
    });
    // Whatever still blocks a thread, such as a command that is being started, is not waited for.
    runtime.shutdown_background();
    match ended {
        Ok(()) => OK.into(),
        Err(error) => refuse(&error),
    }
}

/// What the process is started with.
fn read(args: &ServeArgs) -> Result<Start, Problems> {
    let sources = settings::sources(&args.config, &args.set)?;
    let layers = Layers::read(&sources);
    let configured = settings::configure(&layers, &[], &[])?;
    Ok(Start {
        sources,
        layers,
        configured,
    })
}

fn refuse(error: &dyn std::error::Error) -> ExitCode {
    complain(&format!("error: {error}"));
    ERROR.into()
}
