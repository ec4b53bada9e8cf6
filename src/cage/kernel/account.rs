//! The system's accounts: who a name or a number is.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::ptr;

use crate::cage::User;

/// Enough for any entry.
const LONGEST_ENTRY: usize = 64 * 1024;

/// Who the system knows by this name; nobody when its accounts cannot be read.
pub fn account_named(name: &str) -> Option<User> {
    let name = CString::new(name).ok()?;
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

/// Who the system knows by this number.
pub fn account_numbered(uid: u32) -> Option<User> {
    // SAFETY: as `find` promises.
    find(|entry, buffer, found| unsafe {
        libc::getpwuid_r(uid, entry, buffer.as_mut_ptr(), buffer.len(), found)
    })
}

/// What `ask` finds: it is given room for an entry, a buffer for its texts, and where to put a pointer to the entry.
fn find(
    ask: impl Fn(*mut libc::passwd, &mut [libc::c_char], *mut *mut libc::passwd) -> libc::c_int,
) -> Option<User> {
    let mut size = 1024;
    loop {
        let mut entry = MaybeUninit::<libc::passwd>::uninit();
        let mut buffer = vec![0; size];
        let mut found = ptr::null_mut();
        match ask(entry.as_mut_ptr(), &mut buffer, &raw mut found) {
            0 if !found.is_null() => {
                // SAFETY: it was found, so the entry is filled in, and its name is a text in `buffer`.
                let (entry, name) = unsafe {
                    let entry = entry.assume_init();
                    (entry, CStr::from_ptr(entry.pw_name))
                };
                return Some(User {
                    name: name.to_string_lossy().into_owned(),
                    uid: entry.pw_uid,
                    gid: entry.pw_gid,
                });
            }
            libc::ERANGE if size < LONGEST_ENTRY => size *= 4,
            libc::EINTR => {}
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_name_and_by_number() {
        let root = User {
            name: "root".to_owned(),
            uid: 0,
            gid: 0,
        };
        assert_eq!(account_named("root"), Some(root.clone()));
        assert_eq!(account_numbered(0), Some(root));
    }

    #[test]
    fn nobody_else_is_made_up() {
        for who in ["", "no such user", "0", "a\0b"] {
            assert_eq!(account_named(who), None, "{who}");
        }
        assert_eq!(account_numbered(3_999_999_999), None);
    }
}
