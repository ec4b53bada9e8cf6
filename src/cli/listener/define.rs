//! `listener create` and `listener update`: what one should be, from the same flags.

use clap::Args;

use super::super::client::Client;
use super::super::complete;
use super::super::effect::{effects, warnings};
use super::super::exit::{Failure, complain};
use super::super::mutation::Once;
use super::super::name::id;
use super::super::output::{self, Format};
use super::super::spec::{self, Fields};
use super::{Etag, Which};
use crate::grpc::api;
use crate::grpc::api::Persistence;
use crate::grpc::api::listener::DesiredState;

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// A lower-case letter, then letters, digits and hyphens; at most 63
    name: String,
    /// What is spoken there: ack, shell, uppercase or chat
    #[arg(long, add = complete::protocols())]
    protocol: String,
    /// Where: host:port or [v6]:port; port 0 lets the kernel choose
    #[arg(long, value_name = "ADDRESS")]
    bind: String,
    #[command(flatten)]
    fields: Box<Fields>,
    /// Define it without starting it
    #[arg(long)]
    stopped: bool,
    #[command(flatten)]
    manner: Manner,
}

#[derive(Debug, Args)]
pub(super) struct UpdateArgs {
    #[command(flatten)]
    which: Which,
    /// Where from now on: host:port or [v6]:port; port 0 lets the kernel choose
    #[arg(long, value_name = "ADDRESS")]
    bind: Option<String>,
    #[command(flatten)]
    fields: Box<Fields>,
    /// A key to set back to its default, such as limits.max_sessions or labels.team; may be repeated
    #[arg(long, value_name = "KEY")]
    unset: Vec<String>,
    #[command(flatten)]
    etag: Etag,
    #[command(flatten)]
    manner: Manner,
}

/// How a change is made.
#[derive(Debug, Args)]
struct Manner {
    /// Until the process ends, over whatever files, environment and flags say
    #[arg(long)]
    ephemeral: bool,
    /// Run every check and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    once: Once,
}

impl Manner {
    fn persistence(&self) -> Persistence {
        if self.ephemeral {
            Persistence::Ephemeral
        } else {
            Persistence::Unspecified
        }
    }

    /// Says on stderr what stdout does not.
    fn tell(&self, warned: &[api::ConfigWarning]) {
        warnings(warned);
        if self.dry_run {
            complain("dry run: nothing was changed");
        }
    }
}

/// Defines one, and shows it.
pub(super) async fn create(
    args: CreateArgs,
    client: &Client,
    format: Format,
) -> Result<(), Failure> {
    let mut listener = spec::listener(&args.protocol, &args.bind, &args.fields.settings()?)?;
    if args.stopped {
        listener.set_desired_state(DesiredState::Stopped);
    }
    let asked = api::CreateListenerRequest {
        listener_id: id(&args.name).to_owned(),
        listener: Some(listener),
        validate_only: args.manner.dry_run,
        persistence: args.manner.persistence().into(),
        request_id: args.manner.once.request_id.clone(),
    };
    let answer = client.call(asked).await?;
    args.manner.tell(&answer.warnings);
    output::answered(format, answer.listener)
}

/// Changes one, shows it, and says when what was changed takes effect.
pub(super) async fn update(
    args: UpdateArgs,
    client: &Client,
    format: Format,
) -> Result<(), Failure> {
    let settings = args.settings()?;
    // It knows its protocol, and the maps of which one entry is to change.
    let current = super::get(&client.asking(), args.which.name()).await?;
    let current = current.ok_or_else(|| Failure::error("the answer holds no Listener"))?;
    let asked = args.request(&current, &settings)?;
    // A rebind is answered after the grace of the sessions that it ends.
    let answer = client.call_with_grace(None, asked).await?;
    if format.is_document() {
        return output::whole(format, &answer);
    }
    output::answered(format, answer.listener)?;
    effects(&answer.effects);
    args.manner.tell(&answer.warnings);
    Ok(())
}

impl UpdateArgs {
    /// The keys to set, and what to.
    fn settings(&self) -> Result<Vec<(String, String)>, Failure> {
        let bind = self
            .bind
            .iter()
            .map(|bind| ("bind".to_owned(), bind.clone()));
        let settings: Vec<_> = bind.chain(self.fields.settings()?).collect();
        if settings.is_empty() && self.unset.is_empty() {
            return Err(Failure::usage(
                "nothing to change: name a setting, as in --set KEY=VALUE or --unset KEY",
            ));
        }
        Ok(settings)
    }

    fn request(
        &self,
        current: &api::Listener,
        settings: &[(String, String)],
    ) -> Result<api::UpdateListenerRequest, Failure> {
        let mut patch = spec::patch(current, &self.unset, settings)?;
        patch.listener.name = self.which.name();
        if !self.etag.etag.is_empty() {
            patch.listener.etag.clone_from(&self.etag.etag);
        }
        Ok(api::UpdateListenerRequest {
            listener: Some(patch.listener),
            update_mask: Some(prost_types::FieldMask { paths: patch.mask }),
            validate_only: self.manner.dry_run,
            persistence: self.manner.persistence().into(),
            request_id: self.manner.once.request_id.clone(),
            allow_missing: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::listener::Protocol;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        update: UpdateArgs,
    }

    fn typed(line: &str) -> UpdateArgs {
        Line::try_parse_from(line.split(' ')).unwrap().update
    }

    #[test]
    fn a_line_becomes_a_request() {
        let args = typed(
            "update ack --bind 127.0.0.1:1 --reply hi --once --max-sessions 3 --unset framing \
             --set labels.a=b --ephemeral --dry-run",
        );
        let ack = api::Listener {
            etag: "e1".into(),
            protocol: Some(Protocol::Ack(api::AckProtocol::default())),
            ..Default::default()
        };
        let asked = args.request(&ack, &args.settings().unwrap()).unwrap();
        let expected = [
            "ack.framing",
            "bind",
            "ack.reply",
            "ack.once",
            "limits.max_sessions",
            "labels",
        ];
        assert_eq!(asked.update_mask.as_ref().unwrap().paths, expected);
        assert_eq!(asked.persistence(), Persistence::Ephemeral);
        assert!(asked.validate_only);
        let listener = asked.listener.unwrap();
        assert_eq!((&*listener.name, &*listener.etag), ("listeners/ack", "e1"));
        let ack = api::AckProtocol {
            reply: b"hi".to_vec(),
            once: true,
            ..Default::default()
        };
        assert_eq!(listener.protocol, Some(Protocol::Ack(ack)));
    }

    #[test]
    fn an_etag_of_the_line_comes_before_the_known_one() {
        let args = typed("update listeners/ack --etag e0 --set labels.a=b");
        let ack = api::Listener {
            etag: "e1".into(),
            protocol: Some(Protocol::Ack(api::AckProtocol::default())),
            ..Default::default()
        };
        let asked = args.request(&ack, &args.settings().unwrap()).unwrap();
        assert_eq!(asked.listener.unwrap().etag, "e0");
        assert_eq!(asked.persistence, 0);
    }

    #[test]
    fn a_change_of_nothing_is_a_usage_error() {
        let refused = typed("update ack --ephemeral").settings().unwrap_err();
        assert!(matches!(
            refused,
            Failure::Here(super::super::super::exit::USAGE, _)
        ));
    }
}
