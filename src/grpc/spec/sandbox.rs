//! The cage of a shell's commands, read and shown.

use super::super::{api, convert};
use super::Reader;
use crate::cage::Isolation;
use crate::protocol::shell;

impl Reader {
    pub(super) fn sandbox(&mut self, asked: api::Sandbox) -> shell::Sandbox {
        shell::Sandbox {
            run_as: asked.run_as,
            working_directory: asked.working_directory.into(),
            environment: asked.environment.into_iter().collect(),
            readable: asked.readable.into_iter().map(Into::into).collect(),
            writable: asked.writable.into_iter().map(Into::into).collect(),
            network: asked.network,
            max_memory_bytes: asked.max_memory_bytes,
            max_processes: asked.max_processes,
            max_open_files: asked.max_open_files,
            max_cpu_time: self
                .duration("shell.sandbox.max_cpu_time", asked.max_cpu_time)
                .unwrap_or_default(),
            max_concurrent_commands: asked.max_concurrent_commands,
            min_isolation: self.isolation("shell.sandbox.min_isolation", asked.min_isolation),
            isolation: self.isolation("shell.sandbox.isolation", asked.isolation),
        }
    }

    fn isolation(&mut self, field: &str, number: i32) -> Option<Isolation> {
        self.word(field, number, |word| match word {
            api::Isolation::Unspecified => None,
            api::Isolation::Full => Some(Some(Isolation::Full)),
            api::Isolation::Userns => Some(Some(Isolation::Userns)),
            api::Isolation::Landlock => Some(Some(Isolation::Landlock)),
            api::Isolation::None => Some(Some(Isolation::None)),
        })
    }
}

/// A cage as callers see it: as it was asked for, but for the values of its environment.
pub(in crate::grpc) fn show(sandbox: &shell::Sandbox) -> api::Sandbox {
    let text = |path: &std::path::PathBuf| path.to_string_lossy().into_owned();
    // Its values may be secrets; who set them knows them.
    let names = sandbox.environment.keys();
    let environment = names.map(|name| (name.clone(), "(set)".into())).collect();
    let limit = sandbox.max_cpu_time;
    api::Sandbox {
        run_as: sandbox.run_as.clone(),
        working_directory: text(&sandbox.working_directory),
        environment,
        readable: sandbox.readable.iter().map(text).collect(),
        writable: sandbox.writable.iter().map(text).collect(),
        network: sandbox.network,
        max_memory_bytes: sandbox.max_memory_bytes,
        max_processes: sandbox.max_processes,
        max_open_files: sandbox.max_open_files,
        max_cpu_time: (!limit.is_zero()).then(|| convert::duration(limit)),
        max_concurrent_commands: sandbox.max_concurrent_commands,
        min_isolation: sandbox.min_isolation.map_or(0, isolation),
        isolation: sandbox.isolation.map_or(0, isolation),
    }
}

/// A tier in the API's words.
pub(in crate::grpc) fn isolation(isolation: Isolation) -> i32 {
    match isolation {
        Isolation::Full => api::Isolation::Full,
        Isolation::Userns => api::Isolation::Userns,
        Isolation::Landlock => api::Isolation::Landlock,
        Isolation::None => api::Isolation::None,
    }
    .into()
}
