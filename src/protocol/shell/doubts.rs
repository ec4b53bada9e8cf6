//! What a shell listener may be told and is seldom meant to be.

use std::path::{Path, PathBuf};

use super::super::Fault;
use super::{PATH, Policy, Settings};
use crate::cage::Isolation;

impl Settings {
    /// What somebody should know of it: the key, and what it comes to.
    pub(in crate::protocol) fn doubts(&self) -> Vec<Fault> {
        let mut doubts = Vec::new();
        let (sandbox, user) = (&self.sandbox, self.sandbox.resolved().run_as);
        if sandbox.is_off() {
            let whose = match &*user {
                "" => "the user of the service",
                user => user,
            };
            let doubt = format!(
                "commands run without a cage, as {whose}: what that user may do to files, processes and the network, \
                 anybody may who can connect"
            );
            doubts.push(("sandbox.isolation", doubt));
        } else if sandbox.isolation.is_none() && sandbox.min_isolation == Some(Isolation::None) {
            let doubt = "where the host offers no cage, commands run without one";
            doubts.push(("sandbox.min_isolation", doubt.into()));
        }
        let beyond = self.needed().into_iter().filter(|path| !self.reaches(path));
        doubts.extend(beyond.map(|path| {
            let key = match self.policy {
                Policy::Any => "sandbox.readable",
                Policy::Programs => "programs",
            };
            let path = path.display();
            let doubt = format!(
                "no command can read {path}, which is not in or below a path of sandbox.readable"
            );
            (key, doubt)
        }));
        doubts
    }

    /// The programs that are to be run, as far as they are there.
    fn needed(&self) -> Vec<PathBuf> {
        let asked = match self.policy {
            Policy::Any => return vec!["/bin/sh".into()],
            Policy::Programs => self.programs.iter(),
        };
        let place = |program: &String| match program.starts_with('/') {
            true => Some(PathBuf::from(program)),
            false => PATH
                .split(':')
                .map(|folder| Path::new(folder).join(program))
                .find(|path| path.is_file()),
        };
        asked.filter_map(place).collect()
    }

    /// Whether a command can read a program, and what it leads to.
    fn reaches(&self, program: &Path) -> bool {
        let real = program.canonicalize();
        let sandbox = &self.sandbox;
        sandbox.reaches(program) && real.map_or(true, |real| sandbox.reaches(&real))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doubts(asked: &str) -> Vec<Fault> {
        toml::from_str::<Settings>(asked).unwrap().doubts()
    }

    #[test]
    fn a_cage_that_is_off_is_said_aloud() {
        let off =
            doubts("policy = \"any\"\n[sandbox]\nisolation = \"none\"\nmin_isolation = \"none\"");
        let [("sandbox.isolation", said)] = &off[..] else {
            panic!("{off:?}")
        };
        assert!(said.contains("without a cage"), "{said}");
        let may_be = doubts("policy = \"any\"\n[sandbox]\nmin_isolation = \"none\"");
        assert_eq!(may_be[0].0, "sandbox.min_isolation");
    }

    #[test]
    fn what_commands_cannot_read_they_cannot_run() {
        assert_eq!(doubts("policy = \"any\""), []);
        assert_eq!(
            doubts("programs = [\"echo\", \"/usr/bin/env\", \"no-such-program\"]"),
            []
        );
        let narrow = doubts("policy = \"any\"\n[sandbox]\nreadable = [\"/srv\"]");
        assert_eq!(narrow[0].0, "sandbox.readable");
        assert!(narrow[0].1.contains("/bin/sh"));
        let elsewhere = doubts("programs = [\"/srv/tool\"]");
        assert_eq!(elsewhere[0].0, "programs");
        assert!(elsewhere[0].1.contains("/srv/tool"));
    }
}
