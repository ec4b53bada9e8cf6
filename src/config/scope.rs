//! When a changed setting takes effect.
//!
//! The words alone: which setting has which is said in tables beside the code that obeys it.

use super::path::is_within;

/// How far the change of a setting reaches, mildest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// At once, live sessions included.
    Live,
    /// For what begins from now on; live sessions keep what they began with.
    NewSessions,
    /// Only once the socket has been closed and bound again; its sessions end.
    Rebind,
    /// Only once the process has been started again.
    Restart,
}

impl Scope {
    /// The word for people and scripts: `live`, `new_sessions`, `rebind`, `restart`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::NewSessions => "new_sessions",
            Self::Rebind => "rebind",
            Self::Restart => "restart",
        }
    }
}

/// When a change of `key` takes effect by this table of keys. What stands inside a key goes by it
/// (`sandbox.environment.HOME`), and a table by the furthest reaching of its keys.
pub fn scope_of(scopes: &[(&str, Scope)], key: &str) -> Option<Scope> {
    let concerned = scopes
        .iter()
        .filter(|(row, _)| is_within(key, row) || is_within(row, key));
    concerned.map(|(_, scope)| *scope).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_goes_by_its_furthest_key_and_what_is_in_a_key_by_that() {
        let scopes = [
            ("a", Scope::Rebind),
            ("box.x", Scope::Live),
            ("box.y", Scope::NewSessions),
        ];
        assert_eq!(scope_of(&scopes, "box"), Some(Scope::NewSessions));
        assert_eq!(scope_of(&scopes, "box.x.z"), Some(Scope::Live));
        assert_eq!(scope_of(&scopes, "b"), None);
    }
}
