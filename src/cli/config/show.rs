//! `config show`: every value in force, where it was set, and what it hides.

use std::time::SystemTime;

use clap::Args;

use super::super::ServeArgs;
use super::super::client::{Client, ControlArgs};
use super::super::exit::{Failure, NOT_FOUND};
use super::super::origin::place;
use super::super::output;
use super::super::table::Table;
use super::plain;
use crate::grpc::api;

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// Only keys at or below this one, such as listeners.ack
    #[arg(default_value = "", hide_default_value = true)]
    key_prefix: String,
    /// Ask the running service what is in force there, with what was changed at run time
    #[arg(long, conflicts_with_all = ["config", "set"])]
    running: bool,
    #[command(flatten)]
    layers: ServeArgs,
    /// Also where each value was set, and what it hides, nearest first; as -o wide does
    #[arg(long)]
    origin: bool,
    /// Only values that a restart would change
    #[arg(long, requires = "running")]
    drifted: bool,
}

/// Shows them in order of key.
pub(super) async fn show(args: &ShowArgs, control: &ControlArgs) -> Result<(), Failure> {
    let format = control.output;
    let answer = effective(args, control).await?;
    if answer.settings.is_empty() && !args.drifted {
        let message = format!("no key is {0:?}, or below it", args.key_prefix);
        return Err(Failure::Here(NOT_FOUND, message));
    }
    if format.is_document() {
        return output::whole(format, &answer);
    }
    let keys = answer.settings.iter().map(|setting| setting.key.clone());
    output::rows(format, keys, |view| {
        rows(&answer.settings, args.origin || view.wide, view.now)
    })
}

async fn effective(
    args: &ShowArgs,
    control: &ControlArgs,
) -> Result<api::GetEffectiveConfigResponse, Failure> {
    if !args.running {
        control.calls_nothing()?;
        return super::local::settings(&args.layers, &args.key_prefix);
    }
    let asked = api::GetEffectiveConfigRequest {
        key_prefix: args.key_prefix.clone(),
        drifted_only: args.drifted,
    };
    Client::dial(control).await?.call(asked).await
}

/// A row each; the column that tells what a restart would change stands there when one of them is such.
fn rows(settings: &[api::ConfigSetting], origin: bool, now: SystemTime) -> Table {
    let drifted = settings.iter().any(|setting| setting.drifted);
    let mut columns = vec!["KEY", "VALUE"];
    if drifted {
        columns.push("DRIFTED");
    }
    if origin {
        columns.extend(["ORIGIN", "HIDES"]);
    }
    let mut table = Table::new(&columns);
    for setting in settings {
        let mut cells = vec![setting.key.clone(), plain(&setting.value_json)];
        if drifted {
            let mark = if setting.drifted { "drifted" } else { "" };
            cells.push(mark.to_owned());
        }
        if origin {
            let set = setting.origin.as_ref();
            cells.push(set.map_or_else(String::new, |origin| place(origin, now)));
            let hidden = setting.shadows.iter().map(|shadow| shadowed(shadow, now));
            cells.push(hidden.collect::<Vec<_>>().join(", "));
        }
        table.row(cells);
    }
    table
}

/// `5 (/etc/switchboard/switchboard.toml:3)`.
fn shadowed(shadow: &api::ConfigShadow, now: SystemTime) -> String {
    let value = plain(&shadow.value_json);
    match &shadow.origin {
        Some(origin) => format!("{value} ({})", place(origin, now)),
        None => value,
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::table::Screen;
    use super::*;
    use api::config_origin::Layer;
    use std::time::UNIX_EPOCH;

    fn origin(layer: Layer, source: &str, line: u32) -> Option<api::ConfigOrigin> {
        Some(api::ConfigOrigin {
            layer: layer.into(),
            source: source.into(),
            line,
            ..Default::default()
        })
    }

    fn settings() -> [api::ConfigSetting; 2] {
        let shadow = |value: &str, origin| api::ConfigShadow {
            value_json: value.into(),
            origin,
        };
        [
            api::ConfigSetting {
                key: "grpc.allow_shell".into(),
                value_json: "false".into(),
                origin: origin(Layer::Default, "", 0),
                ..Default::default()
            },
            api::ConfigSetting {
                key: "node.name".into(),
                value_json: "\"b\"".into(),
                origin: origin(Layer::Environment, "SWITCHBOARD__NODE__NAME", 0),
                shadows: vec![
                    shadow("\"a\"", origin(Layer::File, "x.toml", 2)),
                    shadow("\"local\"", origin(Layer::Default, "", 0)),
                ],
                drifted: true,
                ..Default::default()
            },
        ]
    }

    #[test]
    fn a_value_has_its_key_its_place_and_what_it_hides() {
        let text = rows(&settings(), true, UNIX_EPOCH).render(&Screen::default());
        let expected = "\
            KEY               VALUE  DRIFTED  ORIGIN                   HIDES\n\
            grpc.allow_shell  false  -        default                  -\n\
            node.name         b      drifted  SWITCHBOARD__NODE__NAME  a (x.toml:2), local (default)\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn without_drift_and_origins_there_are_two_columns() {
        let text = rows(&settings()[..1], false, UNIX_EPOCH).render(&Screen::default());
        assert_eq!(text, "KEY               VALUE\ngrpc.allow_shell  false\n");
    }
}
