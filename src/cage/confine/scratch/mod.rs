//! The folder of a command's own: made for a slot, emptied after every command.
//!
//! What a command has done to the folder itself is undone too. Whoever comes next finds it as the first one did.

mod clear;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{
    CWD, Mode, OFlags, fchmod, fchown, flistxattr, fremovexattr, fstat, mkdirat, openat,
};
use rustix::io::Errno;
use rustix::process::{Gid, Uid, geteuid};

use self::clear::clear;
use super::group;
use crate::cage::{Profile, User};

/// As long as whoever is emptying gives it.
const PATIENCE: Duration = Duration::from_secs(30);
/// The launcher has workers to answer meanwhile.
const LAUNCHERS_PATIENCE: Duration = Duration::from_millis(500);

/// The system's folder for passing files. Not what TMPDIR says: the launcher has no environment.
const ABOVE: &str = "/tmp";

const FOLDER: OFlags = OFlags::DIRECTORY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// A command's folder, and those in it that lead to something mounted there, which stay.
#[derive(Debug)]
pub(in crate::cage) struct Scratch {
    folders: Vec<Folder>,
    /// What all of them are on.
    device: u64,
}

#[derive(Debug)]
struct Folder {
    opened: OwnedFd,
    mode: Mode,
    /// Names that stay.
    kept: Vec<CString>,
}

impl Scratch {
    /// `mounted` are the places below it where something is.
    pub(super) fn open(path: &Path, mounted: &[PathBuf]) -> io::Result<Self> {
        let mut leading = BTreeMap::from([(path, BTreeSet::new())]);
        for place in mounted {
            for (folder, name) in place.ancestors().skip(1).zip(place.ancestors()) {
                let elsewhere = folder
                    .ancestors()
                    .any(|above| mounted.iter().any(|at| at == above && at.starts_with(path)));
                if let (true, false, Some(name)) =
                    (folder.starts_with(path), elsewhere, name.file_name())
                {
                    leading.entry(folder).or_default().insert(name);
                }
            }
        }
        let opened = leading.into_iter().map(|(path, names)| {
            let names = names.into_iter().map(|name| CString::new(name.as_bytes()));
            let opened = openat(CWD, path, FOLDER, Mode::empty())?;
            Ok(Folder {
                mode: mode(&opened)?,
                opened,
                kept: names.collect::<Result<_, _>>()?,
            })
        });
        let folders: Vec<Folder> = opened.collect::<io::Result<_>>()?;
        let device = folders
            .first()
            .map_or(Ok(0), |top| fstat(&top.opened).map(|data| data.st_dev))?;
        Ok(Self { folders, device })
    }

    /// Empties it after a command, and undoes what that has done to the folder itself. False when it could not.
    pub(in crate::cage) fn empty(&mut self) -> bool {
        self.clear(PATIENCE).is_ok()
    }

    fn clear(&self, patience: Duration) -> Result<(), Errno> {
        let until = Instant::now() + patience;
        self.folders
            .iter()
            .try_for_each(|folder| folder.clear(self.device, until))
    }
}

impl Folder {
    fn owner(&self) -> Option<u32> {
        fstat(&self.opened).map(|data| data.st_uid).ok()
    }

    fn clear(&self, device: u64, until: Instant) -> Result<(), Errno> {
        let folder = self.opened.as_fd();
        let now = fstat(folder)?;
        if now.st_nlink == 0 || now.st_dev != device {
            return Err(Errno::NOENT);
        }
        // Before the mode, of which access lists are a part.
        forget(folder)?;
        if Mode::from_raw_mode(now.st_mode) != self.mode {
            fchmod(folder, self.mode)?;
        }
        clear(folder, &self.kept, device, until)
    }
}

/// Takes off what a command has written on the folder itself; most file systems have none of it.
fn forget(folder: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut room = [0_u8; 1024];
    let length = match flistxattr(folder, &mut room) {
        Err(Errno::OPNOTSUPP) => 0,
        // More than there is room for is meant to hurt: the folder is given up.
        told => told?,
    };
    let names = room[..length].split(|byte| *byte == 0);
    for name in names.filter(|name| name.starts_with(b"user.") || name.starts_with(b"system.")) {
        fremovexattr(folder, name)?;
    }
    Ok(())
}

fn mode(folder: &OwnedFd) -> Result<Mode, Errno> {
    fstat(folder).map(|data| Mode::from_raw_mode(data.st_mode))
}

/// A folder below the system's for passing files, that is the user's alone, and where it is. Its name begins with
/// `name`; nobody can guess how it ends.
pub(super) fn make(name: &str, user: &User) -> io::Result<(Scratch, PathBuf)> {
    let unforeseen = RandomState::new().build_hasher().finish();
    let path = Path::new(ABOVE).join(format!("{name}.{unforeseen:016x}"));
    mkdirat(CWD, &path, Mode::RWXU)?;
    let scratch = Scratch::open(&path, &[])?;
    if user.uid != geteuid().as_raw() {
        let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
        for folder in &scratch.folders {
            fchown(&folder.opened, Some(uid), Some(gid))?;
        }
    }
    Ok((scratch, path))
}

/// Removes all folders of ours with such a name.
pub(super) fn remove(profile: &Profile, is_ours: impl Fn(&str) -> bool) {
    let begin = group::listener(profile);
    let users = [
        Some(geteuid().as_raw()),
        profile.run_as.as_ref().map(|user| user.uid),
    ];
    for entry in std::fs::read_dir(ABOVE).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let ours = |name: &str| name.starts_with(&begin) && is_ours(name);
        if !name.to_str().is_some_and(ours) {
            continue;
        }
        let Ok(scratch) = Scratch::open(&entry.path(), &[]) else {
            continue;
        };
        // Anybody may have made one of that name.
        let owner = scratch.folders.first().and_then(Folder::owner);
        if owner.is_none() || !users.contains(&owner) {
            continue;
        }
        if scratch.clear(LAUNCHERS_PATIENCE).is_ok() {
            let _ = std::fs::remove_dir(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use rustix::fs::renameat;

    use super::*;

    fn emptied(path: &Path) -> bool {
        Scratch::open(path, &[]).unwrap().empty() && fs::read_dir(path).unwrap().next().is_none()
    }

    fn soak() -> bool {
        std::env::var_os("SWITCHBOARD_SOAK").is_some()
    }

    /// A tree of that depth, made from the bottom, as no path is that long.
    fn deep(path: &Path, depth: u32) {
        let top = openat(CWD, path, FOLDER, Mode::empty()).unwrap();
        mkdirat(&top, "0", Mode::RWXU).unwrap();
        for _ in 0..depth {
            mkdirat(&top, "1", Mode::RWXU).unwrap();
            renameat(&top, "0", &top, "1/0").unwrap();
            renameat(&top, "1", &top, "0").unwrap();
        }
    }

    #[test]
    fn trees_that_are_made_to_hurt_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, outside) = (folder.path().join("top"), folder.path().join("outside"));
        fs::create_dir(&path).unwrap();
        fs::create_dir_all(outside.join("kept")).unwrap();
        assert!(emptied(&path));
        let (depth, names) = if soak() {
            (100_000, 1_000_000)
        } else {
            (5_000, 20_000)
        };
        deep(&path, depth);
        for name in 0..names {
            fs::write(path.join(format!("n{name}")), "").unwrap();
        }
        for folder in [
            "a/b/c",
            "d",
            ".switchboard-1/x",
            ".switchboard-2",
            ".switchboard-3/x",
        ] {
            fs::create_dir_all(path.join(folder)).unwrap();
            fs::write(path.join(folder).join("file"), "x").unwrap();
        }
        fs::write(path.join(".switchboard-4"), "a name that is wanted").unwrap();
        symlink(&outside, path.join("link")).unwrap();
        symlink(&outside, path.join("a/link")).unwrap();
        for shut in ["a/b/c", "a/b", "a", "d"] {
            fs::set_permissions(path.join(shut), fs::Permissions::from_mode(0o0)).unwrap();
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o0)).unwrap();
        assert!(Scratch::open(&path, &[]).is_err() || rustix::process::geteuid().is_root());
        let mut scratch = Scratch::open(&path, &[]).unwrap();
        scratch.folders[0].mode = Mode::RWXU;
        assert!(scratch.empty());
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
        assert!(outside.join("kept").exists());
    }

    #[test]
    fn what_leads_to_something_mounted_stays_or_it_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let (path, place) = (folder.path(), folder.path().join("a/b/mounted"));
        fs::create_dir_all(place.join("kept")).unwrap();
        let inner = place.join("inner");
        let mut scratch = Scratch::open(path, &[place.clone(), inner, "/usr".into()]).unwrap();
        for left in ["a/x", "x", "a/b/x"] {
            fs::create_dir_all(path.join(left).join("y")).unwrap();
        }
        assert!(scratch.empty());
        for (folder, name) in [
            ("", "a"),
            ("a", "b"),
            ("a/b", "mounted"),
            ("a/b/mounted", "kept"),
        ] {
            let names = fs::read_dir(path.join(folder)).unwrap();
            let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(names, [name]);
        }
        fs::rename(path.join("a/b"), path.join("a/c")).unwrap();
        assert!(!scratch.empty());
    }

    #[test]
    fn what_is_written_on_the_folder_itself_goes_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
        let mut scratch = Scratch::open(path, &[]).unwrap();
        let flags = rustix::fs::XattrFlags::empty();
        for name in ["user.one", "user.two"] {
            rustix::fs::setxattr(path, name, b"left for the next", flags).unwrap();
        }
        fs::set_permissions(path, fs::Permissions::from_mode(0o1777)).unwrap();
        assert!(scratch.empty());
        assert_eq!(
            rustix::fs::getxattr(path, "user.one", &mut [0_u8; 32]),
            Err(Errno::NODATA)
        );
        assert_eq!(fs::metadata(path).unwrap().mode() & 0o7777, 0o700);
    }

    #[test]
    fn a_folder_that_is_gone_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let mut scratch = Scratch::open(folder.path(), &[]).unwrap();
        assert!(scratch.empty());
        fs::remove_dir(folder.path()).unwrap();
        assert!(!scratch.empty());
    }
}
