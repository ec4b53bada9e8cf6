//! The system's accounts: who a name or a number is.

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::ptr;

use crate::cage::User;

/// Enough for any entry; a longer one is an error of its own.
const LONGEST_ENTRY: usize = 64 * 1024;

/// The account that everybody expects, on systems that list none.
const NOBODY: (&str, u32) = ("nobody", 65534);

/// The user that a name, a number or `UID:GID` stands for; none when the system knows no such user and the group is
/// not told.
///
/// # Errors
///
/// When the system's accounts cannot be read.
pub fn account(who: &str) -> io::Result<Option<User>> {
    if let Some((uid, gid)) = who.split_once(':') {
        let (Ok(uid), Ok(gid)) = (uid.parse(), gid.parse()) else {
            return Ok(None);
        };
        let name = by_number(uid)?.map_or_else(String::new, |user| user.name);
        return Ok(Some(User { name, uid, gid }));
    }
    let known = match who.parse() {
        Ok(uid) => by_number(uid)?,
        Err(_) => by_name(who)?,
    };
    let (name, number) = NOBODY;
    Ok(known.or_else(|| {
        (who == name).then(|| User {
            name: name.to_owned(),
            uid: number,
            gid: number,
        })
    }))
}

fn by_name(name: &str) -> io::Result<Option<User>> {
    let Ok(name) = CString::new(name) else {
        return Ok(None);
    };
    // SAFETY: as `find` promises; the name ends with a NUL.
    find(|entry, buffer, found| unsafe {
        libc::getpwnam_r(
            name.as_ptr(),
            entry,
            buffer.as_mut_ptr(),
            buffer.len(),
            found,
        )
    })
}

fn by_number(uid: u32) -> io::Result<Option<User>> {
    // SAFETY: as `find` promises.
    find(|entry, buffer, found| unsafe {
        libc::getpwuid_r(uid, entry, buffer.as_mut_ptr(), buffer.len(), found)
    })
}

/// What `ask` finds: it is given room for an entry, a buffer for its texts, and where to put a pointer to the entry.
fn find(
    ask: impl Fn(*mut libc::passwd, &mut [libc::c_char], *mut *mut libc::passwd) -> libc::c_int,
) -> io::Result<Option<User>> {
    let mut size = 1024;
    loop {
        let mut entry = MaybeUninit::<libc::passwd>::uninit();
        let mut buffer = vec![0; size];
        let mut found = ptr::null_mut();
        match ask(entry.as_mut_ptr(), &mut buffer, &raw mut found) {
            0 if found.is_null() => return Ok(None),
            0 => {
                // SAFETY: it was found, so the entry is filled in, and its name is a text in `buffer`.
                let (entry, name) = unsafe {
                    let entry = entry.assume_init();
                    (entry, CStr::from_ptr(entry.pw_name))
                };
                return Ok(Some(User {
                    name: name.to_string_lossy().into_owned(),
                    uid: entry.pw_uid,
                    gid: entry.pw_gid,
                }));
            }
            libc::ERANGE if size < LONGEST_ENTRY => size *= 4,
            libc::EINTR => {}
            // What the C library answers for somebody unknown, beside nothing.
            libc::ENOENT | libc::ESRCH => return Ok(None),
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, uid: u32, gid: u32) -> Option<User> {
        let name = name.to_owned();
        Some(User { name, uid, gid })
    }

    #[test]
    fn a_user_is_named_or_numbered() {
        assert_eq!(account("root").unwrap(), user("root", 0, 0));
        assert_eq!(account("0").unwrap(), user("root", 0, 0));
        assert_eq!(account("nobody").unwrap().unwrap().name, "nobody");
        assert_eq!(account("0:12").unwrap(), user("root", 0, 12));
        let unknown = 3_999_999_999;
        assert_eq!(
            account(&format!("{unknown}:7")).unwrap(),
            user("", unknown, 7)
        );
    }

    #[test]
    fn nobody_else_is_made_up() {
        for who in ["", "no such user", "3999999999", "1:x", ":", "-1", "a\0b"] {
            assert_eq!(account(who).unwrap(), None, "{who}");
        }
    }
}
