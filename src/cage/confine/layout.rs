//! What the new root of a slot holds: which of the host's files and folders, and the links that lead to them.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::cage::Profile;

/// The folder of a command's own, in a root of its own.
pub(super) const SCRATCH: &str = "/tmp";

/// What every root has made for it.
const OWN: [&str; 3] = ["/dev", "/proc", SCRATCH];

/// The devices that everybody may use.
pub(super) const DEVICES: [&str; 5] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/urandom",
    "/dev/random",
];

/// What can be read when nothing is listed: programs, what they are made of, and how the system is set up.
const READABLE: [&str; 9] = [
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt",
];

/// More links than this one after another lead nowhere.
const MOST_LINKS: u32 = 40;

/// What commands may read: what is listed, and where they start.
pub(super) fn readable(profile: &Profile) -> Vec<PathBuf> {
    let listed = match profile.readable.as_slice() {
        [] => READABLE.map(PathBuf::from).to_vec(),
        listed => listed.to_vec(),
    };
    listed
        .into_iter()
        .chain(profile.working_directory.clone())
        .collect()
}

/// What is bound into a new root, and the links there.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    /// Where each is, on the host and in the root alike, and whether it may be written to. A folder comes before what
    /// is in it.
    pub(super) bound: BTreeMap<PathBuf, bool>,
    /// Where each is, and what it says.
    pub(super) links: BTreeMap<PathBuf, PathBuf>,
}

/// What a path is on the host.
enum Seen {
    Link(PathBuf),
    Other,
}

fn look(path: &Path) -> Option<Seen> {
    let kind = fs::symlink_metadata(path).ok()?.file_type();
    if kind.is_symlink() {
        return fs::read_link(path).ok().map(Seen::Link);
    }
    Some(Seen::Other)
}

/// The layout for a profile, as the host's files are now.
pub(super) fn layout(profile: &Profile) -> Layout {
    lay_out(&readable(profile), &profile.writable, look)
}

fn lay_out(
    readable: &[PathBuf],
    writable: &[PathBuf],
    look: impl Fn(&Path) -> Option<Seen>,
) -> Layout {
    let mut layout = Layout::default();
    let listed = |paths: &[PathBuf], write| {
        paths
            .iter()
            .map(move |path| (path.clone(), write))
            .collect::<Vec<_>>()
    };
    for (path, write) in [listed(readable, false), listed(writable, true)].concat() {
        let Some((real, links)) = resolve(&path, &look) else {
            continue;
        };
        if OWN.iter().any(|own| real == Path::new(own)) || real.starts_with("/proc") {
            continue;
        }
        layout.links.extend(links);
        *layout.bound.entry(real).or_default() |= write;
    }
    let bound = layout.bound.clone();
    // The nearest folder above that is bound, if any.
    let above = |path: &Path| {
        path.ancestors()
            .skip(1)
            .find_map(|folder| bound.get(folder))
    };
    let in_own = |path: &Path| OWN.iter().any(|own| path.starts_with(own));
    // Bound with all below it.
    layout
        .bound
        .retain(|path, write| in_own(path) || above(path) != Some(write));
    layout
        .links
        .retain(|path, _| !in_own(path) && above(path).is_none());
    layout
}

/// Where a path leads to, and the links on the way; none when it leads nowhere.
fn resolve(
    path: &Path,
    look: impl Fn(&Path) -> Option<Seen>,
) -> Option<(PathBuf, Vec<(PathBuf, PathBuf)>)> {
    if !path.is_absolute() {
        return None;
    }
    let names = |path: &Path| -> Vec<OsString> {
        let parts = path.components().filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsString::from("..")),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        });
        parts.collect()
    };
    let (mut at, mut links) = (PathBuf::from("/"), Vec::new());
    let mut rest: VecDeque<_> = names(path).into();
    while let Some(name) = rest.pop_front() {
        if name == ".." {
            at.pop();
            continue;
        }
        at.push(name);
        let Seen::Link(to) = look(&at)? else {
            continue;
        };
        links.push((at.clone(), to.clone()));
        if links.len() > MOST_LINKS as usize {
            return None;
        }
        if to.is_absolute() {
            at = PathBuf::from("/");
        } else {
            at.pop();
        }
        for name in names(&to).into_iter().rev() {
            rest.push_front(name);
        }
    }
    Some((at, links))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host with the files and links of `tree`, `link>to`; every folder on the way is there.
    fn laid_out(readable: &[&str], writable: &[&str], tree: &[&str]) -> (Vec<String>, Vec<String>) {
        let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
        let look = |path: &Path| {
            let links = tree.iter().filter_map(|entry| entry.split_once('>'));
            for (from, to) in links {
                if path == Path::new(from) {
                    return Some(Seen::Link(to.into()));
                }
            }
            let there = tree.iter().any(|entry| Path::new(entry).starts_with(path));
            there.then_some(Seen::Other)
        };
        let layout = lay_out(&paths(readable), &paths(writable), look);
        let bound = layout.bound.iter();
        let bound = bound
            .map(|(path, write)| format!("{}{}", path.display(), if *write { "+" } else { "" }));
        let links = layout.links.iter();
        let links = links.map(|(from, to)| format!("{}>{}", from.display(), to.display()));
        (bound.collect(), links.collect())
    }

    #[test]
    fn a_link_is_there_and_what_it_leads_to() {
        let tree = ["/usr/bin/sh", "/bin>usr/bin", "/sbin>/bin", "/loop>/loop"];
        let (bound, links) = laid_out(&["/sbin", "/loop", "/none", "usr"], &[], &tree);
        assert_eq!(bound, ["/usr/bin"]);
        assert_eq!(links, ["/bin>usr/bin", "/sbin>/bin"]);
        let (bound, links) = laid_out(&["/usr", "/bin/sh"], &[], &tree);
        assert_eq!(
            (bound, links),
            (vec!["/usr".into()], vec!["/bin>usr/bin".into()])
        );
    }

    #[test]
    fn what_a_bound_folder_holds_is_bound_with_it() {
        let tree = ["/a/b/c", "/a/d", "/a/l>b"];
        assert_eq!(
            laid_out(&["/a", "/a/b/c", "/a/l"], &[], &tree),
            (vec!["/a".into()], vec![])
        );
        // Not with other rights.
        assert_eq!(
            laid_out(&["/a", "/a/b/c"], &["/a/b"], &tree).0,
            ["/a", "/a/b+", "/a/b/c"]
        );
        // Writing is reading too.
        assert_eq!(laid_out(&["/a"], &["/a"], &tree).0, ["/a+"]);
    }

    #[test]
    fn what_a_root_has_of_its_own_is_nobody_elses() {
        let tree = [
            "/tmp/x/y",
            "/proc/sys",
            "/dev/kvm",
            "/dev/fd>/proc/self/fd",
            "/x",
        ];
        let listed = [
            "/",
            "/tmp",
            "/tmp/x",
            "/proc",
            "/proc/sys",
            "/dev",
            "/dev/kvm",
            "/x",
        ];
        // Bound though all is: it lies below a folder that covers the host's.
        assert_eq!(
            laid_out(&listed, &[], &tree),
            (vec!["/".into(), "/dev/kvm".into(), "/tmp/x".into()], vec![])
        );
        assert_eq!(laid_out(&["/../x/../tmp/x/y"], &[], &tree).0, ["/tmp/x/y"]);
    }
}
