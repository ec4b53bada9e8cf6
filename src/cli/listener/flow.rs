//! `listener pause`, `drain` and `wait`: who comes in, who is sent away, and waiting for what that comes to.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::super::client::Client;
use super::super::exit::{Failure, UNAVAILABLE, complain};
use super::super::mutation::Why;
use super::super::output::{self, Format, legible};
use super::super::spec::duration;
use super::Which;
use crate::grpc::api;
use crate::grpc::api::listener::DesiredState;

#[derive(Debug, Args)]
pub(super) struct PauseArgs {
    #[command(flatten)]
    which: Which,
    /// How new peers are kept away
    #[arg(long, value_enum, default_value_t = Mode::Queue)]
    mode: Mode,
    /// Resume by itself after this long; by default it stays so until it is resumed
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    auto_resume: Option<Duration>,
    #[command(flatten)]
    why: Why,
}

#[derive(Debug, Args)]
pub(super) struct DrainArgs {
    #[command(flatten)]
    which: Which,
    /// When the sessions that are left are cut; by default after the service's own grace, or --pace if that is longer
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    deadline: Option<Duration>,
    /// Close sessions evenly over this long; by default they are left to leave
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pace: Option<Duration>,
    /// Close those first that were quiet longest
    #[arg(long)]
    idle_first: bool,
    /// How new peers are kept away meanwhile
    #[arg(long, value_enum, default_value_t = Mode::Queue)]
    mode: Mode,
    /// What it is once it is empty
    #[arg(long, value_enum, default_value_t = Then::Stopped)]
    then: Then,
    #[command(flatten)]
    why: Why,
}

#[derive(Debug, Args)]
pub(super) struct WaitArgs {
    #[command(flatten)]
    which: Which,
    /// What has to hold, such as 'state = STATE_STOPPED' or 'status.active_sessions = 0'
    condition: String,
}

/// How new peers are kept away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// The kernel lets them wait, up to the backlog
    Queue,
    /// They are refused, and the port stays ours
    Refuse,
    /// They are let in, told so, and closed
    Reject,
}

impl From<Mode> for api::PauseMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Queue => Self::Queue,
            Mode::Refuse => Self::Refuse,
            Mode::Reject => Self::Reject,
        }
    }
}

/// What a drained listener settles in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Then {
    /// Not bound any more
    Stopped,
    /// Bound, and taking no peers
    Paused,
}

impl From<Then> for DesiredState {
    fn from(then: Then) -> Self {
        match then {
            Then::Stopped => Self::Stopped,
            Then::Paused => Self::Paused,
        }
    }
}

/// Pauses one, and shows it.
pub(super) async fn pause(args: PauseArgs, client: &Client, format: Format) -> Result<(), Failure> {
    let asked = args.request()?;
    output::answered(format, client.call(asked).await?.listener)
}

/// Begins the drain of one, and shows it.
pub(super) async fn drain(args: DrainArgs, client: &Client, format: Format) -> Result<(), Failure> {
    let asked = args.request()?;
    output::answered(format, client.call(asked).await?.listener)
}

/// Waits, and shows what the listener is then.
pub(super) async fn wait(args: WaitArgs, client: &Client, format: Format) -> Result<(), Failure> {
    let asked = api::WaitListenerRequest {
        name: args.which.name(),
        condition: args.condition.clone(),
        wait_timeout: duration(client.patience())?,
    };
    let answer = client.call_that_waits(asked).await?;
    output::answered(format, answer.listener)?;
    if answer.satisfied {
        return Ok(());
    }
    let condition = legible(args.condition.as_bytes(), b"\\");
    complain(&format!("not in time: {condition}"));
    Err(Failure::Told(UNAVAILABLE))
}

impl PauseArgs {
    fn request(self) -> Result<api::PauseListenerRequest, Failure> {
        Ok(api::PauseListenerRequest {
            name: self.which.name(),
            mode: api::PauseMode::from(self.mode).into(),
            reason: self.why.reason,
            auto_resume_after: duration(self.auto_resume)?,
            request_id: self.why.once.request_id,
        })
    }
}

impl DrainArgs {
    fn request(self) -> Result<api::DrainListenerRequest, Failure> {
        Ok(api::DrainListenerRequest {
            name: self.which.name(),
            deadline: duration(self.deadline)?,
            pace_over: duration(self.pace)?,
            close_idle_first: self.idle_first,
            mode: api::PauseMode::from(self.mode).into(),
            reason: self.why.reason,
            final_state: DesiredState::from(self.then).into(),
            request_id: self.why.once.request_id,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    enum Line {
        Pause(PauseArgs),
        Drain(DrainArgs),
    }

    fn typed(line: &str) -> Line {
        Line::try_parse_from(format!("listener {line}").split(' ')).unwrap()
    }

    fn seconds(seconds: i64) -> Option<prost_types::Duration> {
        Some(prost_types::Duration { seconds, nanos: 0 })
    }

    #[test]
    fn a_pause_is_what_was_typed() {
        let Line::Pause(args) = typed("pause ack --mode refuse --for 10m --reason fire") else {
            panic!("no pause")
        };
        let expected = api::PauseListenerRequest {
            name: "listeners/ack".into(),
            mode: api::PauseMode::Refuse.into(),
            reason: "fire".into(),
            auto_resume_after: seconds(600),
            ..Default::default()
        };
        assert_eq!(args.request().unwrap(), expected);
    }

    #[test]
    fn a_drain_is_what_was_typed() {
        let line = "drain ack --deadline 1m --pace 30s --idle-first --mode reject --then paused --request-id r";
        let Line::Drain(args) = typed(line) else {
            panic!("no drain")
        };
        let expected = api::DrainListenerRequest {
            name: "listeners/ack".into(),
            deadline: seconds(60),
            pace_over: seconds(30),
            close_idle_first: true,
            mode: api::PauseMode::Reject.into(),
            final_state: DesiredState::Paused.into(),
            request_id: "r".into(),
            ..Default::default()
        };
        assert_eq!(args.request().unwrap(), expected);
    }
}
