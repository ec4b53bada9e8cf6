//! What a change comes to: when each part of it holds, and what will not have its whole effect. On stderr, since
//! stdout holds what was changed.

use std::time::SystemTime;

use super::exit::complain;
use super::origin::place;
use super::output::legible;
use super::table::word;
use crate::grpc::api::field_effect::Scope;
use crate::grpc::api::{ConfigWarning, FieldEffect};

/// Says when each changed field takes effect: `limits.max_sessions: live`.
pub(super) fn effects(effects: &[FieldEffect]) {
    for effect in effects {
        say(&format!("{}: {}", effect.field, when(effect.scope())));
    }
}

/// Says what to beware of.
pub(super) fn warnings(warnings: &[ConfigWarning]) {
    let now = SystemTime::now();
    for one in warnings {
        say(&warning(one, now));
    }
}

/// `live`, `new sessions`, `rebind` or `restart`.
pub(super) fn when(scope: Scope) -> String {
    word(scope.as_str_name(), "SCOPE_").replace('_', " ")
}

/// The key and the layer that hides it are left out where the sentence names them.
fn warning(warning: &ConfigWarning, now: SystemTime) -> String {
    let ConfigWarning { key, message, .. } = warning;
    let mut out = "warning: ".to_owned();
    if !message.contains(&**key) {
        out += &format!("{key}: ");
    }
    out += message;
    if let Some(origin) = &warning.pinned_by {
        let by = place(origin, now);
        if !message.contains(&*by) {
            out += &format!(" (hidden by {by})");
        }
    }
    out
}

fn say(line: &str) {
    complain(&legible(line.as_bytes(), b"\\"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::api::ConfigOrigin;
    use crate::grpc::api::config_origin::Layer;

    #[test]
    fn scopes_are_words() {
        let scopes = [
            Scope::Live,
            Scope::NewSessions,
            Scope::Rebind,
            Scope::Restart,
        ];
        assert_eq!(
            scopes.map(when),
            ["live", "new sessions", "rebind", "restart"]
        );
    }

    #[test]
    fn a_warning_says_everything_once() {
        let said = |message: &str| {
            let one = ConfigWarning {
                key: "node.name".into(),
                message: message.into(),
                pinned_by: Some(ConfigOrigin {
                    layer: Layer::Environment.into(),
                    source: "SWITCHBOARD__NODE__NAME".into(),
                    ..Default::default()
                }),
                ..Default::default()
            };
            warning(&one, SystemTime::now())
        };
        assert_eq!(
            said("it is hidden"),
            "warning: node.name: it is hidden (hidden by SWITCHBOARD__NODE__NAME)"
        );
        let whole = "SWITCHBOARD__NODE__NAME hides node.name";
        assert_eq!(said(whole), format!("warning: {whole}"));
    }
}
