//! Makes the root that a slot's commands see: what they may read and write of the host, and devices, processes and a
//! folder for passing files of their own. Nothing else of the host can be named in it.
//!
//! It is built over /proc, which is the one folder that is there on any host and that nothing in the new root is taken
//! from, so that all that is bound can be named as the host has it.

use std::ffi::CString;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind_recursive, mount_change,
    unmount,
};
use rustix::process::{chdir, pivot_root};

use super::Step;
use super::layout::{DEVICES, Layout, SCRATCH, layout};
use crate::cage::kernel::{Without, restrict_mount};
use crate::cage::{Failure, Profile, User};

/// Where the new root is put together.
const STAGE: &str = "/proc";

/// What a command's folder takes at most, which counts as its memory: bytes, and files.
const SCRATCH_BYTES: u64 = 64 << 20;
const SCRATCH_FILES: u64 = 16 * 1024;

/// Makes the new root and leaves the old one for good. Returns what is mounted there.
pub(super) fn enter(profile: &Profile, user: &User) -> Result<Vec<PathBuf>, Failure> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).step("make mounts private")?;
    let layout = layout(profile);
    base(&layout)?;
    devices().step("make /dev")?;
    processes()?;
    scratch(user)?;
    for (path, writable) in &layout.bound {
        if path != Path::new("/") {
            bind(path, *writable).step(format!("bind {}", path.display()))?;
        }
    }
    for (path, to) in &layout.links {
        let at = staged(path);
        parents(&at)
            .and_then(|()| symlink(to, &at))
            .step(format!("link {}", path.display()))?;
    }
    for folder in ["/dev", "/"] {
        if layout.bound.get(Path::new(folder)) != Some(&true) {
            let without = Without {
                writing: true,
                devices: false,
                below: false,
            };
            restrict_mount(&staged(Path::new(folder)), without)
                .step(format!("make {folder} read-only"))?;
        }
    }
    // The old root lands on top of the new one, and is taken off.
    chdir(STAGE).step("enter the new root")?;
    pivot_root(".", ".").step("pivot_root")?;
    unmount(".", UnmountFlags::DETACH).step("leave the old root")?;
    chdir("/").step("enter the new root")?;
    Ok(layout.bound.into_keys().collect())
}

/// Where a path of the new root is while that is made.
fn staged(path: &Path) -> PathBuf {
    Path::new(STAGE).join(path.strip_prefix("/").unwrap_or(path))
}

fn base(layout: &Layout) -> Result<(), Failure> {
    let Some(writable) = layout.bound.get(Path::new("/")) else {
        tmpfs("/", "mode=0755,size=1m,nr_inodes=4096")?;
        for own in ["/dev", "/proc", SCRATCH] {
            folder(&staged(Path::new(own))).step(format!("make {own}"))?;
        }
        return Ok(());
    };
    mount_bind_recursive("/", STAGE)
        .map_err(io::Error::from)
        .and_then(|()| {
            let without = Without {
                writing: !writable,
                devices: true,
                below: true,
            };
            restrict_mount(Path::new(STAGE), without)
        })
        .step("bind /")
}

fn tmpfs(at: &str, options: &str) -> Result<(), Failure> {
    let options = CString::new(options).map_err(io::Error::from);
    let options = options.step("write the options of a tmpfs")?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount("tmpfs", staged(Path::new(at)), "tmpfs", flags, &*options)
        .step(format!("mount a tmpfs on {at}"))
}

fn devices() -> io::Result<()> {
    let dev = staged(Path::new("/dev"));
    mount(
        "tmpfs",
        &dev,
        "tmpfs",
        MountFlags::NOSUID | MountFlags::NOEXEC,
        c"mode=0755,size=64k,nr_inodes=1024",
    )?;
    for device in DEVICES {
        bind(Path::new(device), true)?;
    }
    for (name, to) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        // Shared memory by name is a file like any other.
        ("shm", SCRATCH),
    ] {
        symlink(to, dev.join(name))?;
    }
    Ok(())
}

/// The processes of the slot, and of those no more than the command's own. Read-only, as whole: what is written there
/// sets up the host, or the process itself in ways that are not a command's to choose.
fn processes() -> Result<(), Failure> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::RDONLY;
    let at = staged(Path::new("/proc"));
    mount("proc", at, "proc", flags, c"hidepid=2").step("mount /proc")
}

fn scratch(user: &User) -> Result<(), Failure> {
    let User { uid, gid, .. } = user;
    let options =
        format!("mode=0700,uid={uid},gid={gid},size={SCRATCH_BYTES},nr_inodes={SCRATCH_FILES}");
    tmpfs(SCRATCH, &options)
}

/// Binds a path of the host, with all that is mounted below it, to the same place in the new root.
fn bind(path: &Path, writable: bool) -> io::Result<()> {
    let at = staged(path);
    mount_point(&at, fs::metadata(path)?.is_dir())?;
    mount_bind_recursive(path, &at)?;
    let without = Without {
        writing: !writable,
        devices: !path.starts_with("/dev"),
        below: true,
    };
    restrict_mount(&at, without)
}

/// Something to mount on; in a folder that is bound itself it is there.
fn mount_point(at: &Path, is_folder: bool) -> io::Result<()> {
    if at.symlink_metadata().is_ok() {
        return Ok(());
    }
    parents(at)?;
    if is_folder {
        return folder(at);
    }
    File::create_new(at).map(drop)
}

fn parents(at: &Path) -> io::Result<()> {
    at.parent().map_or(Ok(()), folder)
}

fn folder(at: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(at)
}
