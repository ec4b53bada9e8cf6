//! The process's own figures, read from `/proc/self` at each collection.
//!
//! A figure that cannot be read (another system, a hidden `/proc`) is left out: a missing series is honest, a zero is not.

use super::instruments::Instrument;
use super::metrics::Sink;
use std::fs;
use std::time::Duration;

/// Observes what is known of this process, which has run for `uptime`.
pub(super) fn observe(sink: &mut dyn Sink, uptime: Duration) {
    sink.observe(Instrument::ProcessUptime, None, None, uptime.as_secs_f64());
    if let Some(stat) = fs::read_to_string("/proc/self/stat")
        .ok()
        .as_deref()
        .and_then(parse_stat)
    {
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        for (mode, spent) in [("user", stat.user_ticks), ("system", stat.system_ticks)] {
            sink.observe(
                Instrument::ProcessCpuTime,
                None,
                Some(mode),
                spent as f64 / ticks,
            );
        }
        sink.observe(
            Instrument::ProcessThreadCount,
            None,
            None,
            stat.threads as f64,
        );
        let resident = stat.resident_pages as f64 * rustix::param::page_size() as f64;
        sink.observe(Instrument::ProcessMemoryUsage, None, None, resident);
    }
    if let Ok(entries) = fs::read_dir("/proc/self/fd") {
        // One of them is the directory that is being read.
        let open = entries.count().saturating_sub(1);
        sink.observe(Instrument::ProcessOpenFiles, None, None, open as f64);
    }
}

#[derive(Debug, PartialEq)]
struct Stat {
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
    fn a_program_name_cannot_shift_the_fields() {
        let text = "42 (a) 9 (b) S 1 1 1 0 -1 4194560 100 0 0 0 250 130 0 0 20 0 7 0 100 1000000 321 18446744073709551615";
        let stat = parse_stat(text).unwrap();
        assert_eq!(
            stat,
            Stat {
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
