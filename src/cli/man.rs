//! `switchboard man`: the manual, from the same words as `--help`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_mangen::Man;

use super::exit::Failure;
use super::output::print;

/// Where the manual goes.
#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// A folder that gets a page for each command; without it the first page is printed
    dir: Option<PathBuf>,
}

/// Prints the first page, or writes all of them.
pub(super) fn write(args: &ManArgs, command: Command) -> Result<(), Failure> {
    // `help` says nothing that has no page.
    let command = command.disable_help_subcommand(true);
    let Some(dir) = &args.dir else {
        let mut page = Vec::new();
        Man::new(command)
            .render(&mut page)
            .map_err(Failure::error)?;
        return print(&String::from_utf8_lossy(&page));
    };
    pages(command, dir)
        .map_err(|error| Failure::error(format_args!("cannot write to {}: {error}", dir.display())))
}

fn pages(command: Command, dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    clap_mangen::generate_to(command, dir)
}
