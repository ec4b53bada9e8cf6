//! The launcher and its workers hear what nobody should ever say: they do what was ordered, or they end.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags,
    SocketType, recv, sendmsg, socketpair,
};
use rustix::process::geteuid;
use switchboard::cage::message::{self, REPORT, Report, What};
use switchboard::cage::packet::{self, Hire, Told};
use switchboard::cage::{Isolation, Profile, User};

use super::super::shell::processes;
use super::super::support::{TIMEOUT, eventually, program, soak};
use super::{Chance, cages, children, descriptors, gone_within, in_cages, mark, name, traces};

/// No command here takes longer.
const SHORT: Duration = Duration::from_secs(3600);

/// A launcher whose service this test is.
struct Launcher {
    control: Option<OwnedFd>,
    child: Child,
}

/// The service's end of a worker's socket.
struct Worker(OwnedFd);

fn pair(kind: SocketType) -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap()
}

/// Sends a packet with any number of descriptors; whether there was anybody.
fn send(to: impl AsFd, bytes: &[u8], with: &[BorrowedFd<'_>]) -> bool {
    let mut space = vec![std::mem::MaybeUninit::uninit(); 4096];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    assert!(with.is_empty() || beside.push(SendAncillaryMessage::ScmRights(with)));
    let bytes = [std::io::IoSlice::new(bytes)];
    let sent = sendmsg(to, &bytes, &mut beside, SendFlags::NOSIGNAL);
    assert!(matches!(sent, Ok(_) | Err(Errno::PIPE)), "{sent:?}");
    sent.is_ok()
}

/// Waits for something to read; false when there is nothing for so long.
fn readable(from: impl AsFd, most: Duration) -> bool {
    let most = Timespec {
        tv_sec: i64::try_from(most.as_secs()).unwrap(),
        tv_nsec: most.subsec_nanos().into(),
    };
    poll(&mut [PollFd::new(&from, PollFlags::IN)], Some(&most)).unwrap() > 0
}

impl Launcher {
    /// One that has nothing to work with yet.
    fn bare() -> Self {
        let (control, its) = pair(SocketType::SEQPACKET);
        let child = Command::new(program())
            .arg("launcher")
            .env_clear()
            .stdin(Stdio::from(its))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            control: Some(control),
            child,
        }
    }

    /// One that is ready, and its first worker.
    fn ready(cage: &str, listener: &str) -> (Self, Worker) {
        let launcher = Self::bare();
        packet::send(launcher.control(), &profile(cage, listener), &[]).unwrap();
        let worker = launcher.told().expect("a worker");
        (launcher, worker)
    }

    fn control(&self) -> &OwnedFd {
        self.control.as_ref().unwrap()
    }

    fn hire(&self) -> Worker {
        packet::send(self.control(), &Hire, &[]).unwrap();
        self.told().expect("a worker")
    }

    fn told(&self) -> Option<Worker> {
        assert!(readable(self.control(), TIMEOUT), "it is silent");
        let (told, mut with) = packet::receive::<Told>(self.control()).unwrap()?;
        assert!(matches!(told, Told::Ready(_)), "{told:?}");
        assert_eq!(with.len(), 2);
        Some(Worker(with.swap_remove(0)))
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// It ends by itself, without a panic, and with everybody. How.
    fn ended(mut self) -> (Option<i32>, String) {
        let before = children(self.pid());
        self.control.take();
        let deadline = Instant::now() + TIMEOUT;
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None => assert!(Instant::now() < deadline, "it does not end"),
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let mut told = String::new();
        self.child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut told)
            .unwrap();
        assert!(!told.contains("panicked"), "{told}");
        for pid in before {
            let gone = !std::path::Path::new(&format!("/proc/{pid}")).exists();
            assert!(gone, "{pid} outlives it");
        }
        (status.code(), told)
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        // So that it clears up.
        if self.control.take().is_some() && !std::thread::panicking() {
            let _ = self.child.wait();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Worker {
    /// What it says next; none when it has gone.
    fn report(&self) -> Option<Report> {
        assert!(readable(&self.0, TIMEOUT), "it is silent");
        let mut room = [0; REPORT];
        match recv(&self.0, &mut room, RecvFlags::empty()) {
            Ok((_, length)) if length > 0 => Some(Report::read(&room[..length]).expect("a report")),
            _ => None,
        }
    }

    /// Orders a run of a shell's text.
    fn order(&self, sequence: u32, text: &str) -> File {
        let (ours, its) = std::io::pipe().unwrap();
        let packet = message::run(
            sequence,
            SHORT,
            b"/bin/sh",
            &[b"sh", b"-c", text.as_bytes()],
        );
        assert!(send(&self.0, &packet, &[its.as_fd(), its.as_fd()]));
        File::from(OwnedFd::from(ours))
    }

    /// It still does what it is told.
    fn works(&self, sequence: u32) {
        let mut said = String::new();
        self.order(sequence, "echo well")
            .read_to_string(&mut said)
            .unwrap();
        let report = self.report().expect("it has gone");
        assert_eq!(report.sequence, sequence);
        assert!(
            matches!(report.what, What::Exited(exit) if exit.status == 0),
            "{report:?}"
        );
        assert_eq!(said, "well\n");
    }

    /// It says nothing more, and goes.
    fn gone(&self) {
        let report = self.report();
        assert!(report.is_none(), "{report:?}");
    }
}

fn profile(cage: &str, listener: &str) -> Profile {
    let isolation = Isolation::ALL
        .into_iter()
        .find(|isolation| isolation.word() == cage);
    let nobody = User {
        name: "nobody".into(),
        uid: 65534,
        gid: 65534,
    };
    let readable = ["/usr", "/bin", "/lib", "/lib64", "/etc"];
    Profile {
        listener: listener.into(),
        isolation,
        run_as: geteuid().is_root().then_some(nobody),
        working_directory: None,
        environment: [("PATH".to_owned(), "/usr/bin:/bin".to_owned())].into(),
        readable: readable.map(Into::into).into(),
        writable: Vec::new(),
        network: false,
        max_memory_bytes: 256 << 20,
        max_processes: 64,
        max_open_files: 64,
        max_cpu_time: Duration::ZERO,
    }
}

/// Some bytes, some of which begin like an order.
fn noise(chance: &mut Chance, most: u64) -> Vec<u8> {
    let length = 1 + chance.below(most);
    let mut bytes: Vec<u8> = (0..length).map(|_| chance.below(256) as u8).collect();
    bytes[0] = chance.below(4) as u8;
    bytes
}

/// Whether the bytes are an order to run something, or to end something.
fn is_order(bytes: &[u8]) -> (bool, bool) {
    let words = bytes.get(5..).unwrap_or_default();
    let nuls = words.iter().filter(|byte| **byte == 0).count();
    let run = bytes[0] == 1 && nuls >= 2 && words.last() == Some(&0) && words[0] != 0;
    (run, bytes[0] == 2 && bytes.len() == 9)
}

#[test]
fn what_is_no_order_ends_a_worker_and_runs_nothing() {
    let rounds = if soak() { 400 } else { 6 };
    in_cages(|cage| {
        let listener = name();
        let (launcher, first) = Launcher::ready(cage, &listener);
        first.works(1);
        let empty = descriptors(launcher.pid());
        let mark = mark();
        let null = File::options()
            .read(true)
            .write(true)
            .open("/dev/null")
            .unwrap();
        let null = null.as_fd();
        let touch = format!(": {mark}; sleep 100; :");
        let whole = message::run(7, SHORT, b"/bin/sh", &[b"sh", b"-c", touch.as_bytes()]);
        // A run whose text would go on after what any room holds, but for a NUL there.
        let mut long = message::run(7, SHORT, b"/bin/sh", &[b"sh", b"-c", touch.as_bytes()]);
        long.extend(std::iter::repeat_n(0, 165_000 - long.len()));
        let unfinished = &whole[..whole.len() - 1];
        for (what, bytes, with) in [
            ("nothing at all", &b""[..], 0),
            ("no sequence", &[1, 0, 0][..], 2),
            ("no words", &[1, 0, 0, 0, 0, 0, 0, 0, 0][..], 2),
            ("one word", &b"\x01\0\0\0\0\0\0\0\0/bin/sh\0"[..], 2),
            ("an empty program", &b"\x01\0\0\0\0\0\0\0\0\0\0\0"[..], 2),
            ("a text without an end", unfinished, 2),
            ("no descriptors", &whole, 0),
            ("one descriptor", &whole, 1),
            ("three descriptors", &whole, 3),
            ("very many descriptors", &whole, 200),
            ("too long", &long, 2),
            ("an end that is longer", &[2; 10], 0),
            ("an end that is shorter", &[2; 8], 0),
            ("another kind", &[9; 9], 0),
        ] {
            let worker = launcher.hire();
            assert!(send(&worker.0, bytes, &vec![null; with]), "{what}");
            let report = worker.report();
            assert!(report.is_none(), "{cage}: {what}: {report:?}");
            assert_eq!(processes(&mark), 0, "{cage}: {what}");
        }
        let mut chance = Chance(3);
        for round in 0..rounds {
            let worker = launcher.hire();
            worker.works(round);
            let mut runs = 0;
            loop {
                let (bytes, with) = (noise(&mut chance, 300), chance.below(4) as usize);
                let (run, end) = is_order(&bytes);
                if !send(&worker.0, &bytes, &vec![null; with]) {
                    break;
                }
                if end {
                    continue;
                }
                match worker.report() {
                    None => break,
                    Some(report) => {
                        assert!(run && with == 2, "{}", bytes.escape_ascii());
                        assert!(matches!(report.what, What::Failed { .. }), "{report:?}");
                        runs += 1;
                        assert!(runs < 100);
                    }
                }
            }
        }
        first.works(2);
        eventually("all that ended are forgotten", || {
            children(launcher.pid()).len() == 1 && descriptors(launcher.pid()) == empty
        });
        drop(first);
        assert_eq!(launcher.ended().0, Some(0), "{cage}");
        assert_eq!(traces(&listener), Vec::<std::path::PathBuf>::new());
    });
}

#[test]
fn a_run_that_takes_longer_than_is_short_is_said_to_last_and_once() {
    in_cages(|cage| {
        let (_launcher, worker) = Launcher::ready(cage, &name());
        let (_ours, its) = std::io::pipe().unwrap();
        let short = Duration::from_millis(1);
        let packet = message::run(3, short, b"/bin/sleep", &[b"sleep", b"0.3"]);
        assert!(send(&worker.0, &packet, &[its.as_fd(), its.as_fd()]));
        assert_eq!(worker.report().unwrap().what, What::Lasts);
        assert!(matches!(worker.report().unwrap().what, What::Exited(exit) if exit.status == 0));
        worker.works(4);
    });
}

#[test]
fn a_worker_that_runs_something_takes_no_other_order() {
    in_cages(|cage| {
        let (launcher, worker) = Launcher::ready(cage, &name());
        // The ends of others are none of its own.
        let mark = mark();
        let command = format!(": {mark}; (setsid sh -c 'sleep 100; : {mark}' &); sleep 100; :");
        let _output = worker.order(5, &command);
        eventually("it runs", || processes(&mark) >= 2);
        for sequence in [0, 4, 6, u32::MAX] {
            assert!(send(
                &worker.0,
                &message::end(sequence, Duration::ZERO),
                &[]
            ));
        }
        assert!(!readable(&worker.0, Duration::from_millis(100)));
        assert!(processes(&mark) >= 2);
        assert!(send(&worker.0, &message::end(5, Duration::ZERO), &[]));
        assert_eq!(worker.report().unwrap().what, What::Gone);
        assert_eq!(processes(&mark), 0);
        worker.works(6);

        let _output = worker.order(7, &command);
        eventually("it runs", || processes(&mark) >= 2);
        let _other = worker.order(8, "echo never");
        worker.gone();
        gone_within(&mark, Duration::from_secs(1));

        // Whose service lets go of it in the middle goes whole.
        let worker = launcher.hire();
        let _output = worker.order(1, &command);
        eventually("it runs", || processes(&mark) >= 2);
        drop(worker);
        gone_within(&mark, Duration::from_secs(1));

        // And so does all when the launcher's service goes.
        let (one, other) = (launcher.hire(), launcher.hire());
        let _outputs = [one.order(1, &command), other.order(1, &command)];
        eventually("both run", || processes(&mark) >= 4);
        assert_eq!(launcher.ended().0, Some(0));
        gone_within(&mark, Duration::from_millis(500));
    });
}

#[test]
fn arguments_are_as_long_as_the_kernel_takes() {
    in_cages(|cage| {
        let (_launcher, worker) = Launcher::ready(cage, &name());
        let null = File::options().write(true).open("/dev/null").unwrap();
        let long = vec![b'x'; 131_071];
        for (length, runs) in [(131_071, true), (131_072, false)] {
            let long = [&long[..], b"y"].concat();
            let packet = message::run(1, SHORT, b"/bin/true", &[b"true", &long[..length]]);
            assert!(send(&worker.0, &packet, &[null.as_fd(), null.as_fd()]));
            let what = worker.report().unwrap().what;
            assert_eq!(
                matches!(what, What::Exited(exit) if exit.status == 0),
                runs,
                "{what:?}"
            );
            assert!(runs || matches!(what, What::Failed { .. }), "{what:?}");
        }
        // Empty words are words.
        let packet = message::run(
            2,
            SHORT,
            b"/bin/sh",
            &[b"sh", b"-c", b"[ $# = 2 ]", b"", b"", b""],
        );
        assert!(send(&worker.0, &packet, &[null.as_fd(), null.as_fd()]));
        assert!(matches!(worker.report().unwrap().what, What::Exited(exit) if exit.status == 0));
        worker.works(3);
    });
}

#[test]
fn a_launcher_that_hears_nonsense_ends_with_everybody() {
    let rounds = if soak() { 300 } else { 10 };
    let null = File::open("/dev/null").unwrap();
    let nulls = vec![null.as_fd(); 200];
    let mut chance = Chance(11);
    // In the place of its profile.
    for (bytes, with) in [
        (&b"{}"[..], 0),
        (&b""[..], 0),
        (&b"{\"listener\":"[..], 3),
        (&b"null"[..], 200),
        (&vec![b'['; 150_000], 0),
        (&vec![b' '; 170_000], 0),
    ] {
        let launcher = Launcher::bare();
        assert!(send(launcher.control(), bytes, &nulls[..with]));
        let (code, told) = launcher.ended();
        // Nothing at all is how a service looks that has gone.
        let expected = if bytes.is_empty() { 0 } else { 2 };
        assert_eq!(code, Some(expected), "{told}");
    }
    // In the place of an asking.
    let cage = cages().next().unwrap();
    let listener = name();
    for round in 0..rounds {
        let (launcher, worker) = Launcher::ready(cage, &listener);
        let mark = mark();
        let _output = worker.order(1, &format!(": {mark}; sleep 100; :"));
        eventually("it runs", || processes(&mark) >= 1);
        let bytes = match round % 4 {
            0 => b"{\"Hire\":null}".to_vec(),
            1 => vec![b' '; 170_000],
            2 => b"null null".to_vec(),
            _ => noise(&mut chance, 2000),
        };
        let with = chance.below(4) as usize;
        assert!(send(launcher.control(), &bytes, &nulls[..with]));
        // It goes without being let go of.
        assert!(readable(launcher.control(), TIMEOUT));
        assert!(packet::receive::<Told>(launcher.control()).is_ok_and(|told| told.is_none()));
        gone_within(&mark, Duration::from_millis(500));
        assert_eq!(launcher.ended().0, Some(2));
    }
    assert_eq!(traces(&listener), Vec::<std::path::PathBuf>::new());
}

#[test]
fn nobody_else_need_start_a_launcher() {
    let file = tempfile::tempfile().unwrap();
    let (reader, _writer) = std::io::pipe().unwrap();
    let (stream, _other) = pair(SocketType::STREAM);
    let terminal = File::options()
        .read(true)
        .write(true)
        .open("/dev/ptmx")
        .unwrap();
    let inputs = [
        Stdio::from(file),
        Stdio::from(reader),
        Stdio::from(stream),
        Stdio::from(terminal),
        Stdio::null(),
    ];
    for input in inputs {
        let output = Command::new(program())
            .arg("launcher")
            .stdin(input)
            .output()
            .unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert_eq!(
            told,
            "switchboard launcher: its input is not the service's socket; the service starts it, nobody else need\n"
        );
    }
}
