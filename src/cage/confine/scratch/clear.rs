//! Empties a folder, whatever is in it.
//!
//! What a command leaves may be made to hurt: a tree deeper than any path, folders that nobody may enter, a million
//! names, links to elsewhere. Nothing is followed, and nothing is remembered of the way down: what a folder holds is
//! taken out to the top before it is removed, so that a few descriptors and two buffers are enough for any tree.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::fs::{
    AtFlags, FileType, Mode, RawDir, SeekFrom, chmodat, fchmod, fstat, openat, renameat, seek,
    unlinkat,
};
use rustix::io::Errno;

use super::FOLDER;

/// Names are read by this many bytes at a time.
const NAMES: usize = 16 * 1024;

/// Removes all that is in `top`, which is on that device, but what is kept. Fails when some of that is gone, as it does
/// at whatever is mounted elsewhere: that has been moved there.
pub(super) fn clear(
    top: BorrowedFd<'_>,
    kept: &[CString],
    device: u64,
    until: Instant,
) -> Result<(), Errno> {
    let (mut raised, mut done) = (0, 0);
    loop {
        let (mut clean, mut there) = (true, 0);
        each(top, |name, kind| {
            if kept.iter().any(|kept| kept.as_c_str() == name) {
                there += 1;
                return Ok(());
            }
            clean = false;
            let remove = |name: &CStr, kind, raised: &mut u64| {
                if Instant::now() > until {
                    return Err(Errno::TIME);
                }
                take(top, name, kind, &mut |folder| {
                    hoist(top, folder, device, raised)
                })
            };
            remove(name, kind, &mut raised)?;
            // By their names, as looking for them in a folder that was large takes long.
            while done < raised {
                done += 1;
                remove(&free(done)?, FileType::Unknown, &mut raised)?;
            }
            Ok(())
        })?;
        match clean {
            true if there == kept.len() => return Ok(()),
            true => return Err(Errno::NOENT),
            false => {}
        }
    }
}

/// The name of the folder that is raised as that.
fn free(raised: u64) -> Result<CString, Errno> {
    CString::new(format!(".switchboard-{raised:x}")).map_err(|_| Errno::INVAL)
}

/// Calls `with` for every name in a folder but its own two.
fn each(
    folder: BorrowedFd<'_>,
    mut with: impl FnMut(&CStr, FileType) -> Result<(), Errno>,
) -> Result<(), Errno> {
    seek(folder, SeekFrom::Start(0))?;
    let mut room = [MaybeUninit::uninit(); NAMES];
    let mut entries = RawDir::new(folder, &mut room);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            with(name, entry.file_type())?;
        }
    }
    Ok(())
}

/// Removes one name of `folder`; of a folder that is not empty, `inside` is asked to see to that.
fn take(
    folder: BorrowedFd<'_>,
    name: &CStr,
    kind: FileType,
    inside: &mut dyn FnMut(OwnedFd) -> Result<(), Errno>,
) -> Result<(), Errno> {
    if kind != FileType::Directory {
        match unlinkat(folder, name, AtFlags::empty()) {
            // Some file systems do not tell what is a folder.
            Err(Errno::ISDIR | Errno::PERM) if kind == FileType::Unknown => {}
            Err(Errno::NOENT) => return Ok(()),
            done => return done,
        }
    }
    let remove = || match unlinkat(folder, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOENT) => Ok(()),
        done => done,
    };
    match remove() {
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        done => return done,
    }
    inside(enter(folder, name)?)?;
    remove()
}

/// Opens a folder, even one that its owner has shut.
fn enter(folder: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let open = || openat(folder, name, FOLDER, Mode::empty());
    let opened = match open() {
        Err(Errno::ACCESS) => {
            chmodat(folder, name, Mode::RWXU, AtFlags::empty())?;
            open()?
        }
        opened => opened?,
    };
    let mode = Mode::from_raw_mode(fstat(&opened)?.st_mode);
    if !mode.contains(Mode::RWXU) {
        fchmod(&opened, Mode::RWXU)?;
    }
    Ok(opened)
}

/// Empties a folder: files go, and folders that are not empty move to the top.
fn hoist(top: BorrowedFd<'_>, folder: OwnedFd, device: u64, raised: &mut u64) -> Result<(), Errno> {
    on(device, &folder)?;
    each(folder.as_fd(), |name, kind| {
        take(folder.as_fd(), name, kind, &mut |inner| {
            on(device, &inner)?;
            raise(top, folder.as_fd(), name, raised)
        })
    })
}

fn on(device: u64, folder: &OwnedFd) -> Result<(), Errno> {
    match fstat(folder)?.st_dev == device {
        true => Ok(()),
        false => Err(Errno::XDEV),
    }
}

/// Moves a folder to the top, under a name that is free there.
fn raise(
    top: BorrowedFd<'_>,
    folder: BorrowedFd<'_>,
    name: &CStr,
    raised: &mut u64,
) -> Result<(), Errno> {
    loop {
        *raised += 1;
        match renameat(folder, name, top, free(*raised)?) {
            // Somebody has foreseen that name.
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
            done => return done,
        }
    }
}
