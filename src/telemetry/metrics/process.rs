//! The process's own figures, read from `/proc/self` at each collection.
//!
//! A figure that cannot be read (another system, a hidden `/proc`) is left out: a missing series is honest, a zero is not.

use super::super::instruments::Instrument;
use super::Sink;
use rustix::process::{Resource, getrlimit};
use std::collections::HashMap;
use std::fs;
use std::time::Duration;

/// Observes what is known of this process, which has run for `uptime`.
pub(super) fn observe(sink: &mut dyn Sink, uptime: Duration, switches: &mut Switches) {
    let mut put = |what, attribute, value: f64| sink.observe(what, None, attribute, value);
    put(Instrument::ProcessUptime, None, uptime.as_secs_f64());
    let stat = fs::read_to_string("/proc/self/stat");
    if let Some(stat) = stat.ok().as_deref().and_then(parse_stat) {
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        for (mode, spent) in [("user", stat.user_ticks), ("system", stat.system_ticks)] {
            put(Instrument::ProcessCpuTime, Some(mode), spent as f64 / ticks);
        }
        put(Instrument::ProcessThreadCount, None, stat.threads as f64);
        let resident = stat.resident_pages as f64 * rustix::param::page_size() as f64;
        put(Instrument::ProcessMemoryUsage, None, resident);
        for (kind, faults) in [("major", stat.major_faults), ("minor", stat.minor_faults)] {
            put(Instrument::ProcessPagingFaults, Some(kind), faults as f64);
        }
    }
    if let Ok(entries) = fs::read_dir("/proc/self/fd") {
        // One of them is the directory that is being read.
        let open = entries.count().saturating_sub(1);
        put(Instrument::ProcessOpenFiles, None, open as f64);
    }
    if let Some(most) = getrlimit(Resource::Nofile).current {
        put(Instrument::ProcessOpenFilesLimit, None, most as f64);
    }
    if let Some([voluntary, involuntary]) = switches.read() {
        let what = Instrument::ProcessContextSwitches;
        put(what, Some("voluntary"), voluntary as f64);
        put(what, Some("involuntary"), involuntary as f64);
    }
}

/// Context switches, which the kernel tells thread by thread: what a thread came to by the last collection before it
/// ended stays counted.
#[derive(Debug, Default)]
pub(super) struct Switches {
    ended: [u64; 2],
    living: HashMap<String, [u64; 2]>,
}

impl Switches {
    /// The voluntary ones and the others, of all threads so far.
    fn read(&mut self) -> Option<[u64; 2]> {
        let threads = fs::read_dir("/proc/self/task").ok()?.flatten();
        let living = threads.filter_map(|thread| {
            let text = fs::read_to_string(thread.path().join("status")).ok()?;
            let name = thread.file_name().to_string_lossy().into_owned();
            Some((name, parse_status(&text)?))
        });
        Some(self.take(living.collect()))
    }

    fn take(&mut self, living: HashMap<String, [u64; 2]>) -> [u64; 2] {
        let before = std::mem::replace(&mut self.living, living);
        for (thread, counts) in before {
            // One that counts less than before is another thread of the same number.
            let goes_on = self
                .living
                .get(&thread)
                .is_some_and(|now| now[0] >= counts[0]);
            if !goes_on {
                add(&mut self.ended, counts);
            }
        }
        let mut sum = self.ended;
        self.living
            .values()
            .for_each(|counts| add(&mut sum, *counts));
        sum
    }
}

fn add(sum: &mut [u64; 2], counts: [u64; 2]) {
    sum[0] += counts[0];
    sum[1] += counts[1];
}

/// Reads the last two lines of a thread's `status` (proc_pid_status(5)).
fn parse_status(text: &str) -> Option<[u64; 2]> {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line?.trim().parse().ok()
    };
    Some([
        field("voluntary_ctxt_switches:")?,
        field("nonvoluntary_ctxt_switches:")?,
    ])
}

#[derive(Debug, PartialEq)]
struct Stat {
    minor_faults: u64,
    major_faults: u64,
    user_ticks: u64,
    system_ticks: u64,
    threads: u64,
    resident_pages: u64,
}

/// Reads `/proc/self/stat` (proc_pid_stat(5)). The second field is the program's name in parentheses, which may itself
/// hold spaces and parentheses, so fields are counted from the last one.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, after_name) = text.rsplit_once(')')?;
    let fields: Vec<&str> = after_name.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse().ok();
    Some(Stat {
        minor_faults: field(10)?,
        major_faults: field(12)?,
        user_ticks: field(14)?,
        system_ticks: field(15)?,
        threads: field(20)?,
        resident_pages: field(24)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_switches_of_a_thread_that_ended_stay_counted() {
        let text = "Name:\ta\nvoluntary_ctxt_switches:\t150\nnonvoluntary_ctxt_switches:\t7\n";
        assert_eq!(parse_status(text), Some([150, 7]));
        assert_eq!(parse_status("Name:\ta\n"), None);
        let mut switches = Switches::default();
        let mut take = |of: &[(&str, [u64; 2])]| {
            let living = of
                .iter()
                .map(|(name, counts)| (String::from(*name), *counts));
            switches.take(living.collect())
        };
        assert_eq!(take(&[("1", [10, 1]), ("2", [5, 0])]), [15, 1]);
        assert_eq!(take(&[("1", [12, 1])]), [17, 1]);
        // Another thread of the same number.
        assert_eq!(take(&[("1", [12, 1]), ("2", [1, 0])]), [18, 1]);
        assert_eq!(take(&[("1", [3, 0]), ("2", [1, 0])]), [21, 1]);
    }

    #[test]
    fn a_program_name_cannot_shift_the_fields() {
        let text = "42 (a) 9 (b) S 1 1 1 0 -1 4194560 100 0 0 0 250 130 0 0 20 0 7 0 100 1000000 321 18446744073709551615";
        let stat = parse_stat(text).unwrap();
        assert_eq!(
            stat,
            Stat {
                minor_faults: 100,
                major_faults: 0,
                user_ticks: 250,
                system_ticks: 130,
                threads: 7,
                resident_pages: 321
            }
        );
        assert_eq!(parse_stat("42 (cut short) S 1"), None);
        assert_eq!(parse_stat(""), None);
    }
}
