//! The command line: noun, then verb. Arguments come in, one of the commands runs, an exit code goes out.
//!
//! stdout is data and stderr the rest, so that every command can stand in a pipe. `serve` and `check` run the service
//! itself; the other nouns are clients of its control plane, and `connect` is one of the raw ports.

mod audit;
mod call;
mod chat;
mod check;
mod client;
mod complete;
mod config;
mod connect;
mod document;
mod effect;
mod events;
mod exit;
mod grpcurl;
mod list;
mod listener;
mod man;
mod metrics;
mod mutation;
mod name;
mod origin;
mod output;
mod serve;
mod server;
mod session;
mod spec;
mod stage;
mod table;
mod top;
mod watch;

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::CompleteEnv;

use client::{Client, ControlArgs};
use exit::{Failure, OK};
use output::Format;

use crate::cage;

/// Socket listeners, run from a gRPC control plane.
#[derive(Debug, Parser)]
#[command(name = "switchboard", version, arg_required_else_help = true)]
#[command(
    after_help = "Exit codes: 0 ok · 1 error · 2 usage · 3 not found · 4 conflict or precondition · \
                        5 unavailable or timeout · 6 auth · 78 bad configuration · 130 interrupted"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service
    Serve(ServeArgs),
    /// Report every problem of the configuration, without running anything
    Check(CheckArgs),
    /// Create, start, pause, drain, stop and watch listeners
    Listener(Noun<listener::Verb>),
    /// Look at sessions, close them, and keep networks away
    Session(Noun<session::Verb>),
    /// Answer conversations at the desk
    Chat(Noun<chat::Verb>),
    /// Show, check, compare and reload the configuration
    Config(Noun<config::Verb>),
    /// Show what is measured
    Metrics(Noun<metrics::MetricsArgs>),
    /// Show the running service on a screen: listeners, sessions, desk, events, and what passes
    Top(top::TopArgs),
    /// Show what happens to listeners and sessions, as it happens
    Events(Noun<events::EventsArgs>),
    /// Show who changed what, and who ran what
    Audit(Noun<audit::AuditArgs>),
    /// Look at the process, change what it logs, end it
    Server(Noun<server::Verb>),
    /// Talk to a raw port: each line is a message, `q` leaves
    Connect(connect::ConnectArgs),
    /// Print what makes a shell complete commands, and names of listeners and sessions
    Completions(complete::CompletionsArgs),
    /// Print the manual page, or write one for each command
    Man(man::ManArgs),
}

/// Which configuration the service runs with.
#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// A configuration file (TOML, JSON or YAML); later ones win
    #[arg(long, value_name = "FILE")]
    pub(super) config: Vec<PathBuf>,
    /// One setting, such as listeners.ack.bind=127.0.0.1:9000; wins over files and the environment
    #[arg(long, value_name = "KEY=VALUE")]
    pub(super) set: Vec<String>,
}

/// Which configuration is checked, and how that is told.
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    pub(super) layers: ServeArgs,
    /// How what is wrong is told
    #[arg(short, long, value_enum, default_value_t)]
    pub(super) output: CheckFormat,
}

/// How a check is told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum CheckFormat {
    /// For people, with the lines that are wrong.
    #[default]
    Text,
    /// One object, for scripts.
    Json,
}

/// The same command line, of a process that is to serve: it need not know how to speak to one, which is nearly all of it.
#[derive(Debug, Parser)]
#[command(name = "switchboard")]
enum Serving {
    /// Run the service
    Serve(ServeArgs),
}

/// A noun of the control plane: what to do with it, and how to get there.
#[derive(Debug, Args)]
struct Noun<V: Args> {
    #[command(flatten)]
    control: ControlArgs,
    #[command(flatten)]
    verb: V,
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    // It is no command of anybody's, and comes before all that a command needs.
    if env::args_os()
        .nth(1)
        .is_some_and(|first| first == cage::WORD)
    {
        return launcher();
    }
    // A shell that asks what could be typed here is answered, and that is all; nothing may be printed before.
    CompleteEnv::with_factory(Cli::command).complete();
    let parsed = if env::args_os().nth(1).is_some_and(|first| first == "serve") {
        Serving::try_parse().map(|Serving::Serve(args)| Command::Serve(args))
    } else {
        Cli::try_parse().map(|cli| cli.command)
    };
    let command = match parsed {
        Ok(command) => command,
        Err(told) => {
            // Help and version come this way too, with code 0. Whom it cannot be told to does not want it.
            let _ = told.print();
            return u8::try_from(told.exit_code()).unwrap_or(exit::USAGE).into();
        }
    };
    match command {
        Command::Serve(args) => serve::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Listener(noun) => control(&noun.control, listener::run, noun.verb),
        Command::Session(noun) => control(&noun.control, session::run, noun.verb),
        // Its transcripts alone have formats of their own.
        Command::Chat(noun) => {
            let done = wait(called(&noun.control, chat::run, noun.verb));
            ended(done, noun.control.output == Format::Json)
        }
        Command::Config(noun) => {
            let as_json = noun.control.output == Format::Json;
            let run = || wait(config::run(noun.verb, &noun.control));
            ended(
                noun.control.output.not_export().and_then(|()| run()),
                as_json,
            )
        }
        Command::Metrics(noun) => control(&noun.control, metrics::run, noun.verb),
        Command::Top(args) => {
            let as_json = args.control.output == Format::Json;
            ended(wait(top::run(&args)), as_json)
        }
        Command::Events(noun) => control(&noun.control, events::run, noun.verb),
        Command::Audit(noun) => control(&noun.control, audit::run, noun.verb),
        Command::Server(noun) => control(&noun.control, server::run, noun.verb),
        Command::Connect(args) => ended(connect::run(args), false),
        Command::Completions(args) => ended(complete::script(&args), false),
        Command::Man(args) => ended(man::write(&args, Cli::command()), false),
    }
}

/// What the service starts for a shell listener, and nobody else.
fn launcher() -> ExitCode {
    match cage::launcher::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("switchboard launcher: {error}; the service starts it, nobody else need");
            exit::USAGE.into()
        }
    }
}

/// Runs one verb against the control plane.
fn control<V>(
    args: &ControlArgs,
    run: impl AsyncFnOnce(V, &Client, Format) -> Result<(), Failure>,
    verb: V,
) -> ExitCode {
    let known = args.output.not_export();
    let done = known.and_then(|()| wait(called(args, run, verb)));
    ended(done, args.output == Format::Json)
}

async fn called<V>(
    args: &ControlArgs,
    run: impl AsyncFnOnce(V, &Client, Format) -> Result<(), Failure>,
    verb: V,
) -> Result<(), Failure> {
    run(verb, &Client::dial(args).await?, args.output).await
}

/// Does it on this thread.
fn wait(task: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::error)?
        .block_on(task)
}

fn ended(done: Result<(), Failure>, as_json: bool) -> ExitCode {
    done.map_or_else(|failure| failure.report(as_json), |()| OK)
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn control_flags_stand_anywhere() {
        for line in [
            "switchboard listener ls -o json --endpoint unix:/run/x",
            "switchboard listener -o json ls --timeout 5s",
            "switchboard chat reply c hello --to 3 --endpoint localhost:1",
            "switchboard metrics --filter switchboard.ack -o wide",
            "switchboard listener update ack --max-sessions 5 --unset reply --etag e --dry-run -o json",
            "switchboard listener create ack --protocol ack --bind [::1]:0 --ephemeral",
            "switchboard config show --running listeners.ack --origin --drifted -o wide",
            "switchboard config default",
            "switchboard config diff --from files --to after-restart --exit-code",
            "switchboard config reload --dry-run --keep-sessions --timeout 5s",
            "switchboard config export --format yaml --with-runtime-state",
            "switchboard config validate a.toml --format json --endpoint unix:/run/x",
            "switchboard serve --config a --config b --set grpc.allow_shell=true",
            "switchboard top --once --sort sessions --reverse --limit 5 --filter a -o yaml --timeout 5s",
            "switchboard audit --limit 4 -o json",
            "switchboard audit commands --listener shell --limit 4 -o json",
            "switchboard connect chat --udp 127.0.0.1:8081 -c hello -c there",
        ] {
            Cli::try_parse_from(line.split(' ')).unwrap();
        }
    }

    #[test]
    fn nonsense_is_a_usage_error() {
        for line in [
            "switchboard listener get",
            "switchboard listener ls -o xml",
            "switchboard audit commands --listener a --session b",
            "switchboard connect finger localhost:79",
            "switchboard session close x --grace soon",
            "switchboard config diff --from now",
            "switchboard top --interval 1ms",
            "switchboard config export --format ini",
            "switchboard config validate",
        ] {
            let error = Cli::try_parse_from(line.split(' ')).unwrap_err();
            assert_eq!(error.exit_code(), i32::from(exit::USAGE), "{line}");
        }
    }
}
