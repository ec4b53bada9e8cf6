//! The accounts of this system: who a name or a number is.

use std::{fs, io};

use super::User;

/// The user that a name or a number stands for; none when the system knows no such user.
///
/// # Errors
/// When the system's accounts cannot be read.
pub fn account(who: &str) -> io::Result<Option<User>> {
    let table = fs::read_to_string("/etc/passwd")?;
    let is_asked = |user: &User| user.name == who || user.uid.to_string() == who;
    Ok(table.lines().filter_map(read).find(is_asked))
}

fn read(line: &str) -> Option<User> {
    let mut fields = line.split(':');
    let name = fields.next()?.to_owned();
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    Some(User { name, uid, gid })
}
