//! The accounts of this system: who a name or a number is.

use std::fs;

use super::User;

/// Who the system knows by this name.
pub fn account_named(name: &str) -> Option<User> {
    find(|user| user.name == name)
}

/// Who the system knows by this number.
pub fn account_numbered(uid: u32) -> Option<User> {
    find(|user| user.uid == uid)
}

fn find(wanted: impl Fn(&User) -> bool) -> Option<User> {
    let table = fs::read_to_string("/etc/passwd").ok()?;
    table.lines().filter_map(read).find(wanted)
}

fn read(line: &str) -> Option<User> {
    let mut fields = line.split(':');
    let name = fields.next()?.to_owned();
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    Some(User { name, uid, gid })
}
