//! Resource names: as people type them, and as the control plane spells them.
//!
//! People leave out what goes without saying: `listeners/` before a listener, everything but the id of a session.

/// The collection of all listeners.
pub(super) const ANY_LISTENER: &str = "listeners/-";

/// `ack` and `listeners/ack` are the same listener; so with `ack/sessions/…`.
pub(super) fn qualified(typed: &str) -> String {
    match typed.starts_with("listeners/") {
        true => typed.to_owned(),
        false => format!("listeners/{typed}"),
    }
}

/// The parent that a list is asked of: one listener, or all of them.
pub(super) fn parent(listener: Option<&str>) -> String {
    listener.map_or_else(|| ANY_LISTENER.to_owned(), qualified)
}

/// The last part of a name: the id of what it names.
pub(super) fn id(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// The listener's id within a name below it, `listeners/ack/sessions/…`.
pub(super) fn listener(name: &str) -> &str {
    name.split('/').nth(1).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_without_saying_is_added() {
        assert_eq!(qualified("ack"), "listeners/ack");
        assert_eq!(qualified("listeners/ack"), "listeners/ack");
        assert_eq!(qualified("ack/sessions/n-1"), "listeners/ack/sessions/n-1");
        assert_eq!(parent(None), "listeners/-");
        assert_eq!(parent(Some("ack")), "listeners/ack");
    }

    #[test]
    fn parts_are_found() {
        assert_eq!(id("listeners/ack/sessions/n-1"), "n-1");
        assert_eq!(listener("listeners/ack/sessions/n-1"), "ack");
        assert_eq!((id("odd"), listener("odd"), id("")), ("odd", "odd", ""));
    }
}
