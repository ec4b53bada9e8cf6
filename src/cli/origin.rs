//! Where a value comes from, in as few words as lead there.

use std::time::SystemTime;

use super::table::age;
use crate::grpc::api::ConfigOrigin;
use crate::grpc::api::config_origin::Layer;

/// `FILE:LINE`, a variable's name, `--set`, `default`, or who changed it at run time and how long ago; what ends with
/// the process begins with `ephemeral: `.
pub(super) fn place(origin: &ConfigOrigin, now: SystemTime) -> String {
    let source = &origin.source;
    match origin.layer() {
        Layer::Unspecified => source.clone(),
        Layer::Default => "default".to_owned(),
        Layer::File if origin.line > 0 => format!("{source}:{}", origin.line),
        Layer::File | Layer::Environment => source.clone(),
        Layer::CommandLine if source.is_empty() => "--set".to_owned(),
        Layer::CommandLine => source.clone(),
        Layer::RuntimeState => call(origin, now),
        Layer::Ephemeral => format!("ephemeral: {}", call(origin, now)),
    }
}

/// The call that made a change.
fn call(origin: &ConfigOrigin, now: SystemTime) -> String {
    let mut said = match &*origin.source {
        "" => "a call".to_owned(),
        source => source.to_owned(),
    };
    if !origin.set_by.is_empty() {
        said += &format!(" by {}", origin.set_by);
    }
    if origin.set_time.is_some() {
        said += &format!(", {} ago", age(origin.set_time, now));
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost_types::Timestamp;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn every_layer_leads_to_its_place() {
        let now = UNIX_EPOCH + Duration::from_secs(7_200);
        for (layer, source, line, expected) in [
            (Layer::Default, "", 0, "default"),
            (Layer::File, "/etc/sb.toml", 7, "/etc/sb.toml:7"),
            (Layer::File, "/etc/sb.json", 0, "/etc/sb.json"),
            (Layer::Environment, "SWITCHBOARD__A", 0, "SWITCHBOARD__A"),
            (Layer::CommandLine, "", 0, "--set"),
            (
                Layer::RuntimeState,
                "StopListener",
                0,
                "StopListener by me, 2h ago",
            ),
            (Layer::Ephemeral, "", 0, "ephemeral: a call by me, 2h ago"),
        ] {
            let origin = ConfigOrigin {
                layer: layer.into(),
                source: source.into(),
                line,
                set_by: "me".into(),
                set_time: Some(Timestamp::default()),
            };
            assert_eq!(place(&origin, now), expected);
        }
        let bare = ConfigOrigin {
            layer: Layer::RuntimeState.into(),
            source: "UpdateListener".into(),
            ..Default::default()
        };
        assert_eq!(place(&bare, now), "UpdateListener");
    }
}
