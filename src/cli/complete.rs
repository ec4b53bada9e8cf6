//! Completion: a shell asks this program what could stand where the cursor is, and names come from the control plane.
//!
//! It has the time that a person does not notice; a control plane that is slower, or not there, completes nothing.

use std::env;
use std::time::Duration;

use clap::{Args, ValueEnum};
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use clap_complete::env::Shells;

use super::client::{Client, ControlArgs};
use super::exit::Failure;
use super::list::List;
use super::name::{ANY_LISTENER, id};
use super::output::print;
use super::spec;
use super::table::word;
use crate::grpc::api;

/// What asking for names may take, the connection included.
const PATIENCE: Duration = Duration::from_millis(300);

/// How many names are offered at most: the largest page.
const MOST: i32 = 1_000;

/// The variable by which a shell asks for completions.
const VARIABLE: &str = "COMPLETE";

/// For which shell.
#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// Which prints a script; bash reads it by `source <(switchboard completions bash)`
    #[arg(value_enum)]
    shell: Shell,
}

/// A shell that can ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Prints the script that makes a shell ask.
pub(super) fn script(args: &CompletionsArgs) -> Result<(), Failure> {
    let shell = match args.shell {
        Shell::Bash => "bash",
        Shell::Zsh => "zsh",
        Shell::Fish => "fish",
    };
    let name = env!("CARGO_PKG_NAME");
    let mut script = Vec::new();
    let shells = Shells::builtins();
    let writer = shells
        .completer(shell)
        .ok_or_else(|| Failure::error(format_args!("no completion for {shell}")))?;
    writer
        .write_registration(VARIABLE, name, name, name, &mut script)
        .map_err(Failure::error)?;
    print(&String::from_utf8_lossy(&script))
}

/// The names of the listeners that there are.
pub(super) fn listeners() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        offered(api::ListListenersRequest::default(), |listener| {
            let state = word(listener.state().as_str_name(), "STATE_");
            (id(&listener.name).to_owned(), state)
        })
    })
}

/// The ids of the sessions that there are.
pub(super) fn sessions() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let asked = api::ListSessionsRequest {
            parent: ANY_LISTENER.to_owned(),
            ..Default::default()
        };
        offered(asked, |session| {
            (id(&session.name).to_owned(), session.peer)
        })
    })
}

/// The ids of the conversations that there are, and whom each is with.
pub(super) fn conversations() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let asked = api::ListConversationsRequest {
            parent: ANY_LISTENER.to_owned(),
            ..Default::default()
        };
        offered(asked, |conversation| {
            (id(&conversation.name).to_owned(), conversation.peer)
        })
    })
}

/// Where a conversation or the whole desk of a listener may be named: both.
pub(super) fn desks() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let mut found = listeners().candidates();
        found.extend(conversations().candidates());
        found
    })
}

/// The networks that are kept away, and why.
pub(super) fn networks() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let asked = api::ListBansRequest {
            parent: ANY_LISTENER.to_owned(),
            ..Default::default()
        };
        offered(asked, |ban| (ban.cidr, ban.reason))
    })
}

/// What can be spoken.
pub(super) fn protocols() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let known = spec::words().unwrap_or_default();
        known.into_iter().map(CompletionCandidate::new).collect()
    })
}

fn offered<L: List>(
    asked: L,
    show: impl Fn(L::Item) -> (String, String),
) -> Vec<CompletionCandidate> {
    let items = page(asked).unwrap_or_default();
    let shown = items.into_iter().map(show);
    shown
        .map(|(name, help)| CompletionCandidate::new(name).help(Some(help.into())))
        .collect()
}

/// The first page; nothing when it cannot be had in time.
fn page<L: List>(asked: L) -> Option<Vec<L::Item>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .ok()?;
    runtime.block_on(async {
        let answer = tokio::time::timeout(PATIENCE, async {
            let client = Client::dial(&ControlArgs::to(endpoint(), PATIENCE)).await?;
            client.call(asked.page(MOST, String::new())).await
        });
        Some(L::items(answer.await.ok()?.ok()?).0)
    })
}

/// The endpoint of the line that is being completed, which its words, given to this program, hold; otherwise that of
/// the environment. Nothing is the default one.
fn endpoint() -> String {
    let words: Vec<_> = env::args().collect();
    let typed = words.iter().enumerate().find_map(|(at, word)| {
        let next = || words.get(at + 1).cloned();
        match word.strip_prefix("--endpoint") {
            Some("") => next(),
            Some(rest) => rest.strip_prefix('=').map(str::to_owned),
            None => None,
        }
    });
    typed.unwrap_or_else(|| env::var("SWITCHBOARD_ENDPOINT").unwrap_or_default())
}
