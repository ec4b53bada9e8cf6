//! The attacks themselves, each in a process of its own. One that comes to an end has got through; what stopped it is
//! told otherwise. None does harm where nothing stops it: what changes the machine is asked for in a form that the
//! kernel refuses for another reason once it has let the caller pass.

use std::ffi::c_long;
use std::fs::{self, File, OpenOptions};
use std::io::{Error, Result};
use std::mem::{size_of_val, zeroed};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::means::*;

/// What an attacker may know of its host.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Facts {
    /// Where everybody may read: what is run is there.
    pub(super) folder: PathBuf,
    /// Where the service is at home: closed to nobody by its modes.
    pub(super) home: PathBuf,
    pub(super) service: i32,
    pub(super) launcher: i32,
    /// A worker that runs another session's command.
    pub(super) worker: i32,
    /// That command.
    pub(super) other: i32,
    /// Where it runs, as the host knows it.
    pub(super) other_scratch: PathBuf,
    pub(super) grpc: SocketAddr,
    pub(super) http: SocketAddr,
    pub(super) udp: SocketAddr,
    /// A name of a unix socket that is no file.
    pub(super) unnamed: String,
    /// Who has started the attacker, as that sees it.
    pub(super) parent: i32,
}

pub(super) type Attack = fn(&Facts) -> Result<()>;

pub(super) const ATTACKS: &[(&str, Attack)] = &[
    // Files.
    ("read-shadow", |_| read("/etc/shadow")),
    ("read-store", |f| read(f.home.join("state.db"))),
    ("read-configuration", |f| {
        read(f.home.join("switchboard.toml"))
    }),
    ("list-folder", |f| fs::read_dir(&f.home).map(drop)),
    ("stat-file", |f| {
        fs::metadata(f.home.join("nobodys")).map(drop)
    }),
    ("run-program", |f| {
        succeeds(Command::new(f.home.join("true")))
    }),
    ("run-set-user-id", |f| {
        let told = Command::new(f.folder.join("id")).arg("-u").output()?;
        refuse_unless(told.stdout == b"0\n")
    }),
    ("write-file", |f| {
        OpenOptions::new()
            .write(true)
            .open(f.home.join("nobodys"))
            .map(drop)
    }),
    ("truncate-file", |f| {
        let path = text(f.home.join("nobodys"));
        call(libc::SYS_truncate, [address(path.as_ptr()), 0]).map(drop)
    }),
    ("chmod-file", |f| {
        fs::set_permissions(f.home.join("nobodys"), fs::Permissions::from_mode(0o644))
    }),
    ("watch-file", |f| {
        let watch = call(libc::SYS_inotify_init1, [0])?;
        let path = text(f.home.join("nobodys"));
        let all = libc::IN_ALL_EVENTS as usize;
        call(
            libc::SYS_inotify_add_watch,
            [watch as usize, address(path.as_ptr()), all],
        )
        .map(drop)
    }),
    ("link-file", |f| {
        fs::hard_link(f.home.join("nobodys"), scratch().join("linked"))
    }),
    ("create-in-etc", |_| create("/etc")),
    ("create-in-usr", |_| create("/usr")),
    ("create-in-var-tmp", |_| create("/var/tmp")),
    ("create-in-tmp", |_| create("/tmp")),
    ("create-in-dev-shm", |_| create("/dev/shm")),
    ("create-in-dev", |_| create("/dev")),
    ("create-in-root", |_| create("/")),
    ("create-in-readable", |f| create(&f.folder)),
    ("write-sysctl", |_| write("/proc/sys/kernel/domainname")),
    ("write-sysrq", |_| write("/proc/sysrq-trigger")),
    ("write-sys", |_| write("/sys/kernel/mm/ksm/run")),
    ("write-core-pattern", |_| {
        write("/proc/sys/kernel/core_pattern")
    }),
    ("leave-control-group", |_| {
        let groups = ["/sys/fs/cgroup", "/sys/fs/cgroup/pids"];
        let tries = groups.map(|group| write(Path::new(group).join("cgroup.procs")));
        tries
            .into_iter()
            .find(Result::is_ok)
            .unwrap_or_else(|| Err(Error::from_raw_os_error(libc::EACCES)))
    }),
    ("evade-oom-killer", |_| {
        fs::write("/proc/self/oom_score_adj", "-1000")
    }),
    ("open-kernel-memory", |_| read("/dev/mem")),
    ("open-kernel-log", |_| read("/dev/kmsg")),
    ("open-disk", |_| {
        let disks = ["/dev/vda", "/dev/sda", "/dev/nvme0n1", "/dev/loop0"];
        first(disks.iter().map(|disk| read(*disk)))
    }),
    ("open-fuse", |_| open_both("/dev/fuse")),
    ("open-virtual-machine", |_| open_both("/dev/kvm")),
    ("open-terminal", |_| open_both("/dev/tty")),
    ("make-device", |_| {
        let path = text(scratch().join("device"));
        let memory = 1 << 8 | 1;
        let mode = (libc::S_IFCHR | 0o666) as usize;
        let here = libc::AT_FDCWD as usize;
        call(
            libc::SYS_mknodat,
            [here, address(path.as_ptr()), mode, memory],
        )
        .map(drop)
    }),
    ("open-by-handle", |_| {
        let handle = [8_u32, 1, 0, 0];
        let dir = File::open(scratch())?;
        let fd = dir.as_raw_fd() as usize;
        past(call(
            libc::SYS_open_by_handle_at,
            [fd, address(handle.as_ptr()), 0],
        ))
    }),
    ("name-to-handle", |_| {
        let mut handle = [0_u32; 34];
        handle[0] = 128;
        let (path, mut mount) = (text("/"), 0_i32);
        let here = libc::AT_FDCWD as usize;
        let (path, handle) = (address(path.as_ptr()), address(handle.as_mut_ptr()));
        call(
            libc::SYS_name_to_handle_at,
            [here, path, handle, address(&raw mut mount), 0],
        )
        .map(drop)
    }),
    // Other processes.
    ("see-service", |f| seen(f.service)),
    ("environment-of-service", |f| read_of(f.service, "environ")),
    ("memory-of-service", |f| read_of(f.service, "mem")),
    ("files-of-service", |f| {
        fs::read_dir(format!("/proc/{}/fd", f.service)).map(drop)
    }),
    ("root-of-service", |f| {
        fs::read_dir(format!("/proc/{}/root/", f.service)).map(drop)
    }),
    ("environment-of-launcher", |f| {
        read_of(f.launcher, "environ")
    }),
    ("memory-of-launcher", |f| read_of(f.launcher, "mem")),
    ("environment-of-worker", |f| read_of(f.worker, "environ")),
    ("memory-of-worker", |f| read_of(f.worker, "mem")),
    ("memory-of-own-parent", |f| read_of(f.parent, "mem")),
    ("memory-of-first-process", |_| read_of(1, "mem")),
    ("program-of-own-parent", |f| {
        write(format!("/proc/{}/exe", f.parent))
    }),
    ("environment-of-other", |f| read_of(f.other, "environ")),
    ("memory-of-other", |f| read_of(f.other, "mem")),
    ("scratch-of-other", |f| read(f.other_scratch.join("secret"))),
    ("scratch-through-other", |f| {
        read(format!("/proc/{}/cwd/secret", f.other))
    }),
    ("plant-in-other", |f| create(&f.other_scratch)),
    ("signal-service", |f| signal(f.service)),
    ("signal-launcher", |f| signal(f.launcher)),
    ("signal-worker", |f| signal(f.worker)),
    ("signal-other", |f| signal(f.other)),
    ("kill-own-parent", |f| {
        // Whom it kills in spite of all takes this process along, and then nobody tells.
        call(libc::SYS_kill, [f.parent as usize, libc::SIGKILL as usize])?;
        std::thread::sleep(Duration::from_millis(20));
        Err(Error::other("it lives on"))
    }),
    ("pidfd-signal-other", |f| {
        let pidfd = call(libc::SYS_pidfd_open, [known(f.other)?, 0])?;
        call(libc::SYS_pidfd_send_signal, [pidfd as usize, 0, 0, 0]).map(drop)
    }),
    ("trace-service", |f| trace(f.service)),
    ("trace-own-parent", |f| trace(f.parent)),
    ("trace-other", |f| trace(f.other)),
    ("read-memory-across", |f| {
        let mut byte = 0_u8;
        // The address of a mapping is not known: that it is a wrong one is only seen by who may look.
        let local = libc::iovec {
            iov_base: (&raw mut byte).cast(),
            iov_len: 1,
        };
        let remote = libc::iovec {
            iov_base: 16 as *mut _,
            iov_len: 1,
        };
        past(call(
            libc::SYS_process_vm_readv,
            [
                known(f.other)?,
                address(&raw const local),
                1,
                address(&raw const remote),
                1,
                0,
            ],
        ))
    }),
    ("take-descriptor", |f| {
        let pidfd = call(libc::SYS_pidfd_open, [known(f.other)?, 0])?;
        call(libc::SYS_pidfd_getfd, [pidfd as usize, 1, 0]).map(drop)
    }),
    ("compare-processes", |f| {
        let own = std::process::id() as usize;
        call(libc::SYS_kcmp, [own, known(f.other)?, 1, 0, 0]).map(drop)
    }),
    ("limit-other", |f| {
        let mut limit = [0_u64; 2];
        let limit = address(limit.as_mut_ptr());
        let cores = libc::RLIMIT_CORE as usize;
        call(libc::SYS_prlimit64, [known(f.other)?, cores, 0, limit]).map(drop)
    }),
    ("pin-other", |f| {
        let mut cores = [0_u64; 128];
        let length = size_of_val(&cores);
        let cores = address(cores.as_mut_ptr());
        let other = known(f.other)?;
        call(libc::SYS_sched_getaffinity, [0, length, cores])?;
        call(libc::SYS_sched_setaffinity, [other, length, cores]).map(drop)
    }),
    ("slow-other", |f| {
        call(libc::SYS_setpriority, [0, known(f.other)?, 10]).map(drop)
    }),
    ("slow-group-of-other", |f| {
        let group = call(libc::SYS_getpgid, [known(f.other)?])?;
        call(libc::SYS_setpriority, [1, group as usize, 10]).map(drop)
    }),
    ("slow-service", |f| {
        call(libc::SYS_setpriority, [0, known(f.service)?, 1]).map(drop)
    }),
    // More for itself.
    ("be-root", |_| call(libc::SYS_setuid, [0]).map(drop)),
    ("be-group-root", |_| call(libc::SYS_setgid, [0]).map(drop)),
    ("join-group-root", |_| {
        let groups = [0_u32];
        call(libc::SYS_setgroups, [1, address(groups.as_ptr())]).map(drop)
    }),
    ("take-capability", |_| {
        let header = [0x2008_0522_u32, 0];
        let data = [u32::MAX, u32::MAX, 0, 0x1ff, 0x1ff, 0];
        let (header, data) = (address(header.as_ptr()), address(data.as_ptr()));
        call(libc::SYS_capset, [header, data]).map(drop)
    }),
    ("raise-descriptors", |_| raise(libc::RLIMIT_NOFILE)),
    ("raise-file-size", |_| raise(libc::RLIMIT_FSIZE)),
    ("raise-core-size", |_| raise(libc::RLIMIT_CORE)),
    ("raise-priority", |_| {
        call(libc::SYS_setpriority, [0, 0, -5_isize as usize]).map(drop)
    }),
    ("be-real-time", |_| {
        let priority = [1_i32];
        call(
            libc::SYS_sched_setscheduler,
            [0, libc::SCHED_FIFO as usize, address(priority.as_ptr())],
        )
        .map(drop)
    }),
    ("be-real-time-at-disk", |_| {
        call(libc::SYS_ioprio_set, [1, 0, 1 << 13]).map(drop)
    }),
    ("dump-core", |_| dump()),
    ("fix-addresses", |_| {
        call(libc::SYS_personality, [0x004_0000]).map(drop)
    }),
    // Mounts and namespaces.
    ("mount", |_| {
        let (kind, at) = (text("tmpfs"), text(scratch()));
        let (kind, at) = (address(kind.as_ptr()), address(at.as_ptr()));
        call(libc::SYS_mount, [kind, at, kind, 0, 0]).map(drop)
    }),
    ("mount-anew", |_| {
        let root = text("/");
        let flags = (libc::MS_REMOUNT | libc::MS_BIND) as usize;
        call(libc::SYS_mount, [0, address(root.as_ptr()), 0, flags, 0]).map(drop)
    }),
    ("mount-by-program", |_| {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "none"]).arg(scratch());
        succeeds(mount)
    }),
    ("unmount", |_| {
        let proc = text("/proc");
        call(
            libc::SYS_umount2,
            [address(proc.as_ptr()), libc::MNT_DETACH as usize],
        )
        .map(drop)
    }),
    ("open-tree", |_| {
        let root = text("/");
        let here = libc::AT_FDCWD as usize;
        call(libc::SYS_open_tree, [here, address(root.as_ptr()), 1]).map(drop)
    }),
    ("open-file-system", |_| {
        let kind = text("tmpfs");
        call(libc::SYS_fsopen, [address(kind.as_ptr()), 0]).map(drop)
    }),
    ("change-mount", |_| {
        let (root, attributes) = (text("/"), [0_u64; 4]);
        let here = libc::AT_FDCWD as usize;
        let (path, attributes) = (address(root.as_ptr()), address(attributes.as_ptr()));
        past(call(
            libc::SYS_mount_setattr,
            [here, path, 0, attributes, 32],
        ))
    }),
    ("pivot-root", |_| {
        let here = text(".");
        let here = address(here.as_ptr());
        past(call(libc::SYS_pivot_root, [here, here]))
    }),
    ("chroot", |_| {
        let at = text(scratch());
        call(libc::SYS_chroot, [address(at.as_ptr())]).map(drop)
    }),
    ("unshare-user", |_| unshare(libc::CLONE_NEWUSER)),
    ("unshare-mount", |_| unshare(libc::CLONE_NEWNS)),
    ("unshare-pid", |_| unshare(libc::CLONE_NEWPID)),
    ("unshare-network", |_| unshare(libc::CLONE_NEWNET)),
    ("unshare-ipc", |_| unshare(libc::CLONE_NEWIPC)),
    ("unshare-uts", |_| unshare(libc::CLONE_NEWUTS)),
    ("unshare-cgroup", |_| unshare(libc::CLONE_NEWCGROUP)),
    ("unshare-time", |_| unshare(libc::CLONE_NEWTIME)),
    ("clone-user", |_| clone(libc::CLONE_NEWUSER)),
    ("clone-user-and-mount", |_| {
        clone(libc::CLONE_NEWUSER | libc::CLONE_NEWNS)
    }),
    ("clone-pid", |_| clone(libc::CLONE_NEWPID)),
    ("clone3-user", |_| {
        let mut arguments = [0_u64; 11];
        arguments[0] = libc::CLONE_NEWUSER as u64;
        arguments[4] = libc::SIGCHLD as u64;
        let length = size_of_val(&arguments);
        reap(call(
            libc::SYS_clone3,
            [address(arguments.as_ptr()), length],
        ))
    }),
    ("enter-service", |f| enter(f.service)),
    ("enter-other", |f| enter(f.other)),
    ("enter-first-process", |_| enter(1)),
    // Wide ways into the kernel.
    ("load-bpf", |_| {
        // return 0, as a socket filter.
        let program = [0xb7_u64, 0x95];
        let license = text("GPL");
        let mut attributes = [0_u64; 16];
        attributes[0] = 1 | 2 << 32;
        attributes[1] = address(program.as_ptr()) as u64;
        attributes[2] = address(license.as_ptr()) as u64;
        let length = size_of_val(&attributes);
        call(libc::SYS_bpf, [5, address(attributes.as_ptr()), length]).map(drop)
    }),
    ("count-events", |_| {
        // Software, this task's clock, in user space alone.
        let mut attributes = [0_u64; 16];
        attributes[0] = 1 | 128 << 32;
        attributes[1] = 1;
        attributes[5] = 1 << 5 | 1 << 6;
        let any = usize::MAX;
        call(
            libc::SYS_perf_event_open,
            [address(attributes.as_ptr()), 0, any, any, 0],
        )
        .map(drop)
    }),
    ("io-uring", |_| {
        let mut parameters = [0_u8; 120];
        call(
            libc::SYS_io_uring_setup,
            [1, address(parameters.as_mut_ptr())],
        )
        .map(drop)
    }),
    ("userfaultfd", |_| {
        call(libc::SYS_userfaultfd, [1]).map(drop)
    }),
    ("keyring", |_| {
        call(libc::SYS_keyctl, [0, -4_isize as usize, 1]).map(drop)
    }),
    ("add-key", |_| {
        let (kind, name) = (text("user"), text("attack"));
        let (kind, name) = (address(kind.as_ptr()), address(name.as_ptr()));
        call(libc::SYS_add_key, [kind, name, kind, 4, -2_isize as usize]).map(drop)
    }),
    ("request-key", |_| {
        let (kind, name) = (text("user"), text("nowhere"));
        let (kind, name) = (address(kind.as_ptr()), address(name.as_ptr()));
        past(call(libc::SYS_request_key, [kind, name, 0, 0]))
    }),
    ("watch-all-files", |_| {
        call(libc::SYS_fanotify_init, [0x200, 0]).map(drop)
    }),
    ("share-memory", |_| {
        call(libc::SYS_shmget, [0, 4096, 0o1600]).map(drop)
    }),
    ("message-queue", |_| {
        call(libc::SYS_msgget, [0, 0o1600]).map(drop)
    }),
    ("posix-queue", |_| {
        let name = text("attack");
        let queue = call(libc::SYS_mq_open, [address(name.as_ptr()), 0o102, 0o600, 0]);
        call(libc::SYS_mq_unlink, [address(name.as_ptr())]).ok();
        queue.map(drop)
    }),
    ("load-kernel", |_| {
        past(call(libc::SYS_kexec_load, [0, 0, 0, usize::MAX]))
    }),
    ("load-kernel-file", |_| {
        past(call(
            libc::SYS_kexec_file_load,
            [usize::MAX, usize::MAX, 0, 0, 0],
        ))
    }),
    ("load-module", |_| {
        past(call(libc::SYS_init_module, [0, 0, 0]))
    }),
    ("load-module-file", |_| {
        past(call(libc::SYS_finit_module, [usize::MAX, 0, 0]))
    }),
    ("unload-module", |_| {
        let name = text("no_such_module");
        past(call(libc::SYS_delete_module, [address(name.as_ptr()), 0]))
    }),
    ("reboot", |_| past(call(libc::SYS_reboot, [0, 0, 0, 0]))),
    ("swap-on", |_| {
        let path = text("/etc/passwd");
        past(call(libc::SYS_swapon, [address(path.as_ptr()), 0]))
    }),
    ("swap-off", |_| {
        let path = text("/etc/passwd");
        past(call(libc::SYS_swapoff, [address(path.as_ptr())]))
    }),
    ("set-clock", |_| {
        let mut now = [0_i64; 2];
        let now = address(now.as_mut_ptr());
        call(libc::SYS_clock_gettime, [0, now])?;
        call(libc::SYS_clock_settime, [0, now]).map(drop)
    }),
    ("set-time-of-day", |_| {
        let mut now = [0_i64; 2];
        let now = address(now.as_mut_ptr());
        call(libc::SYS_gettimeofday, [now, 0])?;
        call(libc::SYS_settimeofday, [now, 0]).map(drop)
    }),
    ("adjust-clock", |_| {
        // SAFETY: plain numbers.
        let mut clock: libc::timex = unsafe { zeroed() };
        call(libc::SYS_adjtimex, [address(&raw mut clock)])?;
        clock.modes = libc::ADJ_FREQUENCY;
        call(libc::SYS_adjtimex, [address(&raw mut clock)]).map(drop)
    }),
    ("account-processes", |_| {
        let path = text("/nowhere/account");
        past(call(libc::SYS_acct, [address(path.as_ptr())]))
    }),
    ("kernel-messages", |_| {
        let mut room = [0_u8; 64];
        call(libc::SYS_syslog, [3, address(room.as_mut_ptr()), 64]).map(drop)
    }),
    ("name-host", |_| {
        let name = text("attack");
        past(call(
            libc::SYS_sethostname,
            [address(name.as_ptr()), usize::MAX],
        ))
    }),
    ("name-domain", |_| {
        let name = text("attack");
        past(call(
            libc::SYS_setdomainname,
            [address(name.as_ptr()), usize::MAX],
        ))
    }),
    ("hang-up", |_| call(libc::SYS_vhangup, [0]).map(drop)),
    ("type-ahead", |_| {
        let letter = b'x';
        call(libc::SYS_ioctl, [0, 0x5412, address(&raw const letter)]).map(drop)
    }),
    #[cfg(target_arch = "x86_64")]
    ("ports-level", |_| call(libc::SYS_iopl, [3]).map(drop)),
    #[cfg(target_arch = "x86_64")]
    ("ports", |_| call(libc::SYS_ioperm, [0x80, 1, 1]).map(drop)),
    #[cfg(target_arch = "x86_64")]
    ("x32-call", |_| {
        call(0x4000_0000 | libc::SYS_getpid, [0]).map(drop)
    }),
    #[cfg(target_arch = "x86_64")]
    ("x32-unshare", |_| {
        call(
            0x4000_0000 | libc::SYS_unshare,
            [libc::CLONE_NEWUSER as usize],
        )
        .map(drop)
    }),
    #[cfg(target_arch = "x86_64")]
    ("call-of-32-bits", |_| {
        let mut result: c_long = 20;
        // SAFETY: getpid by another door.
        unsafe { std::arch::asm!("int 0x80", inout("rax") result) };
        if result < 0 {
            return Err(Error::from_raw_os_error(-result as i32));
        }
        Ok(())
    }),
    // The network, and who listens there.
    ("control-plane", |f| connect(f.grpc)),
    ("control-plane-unix", |f| {
        UnixStream::connect(f.home.join("control")).map(drop)
    }),
    ("http", |f| connect(f.http)),
    ("own-udp", |f| {
        UdpSocket::bind("0.0.0.0:0")?.send_to(b"x", f.udp).map(drop)
    }),
    ("metadata-service", |_| {
        let address = socket2::SockAddr::from(SocketAddr::from(([169, 254, 169, 254], 80)));
        let socket = socket2::Socket::new(
            socket2::Domain::IPV4,
            socket2::Type::STREAM.nonblocking(),
            None,
        )?;
        match socket.connect(&address) {
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(()),
            other => other,
        }
    }),
    ("listen", |_| TcpListener::bind("0.0.0.0:0").map(drop)),
    ("unix-socket", |f| {
        UnixStream::connect(f.folder.join("open")).map(drop)
    }),
    ("abstract-socket", |f| {
        let name = std::os::unix::net::SocketAddr::from_abstract_name(&f.unnamed)?;
        UnixStream::connect_addr(&name).map(drop)
    }),
    ("raw-socket", |_| {
        socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP)
    }),
    ("packet-socket", |_| {
        socket(libc::AF_PACKET, libc::SOCK_RAW, 0x0300)
    }),
    ("netlink", |_| socket(libc::AF_NETLINK, libc::SOCK_RAW, 0)),
    ("cipher-socket", |_| {
        socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0)
    }),
    ("machine-socket", |_| {
        socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0)
    }),
];
