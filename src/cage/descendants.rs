//! Who is left of a command that has no PID namespace: children of this process, to which orphans fall as well.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::process::{Pid, Signal, getpgid, kill_process};

use super::kernel::wait::{Waited, wait};

/// How often nobody is found before there is nobody, where others stay.
const LOOKS: u32 = 3;

/// The list of this process's children that the kernel keeps.
pub(super) struct Children(File);

impl Children {
    /// Opens it; it can be read when files can no longer be opened.
    pub(super) fn open() -> io::Result<Self> {
        let thread = rustix::thread::gettid().as_raw_nonzero();
        File::open(format!("/proc/self/task/{thread}/children")).map(Self)
    }

    /// Kills them and all that falls to us by their deaths, until there is nobody but `except`. Whoever is a child has
    /// not been reaped, so that its number cannot be another's.
    pub(super) fn kill(&self, except: &[Pid]) {
        let mut looks = 0;
        loop {
            let children = self.read();
            let doomed: Vec<Pid> = children
                .into_iter()
                .filter(|pid| !except.contains(pid))
                .collect();
            if doomed.is_empty() {
                // The list leaves some out while others end. Only `wait` knows for sure that there is nobody; beside those
                // who are to stay it is looked at again.
                looks += 1;
                match wait(None, false) {
                    Waited::Ended(..) => continue,
                    Waited::Later if except.is_empty() || looks < LOOKS => continue,
                    Waited::Later | Waited::Nobody => return,
                }
            }
            for pid in &doomed {
                // It fails when it has just ended, which is what was wanted.
                let _ = kill_process(*pid, Signal::KILL);
            }
            for pid in doomed {
                let (Waited::Ended(..) | Waited::Later | Waited::Nobody) = wait(Some(pid), true);
            }
        }
    }

    /// Asks them to end, but those of this process group, which is asked as one.
    pub(super) fn terminate(&self, but: Option<Pid>) {
        for pid in self.read() {
            if but.is_none_or(|group| getpgid(Some(pid)) != Ok(group)) {
                // It fails when it has just ended, which is what was wanted.
                let _ = kill_process(pid, Signal::TERM);
            }
        }
    }

    fn read(&self) -> Vec<Pid> {
        let (mut text, mut at) = (Vec::new(), 0);
        let mut room = [0; 4096];
        while let Ok(count @ 1..) = self.0.read_at(&mut room, at) {
            text.extend_from_slice(&room[..count]);
            at += count as u64;
        }
        let text = String::from_utf8_lossy(&text);
        let numbers = text
            .split_ascii_whitespace()
            .filter_map(|number| number.parse().ok());
        numbers.filter_map(Pid::from_raw).collect()
    }
}
