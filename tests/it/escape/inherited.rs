//! What a command is given to begin with: this, and no more.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::{is_root, offered};
use crate::support::{Service, Talk};

/// What the kernel tells of a process that has nothing but what it needs. Cages without seccomp have neither mode nor
/// filters.
const STATUS: [(&str, &str); 20] = [
    ("Umask", "0077"),
    ("TracerPid", "0"),
    ("Uid", "65534 65534 65534 65534"),
    ("Gid", "65534 65534 65534 65534"),
    ("Threads", "1"),
    ("SigPnd", "0000000000000000"),
    ("ShdPnd", "0000000000000000"),
    ("SigBlk", "0000000000000000"),
    ("SigIgn", "0000000000000000"),
    ("SigCgt", "0000000000000000"),
    ("CapInh", "0000000000000000"),
    ("CapPrm", "0000000000000000"),
    ("CapEff", "0000000000000000"),
    ("CapBnd", "0000000000000000"),
    ("CapAmb", "0000000000000000"),
    ("NoNewPrivs", "1"),
    ("Seccomp", "2"),
    ("Seccomp_filters", "2"),
    ("CoreDumping", "0"),
    ("untag_mask", "0xffffffffffffffff"),
];

const LIMITS: [(&str, &str); 4] = [
    ("Max core file size", "1 1 bytes"),
    ("Max open files", "200 200 files"),
    ("Max file size", "1073741824 1073741824 bytes"),
    ("Max cpu time", "7 8 seconds"),
];

fn start(tier: &str) -> Option<Service> {
    if !is_root(tier) {
        return None;
    }
    let toml = format!(
        "[listeners.shell]\nprotocol = \"shell\"\nprograms = [\"cat\", \"ls\", \"readlink\"]\nbind = \"127.0.0.1:0\"\n\
         [listeners.shell.sandbox]\nisolation = \"{tier}\"\nmin_isolation = \"none\"\nmax_open_files = 200\n\
         max_cpu_time = \"7s\"\nenvironment = {{ TZ = \"UTC\" }}\n"
    );
    let env = [
        ("SECRET", "of the service"),
        ("LD_LIBRARY_PATH", "/nowhere"),
    ];
    offered(tier, Service::start_with(&toml, &[], &env))
}

fn says(talk: &mut Talk, command: &str) -> String {
    let frame = talk.command(command);
    assert_eq!(frame.header["exit_code"], 0, "{command}: {frame:?}");
    String::from_utf8(frame.stdout).unwrap()
}

/// Lines of a name, a mark and a value, with one blank for many.
fn values(text: &str, mark: &str) -> BTreeMap<String, String> {
    let lines = text.lines().filter_map(|line| line.split_once(mark));
    let plain = |value: &str| value.split_whitespace().collect::<Vec<_>>().join(" ");
    let lines = lines.map(|(name, value)| (plain(name), plain(value)));
    lines.collect()
}

fn nothing_more_is_inherited_in(tier: &str) {
    let Some(service) = start(tier) else {
        return;
    };
    let mut talk = service.talk("shell");
    let apart = ["full", "userns"].contains(&tier);

    let status = values(&says(&mut talk, "cat /proc/self/status"), ":");
    for (name, expected) in STATUS {
        let expected = match name {
            "Seccomp" | "Seccomp_filters" if tier == "none" => "0",
            _ => expected,
        };
        // Not every kernel tells all.
        let told = status.get(name).map_or(expected, String::as_str);
        assert_eq!(told, expected, "`{tier}`: {name}");
    }
    // The last group is the one that a user namespace cannot name, where the service is in others.
    let groups = status["Groups"].as_str();
    assert!(["", "65534"].contains(&groups), "`{tier}`: groups {groups}");

    let limits = says(&mut talk, "cat /proc/self/limits");
    for (name, expected) in LIMITS {
        let line = limits.lines().find_map(|line| line.strip_prefix(name));
        let told: Vec<_> = line.unwrap().split_whitespace().collect();
        assert_eq!(told.join(" "), expected, "`{tier}`: {name}");
    }

    // Its outputs, and what it has opened itself: the folder.
    let files = values(&says(&mut talk, "ls -l /proc/self/fd"), " -> ");
    let mut files: Vec<_> = files
        .iter()
        .map(|(line, to)| (line.rsplit(' ').next().unwrap(), to.as_str()))
        .collect();
    files.retain(|(_, to)| !to.starts_with("/proc/"));
    files.sort_unstable();
    let numbers: Vec<_> = files.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, ["0", "1", "2"], "`{tier}`: {files:?}");
    assert_eq!(files[0].1, "/dev/null", "`{tier}`");
    for (_, to) in &files[1..] {
        assert!(
            to.starts_with("pipe:") || to.starts_with("socket:"),
            "`{tier}`: {to}"
        );
    }

    let folder = says(&mut talk, "readlink /proc/self/cwd");
    let folder = folder.trim_end();
    let named = |name: &str| format!("{name}={folder}");
    let environment = says(&mut talk, "cat /proc/self/environ");
    let mut environment: Vec<_> = environment.split_terminator('\0').collect();
    environment.sort_unstable();
    let path = environment.iter().find(|v| v.starts_with("PATH=")).copied();
    let (home, scratch) = (named("HOME"), named("TMPDIR"));
    let expected = [&home, path.unwrap(), &scratch, "TZ=UTC"];
    assert_eq!(environment, expected, "`{tier}`");
    assert_eq!(apart, folder == "/tmp", "`{tier}`: {folder}");
    assert!(!Path::new(folder).starts_with(service.home()), "{folder}");

    // Behind its name: state, parent, group, session, terminal; later its niceness.
    let stat = says(&mut talk, "cat /proc/self/stat");
    let (number, rest) = stat.split_once(' ').unwrap();
    let fields: Vec<_> = rest
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    assert_eq!(
        [fields[2], fields[3], fields[4]],
        [number, number, "0"],
        "`{tier}`: {stat}"
    );
    assert_eq!(fields[16], "0", "`{tier}`: its niceness");
    // Who can be traced by its own user owns its entries: commands of one session are no secret to each other.
    let owned = says(&mut talk, "ls -ldn /proc/self/environ");
    assert!(owned.contains(" 65534 65534 "), "`{tier}`: {owned}");
    let own = fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    assert_eq!(
        says(&mut talk, "cat /proc/self/oom_score_adj"),
        own,
        "`{tier}`"
    );

    for (namespace, own) in [
        ("mnt", apart),
        ("pid", apart),
        ("net", apart),
        ("ipc", apart),
        ("uts", apart),
        ("user", tier == "userns"),
    ] {
        let its = says(&mut talk, &format!("readlink /proc/self/ns/{namespace}"));
        let hosts = fs::read_link(format!("/proc/self/ns/{namespace}")).unwrap();
        let is_own = Path::new(its.trim_end()) != hosts;
        assert_eq!(is_own, own, "`{tier}`: {namespace} {its}");
    }
}

#[test]
fn nothing_more_is_inherited_than_what_is_needed() {
    for tier in ["full", "userns", "landlock", "none"] {
        nothing_more_is_inherited_in(tier);
    }
}

#[test]
fn a_command_finds_itself_in_proc() {
    for tier in ["full", "userns", "landlock", "none"] {
        let Some(service) = start(tier) else {
            continue;
        };
        let mut talk = service.talk("shell");
        // Again and again: what earlier commands have counted does not matter.
        for _ in 0..3 {
            let stat = says(&mut talk, "cat /proc/self/stat");
            let number = stat.split(' ').next().unwrap();
            if ["full", "userns"].contains(&tier)
                && Path::new("/proc/sys/kernel/ns_last_pid").exists()
            {
                assert_eq!(number, "3", "`{tier}`");
            }
            let status = values(&says(&mut talk, "cat /proc/self/status"), ":");
            let numbers: Vec<_> = status["NSpid"].split(' ').collect();
            let [.., slots, own] = numbers[..] else {
                continue;
            };
            assert_eq!(slots, own, "`{tier}`: {numbers:?}");
        }
    }
}
