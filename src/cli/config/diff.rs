//! `config diff` and `config reload`: what differs, or has just been changed, and whom it concerns.

use clap::{Args, ValueEnum};

use super::super::client::Client;
use super::super::effect::{warnings, when};
use super::super::exit::{ERROR, Failure, complain};
use super::super::mutation::Once;
use super::super::output::{self, Format, legible};
use super::super::table::Table;
use super::plain;
use crate::grpc::api;
use crate::grpc::api::diff_config_request::Side as Wire;

#[derive(Debug, Args)]
pub(super) struct DiffArgs {
    /// What is compared
    #[arg(long, value_name = "SIDE", value_enum, default_value_t = Side::Running)]
    from: Side,
    /// What it is compared with
    #[arg(long, value_name = "SIDE", value_enum, default_value_t = Side::AfterRestart)]
    to: Side,
    /// Exit with 1 when something differs
    #[arg(long)]
    exit_code: bool,
}

#[derive(Debug, Args)]
pub(super) struct ReloadArgs {
    /// Run every check, show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Refuse if any session would end
    #[arg(long)]
    keep_sessions: bool,
    #[command(flatten)]
    once: Once,
}

/// What can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Side {
    /// What is in force now
    Running,
    /// What the files say, without environment, flags and changes made at run time
    Files,
    /// What would be in force after a restart
    AfterRestart,
}

impl From<Side> for Wire {
    fn from(side: Side) -> Self {
        match side {
            Side::Running => Self::Running,
            Side::Files => Self::Files,
            Side::AfterRestart => Self::AfterRestart,
        }
    }
}

/// Shows what differs.
pub(super) async fn diff(args: &DiffArgs, client: &Client, format: Format) -> Result<(), Failure> {
    let asked = api::DiffConfigRequest {
        from: Wire::from(args.from).into(),
        to: Wire::from(args.to).into(),
    };
    let answer = client.call(asked).await?;
    if format.is_document() {
        output::whole(format, &answer)?;
    } else {
        list(format, &answer.changes, "nothing differs")?;
    }
    if args.exit_code && !answer.changes.is_empty() {
        return Err(Failure::Told(ERROR));
    }
    Ok(())
}

/// Reloads, and shows what that changed.
pub(super) async fn reload(
    args: &ReloadArgs,
    client: &Client,
    format: Format,
) -> Result<(), Failure> {
    let asked = api::ReloadConfigRequest {
        validate_only: args.dry_run,
        keep_sessions: args.keep_sessions,
        request_id: args.once.request_id.clone(),
    };
    // Sessions that end have their grace first.
    let answer = client.call_with_grace(None, asked).await?;
    if format.is_document() {
        return output::whole(format, &answer);
    }
    list(format, &answer.changes, "nothing differs")?;
    warnings(&answer.warnings);
    if args.dry_run {
        complain("dry run: nothing was changed");
    }
    let revision = legible(answer.revision.as_bytes(), b"\\");
    complain(&format!("revision: {revision}"));
    Ok(())
}

/// A list without items is a sentence on stderr, and nothing on stdout.
fn list(format: Format, changes: &[api::ConfigChange], none: &str) -> Result<(), Failure> {
    if changes.is_empty() {
        complain(none);
        return Ok(());
    }
    let keys = changes.iter().map(|change| change.key.clone());
    output::rows(format, keys, |_| rows(changes))
}

fn rows(changes: &[api::ConfigChange]) -> Table {
    let mut table = Table::new(&["KEY", "FROM", "TO", "TAKES-EFFECT", "SESSIONS"]);
    for change in changes {
        table.row([
            change.key.clone(),
            plain(&change.from_json),
            plain(&change.to_json),
            when(change.scope()),
            change.sessions_affected.to_string(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::super::table::Screen;
    use super::*;
    use api::field_effect::Scope;

    #[test]
    fn a_change_says_when_and_for_whom() {
        let changes = [
            api::ConfigChange {
                key: "listeners.ack.bind".into(),
                from_json: "\"127.0.0.1:1\"".into(),
                to_json: "\"127.0.0.1:2\"".into(),
                scope: Scope::Rebind.into(),
                sessions_affected: 3,
            },
            api::ConfigChange {
                key: "listeners.ack.greeting".into(),
                to_json: "\"\"".into(),
                scope: Scope::NewSessions.into(),
                ..Default::default()
            },
        ];
        let expected = "\
            KEY                     FROM         TO           TAKES-EFFECT  SESSIONS\n\
            listeners.ack.bind      127.0.0.1:1  127.0.0.1:2  rebind        3\n\
            listeners.ack.greeting  -            \"\"           new sessions  0\n";
        assert_eq!(rows(&changes).render(&Screen::default()), expected);
    }
}
