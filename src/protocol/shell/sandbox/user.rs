//! Who commands run as.

use crate::cage::{User, account_named, account_numbered};

/// Who has no rights, where the system has no account called `nobody`.
const NOBODY: u32 = 65_534;

/// The user that the service runs as.
#[derive(Clone, Copy)]
pub(super) struct Service {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Service {
    pub(super) fn here() -> Self {
        Self {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
        }
    }
}

/// Whom the system knows by a name, or by a number.
pub(super) fn known(who: &str) -> Option<User> {
    match who.parse() {
        Ok(uid) => account_numbered(uid),
        Err(_) => account_named(who),
    }
}

/// Who has no rights here.
pub(super) fn nobody() -> User {
    known("nobody").unwrap_or_else(|| User {
        name: String::new(),
        uid: NOBODY,
        gid: NOBODY,
    })
}

/// The user as a setting says it.
pub(super) fn word(user: &User) -> String {
    match &*user.name {
        "" => format!("{}:{}", user.uid, user.gid),
        name => name.to_owned(),
    }
}

/// Who commands run as, when that is not the service's own user; or why that cannot be.
pub(super) fn run_as(
    asked: &str,
    uncaged: bool,
    service: Service,
    known: impl Fn(&str) -> Option<User>,
) -> Result<Option<User>, String> {
    if asked.is_empty() {
        return Ok((service.uid == 0).then(nobody));
    }
    let user = user(asked, known)?;
    if user.uid == 0 && !uncaged {
        return Err(
            "commands do not run as root: no cage holds it; name another user, or set \
             isolation = \"none\" and min_isolation = \"none\""
                .into(),
        );
    }
    if (user.uid, user.gid) == (service.uid, service.gid) {
        return Ok(None);
    }
    if service.uid != 0 {
        let own = service.uid;
        return Err(format!(
            "only root can run commands as another user, and the service is user {own}; leave it empty"
        ));
    }
    Ok(Some(user))
}

/// Whom the text means: a name, `uid` or `uid:gid`.
fn user(asked: &str, known: impl Fn(&str) -> Option<User>) -> Result<User, String> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let number = |text: &str| {
        // The highest means nobody at all to the kernel's calls.
        let found = text.parse().ok().filter(|id: &u32| *id != u32::MAX);
        found.ok_or_else(|| format!("{text} is no user's or group's number; at most 4294967294 is"))
    };
    if let Some((uid, gid)) = asked.split_once(':')
        && is_number(uid)
        && is_number(gid)
    {
        let (uid, gid) = (number(uid)?, number(gid)?);
        let name = known(&uid.to_string()).map(|user| user.name);
        return Ok(User {
            name: name.unwrap_or_default(),
            uid,
            gid,
        });
    }
    if is_number(asked) {
        let uid = number(asked)?;
        return known(asked).ok_or_else(|| {
            format!("no user of this system has the number {uid}; say its group too, as in \"{uid}:{uid}\"")
        });
    }
    known(asked).ok_or_else(|| {
        format!(
            "this system has no user `{asked}`; a name that it knows, `uid` or `uid:gid` is right"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: Service = Service { uid: 0, gid: 0 };
    const OWN: Service = Service {
        uid: 1000,
        gid: 1000,
    };

    fn system(asked: &str) -> Option<User> {
        let table = [
            ("root", 0, 0),
            ("daemon", 1, 1),
            ("me", 1000, 1000),
            ("toor", 0, 5),
        ];
        let found = table
            .iter()
            .find(|(name, uid, _)| *name == asked || uid.to_string() == asked);
        found.map(|(name, uid, gid)| User {
            name: (*name).into(),
            uid: *uid,
            gid: *gid,
        })
    }

    #[test]
    fn root_gives_its_commands_to_somebody_else() {
        let as_root = |asked| run_as(asked, false, ROOT, system);
        let ids = |asked| as_root(asked).unwrap().map(|user| (user.uid, user.gid));
        assert_eq!(ids("").map(|(uid, _)| uid), Some(nobody().uid));
        assert_eq!(ids("daemon"), Some((1, 1)));
        assert_eq!(ids("1"), Some((1, 1)));
        assert_eq!(ids("1:7"), Some((1, 7)));
        assert_eq!(ids("4000:4000"), Some((4000, 4000)));
        assert_eq!(as_root("1:7").unwrap().unwrap().name, "daemon");
        for root in ["root", "0", "0:0", "0:1", "toor", "00:1"] {
            assert!(
                as_root(root).unwrap_err().contains("not run as root"),
                "{root}"
            );
        }
    }

    #[test]
    fn root_runs_commands_only_where_there_is_no_cage() {
        assert_eq!(run_as("root", true, ROOT, system), Ok(None));
        assert!(run_as("", true, ROOT, system).unwrap().is_some());
    }

    #[test]
    fn others_run_commands_as_themselves() {
        let own = |asked| run_as(asked, false, OWN, system);
        for same in ["", "me", "1000", "1000:1000"] {
            assert_eq!(own(same), Ok(None), "{same}");
        }
        for other in ["daemon", "1", "1000:5"] {
            assert!(own(other).unwrap_err().contains("only root can"), "{other}");
        }
        assert!(own("root").unwrap_err().contains("not run as root"));
    }
}
