//! The system calls that a worker and its commands do without: seccomp.
//!
//! All that is not named here is allowed: a shell may run any program, and what one needs is not ours to list. What is
//! named would widen the cage, or reaches into parts of the kernel that no command has business with. Refused calls
//! fail with EPERM, as for whoever lacks the right; those that programs try first and do without, with ENOSYS.

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter, sock_filter,
};

use super::Step;
use crate::cage::Failure;
use crate::cage::kernel::signals::NICE;

/// Refused whatever they are asked for.
const REFUSED: &[libc::c_long] = &[
    // Mounts, roots and namespaces.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_setns,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    // Wide ways into the kernel.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_fanotify_init,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_lookup_dcookie,
    // What would outlive a command: System V's and POSIX's shared memory, semaphores and queues.
    libc::SYS_shmget,
    libc::SYS_semget,
    libc::SYS_msgget,
    libc::SYS_mq_open,
    // The machine as a whole.
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_nfsservctl,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
];

/// New namespaces by clone. Not the one for processes: workers make one for each command, and it takes a right that
/// commands lack. The one for time cannot be had by clone: its bit is part of the signal's number there.
const NAMESPACES: [libc::c_int; 6] = [
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];

/// Putting words into a terminal's mouth.
const TERMINAL: [u64; 2] = [0x5412 /* TIOCSTI */, 0x541C /* TIOCLINUX */];

/// Without the network no socket is made at all, but for pairs; with it the ordinary kinds.
const FAMILIES: [libc::c_int; 3] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6];

/// What changes the lot of a process, by its number; 0 is whoever asks.
const LOTS: [libc::c_long; 7] = [
    libc::SYS_prlimit64,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setattr,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setscheduler,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
];

/// Kinds of numbers that `setpriority` and `ioprio_set` take.
const PRIORITY_OF_PROCESS: u64 = 0;
const PRIORITY_OF_GROUP: u64 = 1;
const DISK_PRIORITY_OF_PROCESS: u64 = 1;

/// How the calls are restricted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Calls {
    pub(super) network: bool,
    /// Commands see processes of their own user that are not theirs.
    pub(super) among: Among,
}

/// Whose processes of their own user commands see beside their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Among {
    /// Nobody's.
    Nobody,
    /// Other commands'.
    Commands,
    /// The service's as well.
    Service,
}

/// Puts both filters on this process and all that it starts.
pub(super) fn restrict(calls: Calls) -> Result<(), Failure> {
    let filter = refusals(calls).map_err(std::io::Error::other);
    let filter = filter.step("compile the seccomp filter")?;
    for program in [unknown(), filter] {
        apply_filter(&program)
            .map_err(|error| match error {
                seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error) => error,
                other => std::io::Error::other(other),
            })
            .step("seccomp")?;
    }
    Ok(())
}

fn refusals(calls: Calls) -> Result<BpfProgram, seccompiler::BackendError> {
    use SeccompCmpOp::{Eq, MaskedEq, Ne};
    let mut rules: std::collections::BTreeMap<i64, Vec<SeccompRule>> =
        REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    let mut refuse = |call, alternatives: Vec<SeccompRule>| {
        rules.insert(call, alternatives);
    };
    let namespaces = NAMESPACES.map(|flag| flag as u64);
    let flags = namespaces.map(|flag| rule(&[(0, MaskedEq(flag), flag)]));
    refuse(
        libc::SYS_clone,
        flags.into_iter().collect::<Result<_, _>>()?,
    );
    let terminal = TERMINAL.map(|request| rule(&[(1, Eq, request)]));
    refuse(
        libc::SYS_ioctl,
        terminal.into_iter().collect::<Result<_, _>>()?,
    );
    // 0 is what everybody has, and all ones ask.
    refuse(
        libc::SYS_personality,
        vec![rule(&[(0, Ne, 0), (0, Ne, u32::MAX.into())])?],
    );
    let kind = MaskedEq(libc::S_IFMT.into());
    for (call, mode) in [
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_mknod, 1),
        (libc::SYS_mknodat, 2),
    ] {
        let devices = [libc::S_IFCHR, libc::S_IFBLK];
        let devices = devices.map(|device| rule(&[(mode, kind.clone(), device.into())]));
        refuse(call, devices.into_iter().collect::<Result<_, _>>()?);
    }
    let others = FAMILIES.map(|family| (0, Ne, family as u64));
    let sockets = calls.network.then(|| rule(&others)).transpose()?;
    refuse(libc::SYS_socket, sockets.into_iter().collect());
    refuse(
        libc::SYS_socketpair,
        vec![rule(&[(0, Ne, libc::AF_UNIX as u64)])?],
    );
    if calls.among != Among::Nobody {
        for call in LOTS {
            refuse(call, vec![rule(&[(0, Ne, 0)])?]);
        }
        let disk = [(0, Ne, DISK_PRIORITY_OF_PROCESS)];
        refuse(
            libc::SYS_ioprio_set,
            vec![rule(&disk)?, rule(&[(1, Ne, 0)])?],
        );
        refuse(libc::SYS_setpriority, priorities(calls.among)?);
    }
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, SeccompAction::Allow, refused, architecture)?.try_into()
}

/// What priorities are refused to commands that see others' processes. Workers demote a command's group, for which there
/// is no other way; among commands that is left open.
fn priorities(among: Among) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    use SeccompCmpOp::{Eq, Ne};
    let mut refused = vec![rule(&[(0, Eq, PRIORITY_OF_PROCESS), (1, Ne, 0)])?];
    if among == Among::Service {
        refused.push(rule(&[(0, Ne, PRIORITY_OF_PROCESS)])?);
        return Ok(refused);
    }
    let no_group = [(0, Ne, PRIORITY_OF_PROCESS), (0, Ne, PRIORITY_OF_GROUP)];
    refused.push(rule(&no_group)?);
    refused.push(rule(&[(0, Eq, PRIORITY_OF_GROUP), (2, Ne, NICE as u64)])?);
    Ok(refused)
}

/// Arguments, each compared with a value, that all have to be so.
fn rule(all: &[(u8, SeccompCmpOp, u64)]) -> Result<SeccompRule, seccompiler::BackendError> {
    let conditions = all.iter().map(|(argument, is, value)| {
        SeccompCondition::new(*argument, SeccompCmpArgLen::Dword, is.clone(), *value)
    });
    SeccompRule::new(conditions.collect::<Result<_, _>>()?)
}

/// ENOSYS for clone3, whose flags no filter can read, and for the x32 numbers, which would go around every rule.
fn unknown() -> BpfProgram {
    const LOAD: u16 = 0x20;
    const EQUAL: u16 = 0x15;
    const AT_LEAST: u16 = 0x35;
    const RETURN: u16 = 0x06;
    const ALLOW: u32 = 0x7fff_0000;
    const ERROR: u32 = 0x0005_0000;
    const X32: u32 = 0x4000_0000;
    let line = |code, k, jt, jf| sock_filter { code, jt, jf, k };
    vec![
        // The call's number is the first thing that a filter is given.
        line(LOAD, 0, 0, 0),
        line(AT_LEAST, X32, 2, 0),
        line(EQUAL, libc::SYS_clone3 as u32, 1, 0),
        line(RETURN, ALLOW, 0, 0),
        line(RETURN, ERROR | libc::ENOSYS as u32, 0, 0),
    ]
}
