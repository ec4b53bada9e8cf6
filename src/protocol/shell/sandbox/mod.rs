//! What a listener's commands are held in, as it is asked for: its keys, their defaults and bounds, and the profile of
//! the cage that they come to.

mod user;

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::Fault;
use super::{PATH, or};
use crate::cage::{Isolation, Profile, User};
use crate::config::{duration, size};
use user::{Service, known, nobody, run_as, word};

/// What a command is held in. Zero and empty mean the default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sandbox {
    /// A user's name, `uid` or `uid:gid`. Default `nobody` when the service is root, else its own user.
    pub run_as: String,
    /// Where commands start. Default their scratch directory.
    pub working_directory: PathBuf,
    /// Only these variables, `PATH`, `HOME` and `TMPDIR` reach a command.
    pub environment: BTreeMap<String, String>,
    /// Files and folders that a command may read and run, with all below them. Default: programs, their libraries and `/etc`.
    pub readable: Vec<PathBuf>,
    /// Files and folders that it may write, too. Default none: its scratch directory only.
    pub writable: Vec<PathBuf>,
    /// Whether it may use the network.
    pub network: bool,
    /// Memory of one command with its children. Default 512 MiB.
    #[serde(with = "size")]
    pub max_memory_bytes: u64,
    /// Processes and threads of one command. Default 64.
    pub max_processes: u32,
    /// Descriptors of one process. Default 256.
    pub max_open_files: u32,
    /// CPU time of one process, in whole seconds rounded up. Default unlimited.
    #[serde(with = "duration")]
    pub max_cpu_time: Duration,
    /// Commands at once. Default 4 a core.
    pub max_concurrent_commands: u32,
    /// The least that the host must offer. Default Landlock.
    pub min_isolation: Option<Isolation>,
    /// This cage and no other. Default the strongest that the host offers.
    pub isolation: Option<Isolation>,
}

/// What a command may read when nothing is said; what of it is not there is passed over.
const READABLE: [&str; 9] = [
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt",
];

const MEMORY: u64 = 512 << 20;
const PROCESSES: u32 = 64;
const OPEN_FILES: u32 = 256;

/// A shell does not start with less.
const LEAST_MEMORY: u64 = 8 << 20;
/// As many as the kernel numbers.
const MOST_PROCESSES: u32 = 4 << 20;
/// The three that every command has, and some to load programs with.
const LEAST_OPEN_FILES: u32 = 16;
/// As many as a kernel lets one process have, unless it is told otherwise.
const MOST_OPEN_FILES: u32 = 1 << 20;
/// Each that runs is two processes of ours.
const MOST_COMMANDS: u32 = 4096;
/// Bytes of all variables, and of the paths of one list, as JSON: so much goes to a launcher in one packet.
const MOST_VARIABLES: usize = 64 << 10;
const MOST_PATHS: usize = 16 << 10;

impl Sandbox {
    /// The same with every default written out. Where commands start stays empty: no file can say their scratch
    /// directory.
    pub(super) fn resolved(&self) -> Self {
        let mut resolved = self.clone();
        if Service::here().uid == 0 {
            or(&mut resolved.run_as, word(&nobody()));
        }
        or(&mut resolved.readable, READABLE.map(PathBuf::from).into());
        or(&mut resolved.max_memory_bytes, MEMORY);
        or(&mut resolved.max_processes, PROCESSES);
        or(&mut resolved.max_open_files, OPEN_FILES);
        or(&mut resolved.max_concurrent_commands, commands_at_once());
        resolved.min_isolation.get_or_insert(Isolation::Landlock);
        resolved
    }

    /// What cannot be obeyed.
    pub(super) fn check(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        if let Err(rule) = self.user() {
            faults.push(("sandbox.run_as", rule));
        }
        if !self.working_directory.as_os_str().is_empty()
            && let Some(rule) = misplaced(&self.working_directory)
        {
            faults.push(("sandbox.working_directory", rule));
        }
        let environment = wrong_environment(&self.environment);
        faults.extend(environment.map(|rule| ("sandbox.environment", rule)));
        let (readable, writable) = (wrong_paths(&self.readable), wrong_paths(&self.writable));
        faults.extend(readable.map(|rule| ("sandbox.readable", rule)));
        faults.extend(writable.map(|rule| ("sandbox.writable", rule)));
        if self.writable.iter().any(|path| path == Path::new("/")) {
            let rule = "the whole system would be no cage; name folders of it";
            faults.push(("sandbox.writable", rule.into()));
        }
        faults.extend(self.out_of_bounds());
        let minimum = self.minimum();
        if let Some(asked) = self.isolation.filter(|asked| *asked < minimum) {
            let (asked, minimum) = (asked.word(), minimum.word());
            let rule = format!(
                "\"{asked}\" is less than min_isolation, which is \"{minimum}\"; whoever wants that little sets \
                 min_isolation = \"{asked}\" too"
            );
            faults.push(("sandbox.isolation", rule));
        }
        faults
    }

    fn out_of_bounds(&self) -> impl Iterator<Item = Fault> {
        let bounds = [
            (
                "sandbox.max_memory_bytes",
                self.max_memory_bytes,
                LEAST_MEMORY..=i64::MAX as u64,
                "at least 8MiB",
            ),
            (
                "sandbox.max_processes",
                self.max_processes.into(),
                1..=MOST_PROCESSES.into(),
                "at most 4194304",
            ),
            (
                "sandbox.max_open_files",
                self.max_open_files.into(),
                LEAST_OPEN_FILES.into()..=MOST_OPEN_FILES.into(),
                "from 16 to 1048576",
            ),
            (
                "sandbox.max_concurrent_commands",
                self.max_concurrent_commands.into(),
                1..=MOST_COMMANDS.into(),
                "at most 4096",
            ),
        ];
        let wrong = |(key, asked, range, right): (
            &'static str,
            u64,
            std::ops::RangeInclusive<u64>,
            &str,
        )| {
            let wrong = asked != 0 && !range.contains(&asked);
            wrong.then(|| (key, format!("it is {right}; 0 means the default")))
        };
        bounds.into_iter().filter_map(wrong)
    }

    /// The least that the host must offer.
    fn minimum(&self) -> Isolation {
        self.min_isolation.unwrap_or(Isolation::Landlock)
    }

    /// Who its commands run as, when that is not the service's own user.
    fn user(&self) -> Result<Option<User>, String> {
        let uncaged = self.isolation == Some(Isolation::None);
        run_as(&self.run_as, uncaged, Service::here(), known)
    }

    /// The cage that its keys come to for a listener, and the least that the host must offer. It has been checked.
    pub(super) fn profile(&self, listener: &str) -> (Profile, Isolation) {
        let all = self.resolved();
        let mut environment = all.environment;
        let path = environment.entry("PATH".into());
        path.or_insert_with(|| PATH.into());
        let directory = Some(all.working_directory);
        let profile = Profile {
            listener: listener.to_owned(),
            isolation: all.isolation,
            run_as: self.user().unwrap_or_else(|_| Some(nobody())),
            working_directory: directory.filter(|place| !place.as_os_str().is_empty()),
            environment,
            readable: all.readable,
            writable: all.writable,
            network: all.network,
            max_memory_bytes: all.max_memory_bytes,
            max_processes: all.max_processes,
            max_open_files: all.max_open_files,
            max_cpu_time: all.max_cpu_time,
        };
        (profile, self.minimum())
    }

    /// Whether its commands may run without a cage: asked for by name, not come to for want of a better one.
    pub(super) fn is_off(&self) -> bool {
        self.isolation == Some(Isolation::None)
    }

    /// Whether a command may read, and so run, what stands at this path.
    pub(super) fn reaches(&self, path: &Path) -> bool {
        let resolved = self.resolved();
        let mut places = resolved.readable.iter().chain(&resolved.writable);
        self.is_off() || places.any(|place| path.starts_with(place))
    }
}

/// Four for each core.
fn commands_at_once() -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(4 * cores).map_or(MOST_COMMANDS, |count| count.min(MOST_COMMANDS))
}

/// What keeps a path from being one that a cage can be told of.
fn misplaced(path: &Path) -> Option<String> {
    let shown = path.display();
    if path.as_os_str().as_encoded_bytes().contains(&0) {
        return Some("a path has no NUL".into());
    }
    if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
        return Some(format!("`{shown}` is not an absolute path without `..`"));
    }
    None
}

/// Bytes of a value as JSON.
fn length(value: &impl Serialize) -> usize {
    serde_json::to_string(value).map_or(0, |text| text.len())
}

/// What is wrong with paths that are to be open to commands.
fn wrong_paths(paths: &[PathBuf]) -> impl Iterator<Item = String> {
    let bytes = length(&paths);
    let long = (bytes > MOST_PATHS)
        .then(|| format!("all paths have {bytes} bytes as JSON; 16KiB are possible"));
    let wrong = paths.iter().filter_map(|path| misplaced(path));
    long.into_iter().chain(wrong)
}

/// What is wrong with variables. Their values may be secrets and are not quoted.
fn wrong_environment(environment: &BTreeMap<String, String>) -> impl Iterator<Item = String> {
    let bytes = length(environment);
    let long = (bytes > MOST_VARIABLES)
        .then(|| format!("all variables have {bytes} bytes as JSON; 64KiB are possible"));
    let wrong = environment.iter().filter_map(|(name, value)| {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Some(format!(
                "`{}` is no variable's name: it is empty, or has a `=` or a NUL",
                name.escape_debug()
            ));
        }
        if name.starts_with("LD_") {
            return Some(format!(
                "`{name}` tells every program what to load; no variable LD_* is passed on"
            ));
        }
        let nul = value.contains('\0');
        nul.then(|| format!("the value of `{}` has a NUL", name.escape_debug()))
    });
    long.into_iter().chain(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(asked: serde_json::Value) -> Vec<Fault> {
        let sandbox: Sandbox = serde_json::from_value(asked).unwrap();
        sandbox.check()
    }

    #[test]
    fn what_no_cage_can_be_is_said_by_key() {
        use serde_json::json;
        let long = "x".repeat(MOST_VARIABLES);
        for (asked, key, words) in [
            (
                json!({"run_as": "no-such-user"}),
                "run_as",
                "has no user `no-such-user`",
            ),
            (
                json!({"run_as": "4294967295:1"}),
                "run_as",
                "is no user's or group's number",
            ),
            (
                json!({"run_as": "4242424242"}),
                "run_as",
                "\"4242424242:4242424242\"",
            ),
            (json!({"run_as": "1:2:3"}), "run_as", "`uid:gid` is right"),
            (
                json!({"working_directory": "srv"}),
                "working_directory",
                "not an absolute path",
            ),
            (
                json!({"readable": ["usr"]}),
                "readable",
                "`usr` is not an absolute path",
            ),
            (
                json!({"readable": ["/usr/../root"]}),
                "readable",
                "without `..`",
            ),
            (json!({"readable": ["/a\u{0}b"]}), "readable", "no NUL"),
            (
                json!({"readable": [""]}),
                "readable",
                "not an absolute path",
            ),
            (json!({"writable": ["/"]}), "writable", "no cage"),
            (
                json!({"writable": [format!("/{long}")]}),
                "writable",
                "16KiB are possible",
            ),
            (
                json!({"environment": {"A=B": ""}}),
                "environment",
                "`A=B` is no variable's name",
            ),
            (
                json!({"environment": {"": ""}}),
                "environment",
                "is no variable's name",
            ),
            (
                json!({"environment": {"A": "hush\u{0}"}}),
                "environment",
                "the value of `A` has a NUL",
            ),
            (
                json!({"environment": {"LD_PRELOAD": "x"}}),
                "environment",
                "no variable LD_*",
            ),
            (
                json!({"environment": {"A": long}}),
                "environment",
                "64KiB are possible",
            ),
            (
                json!({"max_memory_bytes": "7MiB"}),
                "max_memory_bytes",
                "at least 8MiB",
            ),
            (
                json!({"max_memory_bytes": u64::MAX}),
                "max_memory_bytes",
                "at least 8MiB",
            ),
            (
                json!({"max_processes": 5_000_000}),
                "max_processes",
                "at most 4194304",
            ),
            (json!({"max_open_files": 15}), "max_open_files", "from 16"),
            (
                json!({"max_concurrent_commands": 5000}),
                "max_concurrent_commands",
                "at most 4096",
            ),
            (
                json!({"isolation": "none"}),
                "isolation",
                "min_isolation = \"none\" too",
            ),
            (
                json!({"isolation": "userns", "min_isolation": "full"}),
                "isolation",
                "which is \"full\"",
            ),
        ] {
            let faults = wrong(asked.clone());
            let [(found, message)] = &faults[..] else {
                panic!("{asked}: {faults:?}")
            };
            assert_eq!(*found, format!("sandbox.{key}"), "{asked}");
            assert!(message.contains(words), "{asked}: {message}");
            assert!(!message.contains("hush"));
        }
    }

    #[test]
    fn a_program_has_a_name() {
        let wrong = |program: &str| {
            let settings = super::super::Settings {
                programs: vec![program.to_owned()],
                ..Default::default()
            };
            let bind = "127.0.0.1:0".parse().unwrap();
            !settings.check(bind, &Default::default()).is_empty()
        };
        for program in ["", "/", "..", "/usr/..", "./ls", "bin/ls", "l\0s"] {
            assert!(wrong(program), "{program:?}");
        }
        for program in ["ls", "/usr/bin/ls", "[", "a b"] {
            assert!(!wrong(program), "{program:?}");
        }
    }

    #[test]
    fn a_cage_is_as_it_is_asked_for() {
        let asked = serde_json::json!({
            "working_directory": "/srv", "environment": {"TZ": "UTC"}, "writable": ["/srv"],
            "max_processes": 3, "isolation": "landlock",
        });
        let sandbox: Sandbox = serde_json::from_value(asked).unwrap();
        assert_eq!(sandbox.check(), []);
        let (profile, minimum) = sandbox.profile("sh");
        assert_eq!((&*profile.listener, minimum), ("sh", Isolation::Landlock));
        assert_eq!(profile.isolation, Some(Isolation::Landlock));
        assert_eq!(
            profile.working_directory.as_deref(),
            Some(Path::new("/srv"))
        );
        assert_eq!(profile.environment["TZ"], "UTC");
        assert_eq!(profile.environment["PATH"], PATH);
        assert_eq!(profile.readable, READABLE.map(PathBuf::from));
        assert_eq!(
            (profile.max_processes, profile.max_open_files),
            (3, OPEN_FILES)
        );
        let plain = Sandbox::default().profile("sh").0;
        assert_eq!((plain.isolation, plain.working_directory), (None, None));
        assert!(!plain.network && plain.max_cpu_time.is_zero());
    }

    #[test]
    fn a_command_reaches_what_it_may_read_and_nothing_beside() {
        let reaches = |sandbox: &Sandbox, path| sandbox.reaches(Path::new(path));
        let plain = Sandbox::default();
        assert!(reaches(&plain, "/usr/bin/env") && reaches(&plain, "/bin/sh"));
        assert!(!reaches(&plain, "/usr2/bin/env") && !reaches(&plain, "/root/tool"));
        let narrow = Sandbox {
            readable: vec!["/srv/a".into()],
            writable: vec!["/srv/b".into()],
            ..Sandbox::default()
        };
        assert!(reaches(&narrow, "/srv/a") && reaches(&narrow, "/srv/b/x"));
        assert!(!reaches(&narrow, "/bin/sh"));
    }
}
