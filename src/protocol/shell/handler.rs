//! One session of the framed shell: reads a command, has it run, sends the frame, and again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use encoding_rs::Encoding;

use super::exec::{self, Answer, Rules};
use super::frame::{Outcome, head};
use super::output;
use super::policy::{self, Plan, Refusal};
use super::trail::Trail;
use super::turns::Turn;
use super::{Commands, LINGER, Policy, QUEUE_TIMEOUT, Settings, transcode};
use crate::net::{
    Ask, CloseReason, Event, Framing, Part, Serving, Stream, StreamHandler, UNAVAILABLE, Violation,
};
use crate::protocol::refuse;
use crate::telemetry::{Command, CommandEnd, Outcome as Ended, traced};

/// A running shell listener.
pub(super) struct Shell {
    policy: Policy,
    programs: Vec<String>,
    rules: Rules,
    filename: String,
    encoding: Option<&'static Encoding>,
    framing: Framing,
    quiet: Duration,
    commands: Commands,
    trail: Trail,
}

/// The kernel's buffers take an answer of this many bytes at once.
const SHORT_ANSWER: u64 = 256 << 10;

/// A peer that does not take its answer for this long is a slow consumer.
const PATIENCE: Duration = Duration::from_secs(10);

impl Shell {
    /// `settings` have every default written out.
    pub(super) fn new(settings: Settings, commands: Commands, trail: Trail) -> Self {
        Self {
            policy: settings.policy,
            programs: settings.programs,
            rules: Rules {
                timeout: settings.command_timeout,
                max_output: settings.max_output_bytes,
                linger: settings.linger.unwrap_or(LINGER),
                wait_for_background: settings.wait_for_background,
                queue_timeout: settings.queue_timeout.unwrap_or(QUEUE_TIMEOUT),
                verbose: AtomicBool::new(false),
            },
            filename: settings.filename,
            // `check` has refused labels that are none.
            encoding: transcode::encoding(&settings.output_encoding).unwrap_or_default(),
            framing: settings.framing,
            quiet: settings.raw_quiet,
            commands,
            trail,
        }
    }

    async fn converse(&self, stream: &mut Stream) -> CloseReason {
        let mut first = true;
        loop {
            let command = match self.next(stream).await {
                Ok(command) => command,
                Err(Event::Violation(violation)) => return self.reject(stream, violation).await,
                Err(event) => return event.reason(),
            };
            if std::mem::take(&mut first) && policy::is_http_request(&command) {
                stream.door().counters.refuse("http_request");
                return CloseReason::BadFrame;
            }
            stream.session().owed.store(1, Ordering::Release);
            let answered = self.answer(stream, &command).await;
            stream.session().owed.store(0, Ordering::Release);
            if let Err(reason) = answered {
                return reason;
            }
        }
    }

    /// The next command: one message or, with `raw_quiet`, all that came until the line was quiet.
    async fn next(&self, stream: &mut Stream) -> Result<Vec<u8>, Event> {
        let mut command = match stream.next().await {
            Event::Message => stream.message().to_vec(),
            event => return Err(event),
        };
        if self.framing != Framing::Raw || self.quiet.is_zero() {
            return Ok(command);
        }
        let max = stream.bounds().max_message_bytes;
        while let Ok(event) = tokio::time::timeout(self.quiet, stream.next()).await {
            match event {
                Event::Message => command.extend_from_slice(stream.message()),
                // What has come by now is a command; what ends the session is seen after it.
                Event::Ended | Event::Asked(Ask::Finish(_)) => break,
                event => return Err(event),
            }
            if command.len() > max {
                return Err(Event::Violation(Violation::TooLarge));
            }
        }
        Ok(command)
    }

    async fn answer(&self, stream: &mut Stream, command: &[u8]) -> Result<(), CloseReason> {
        let door = stream.door().clone();
        let mut span = door
            .telemetry
            .command(&door.labels, &stream.session().trace);
        let exists = |path: &std::path::Path| path.is_file();
        let (mut answer, turn) = match policy::plan(command, self.policy, &self.programs, exists) {
            Ok(plan) => traced(span.trace(), self.run(stream, plan, command, &mut span)).await?,
            Err(refusal) => (self.refuse(stream, command, &span, refusal), None),
        };
        // Who gets a long answer keeps its turn until it is sent: what is held in memory is bounded
        // by the turns and not by the sessions.
        let _turn = turn.filter(|_| answer.outcome.len() > SHORT_ANSWER);
        let trace = span.trace();
        let trace_id = trace.to_string();
        self.transcode(&mut answer.outcome).await;
        let Answer { outcome, entry } = answer;
        // Before a peer that may take its time to read it.
        if let Some(entry) = entry {
            entry.end(&outcome);
        }
        let sent = self.send(stream, &outcome, &trace_id).await;
        if let Some(error) = &outcome.error {
            door.counters.refuse(error.code);
        }
        let end = end(&outcome);
        span.finish(&end);
        door.telemetry
            .command_ended(&door.labels, &end, outcome.duration, &trace);
        sent
    }

    /// Waits for a turn and runs the plan; the peer's leaving ends both.
    async fn run(
        &self,
        stream: &mut Stream,
        plan: Plan,
        command: &[u8],
        span: &mut Command,
    ) -> Result<(Answer, Option<Turn<'_>>), CloseReason> {
        let turn = match self.commands.turns.try_take() {
            Some(turn) => Some(turn),
            None => self.wait_for_turn(stream).await?,
        };
        if turn.is_none() {
            let waited = self.rules.queue_timeout;
            let message = format!("all commands that may run at once do; waited {waited:?}");
            let refusal = Refusal::new("busy", message);
            return Ok((self.refuse(stream, command, span, refusal), None));
        }
        span.spawned(&plan.program.to_string_lossy());
        let intent = self.trail.begin(stream.session(), &span.trace(), command);
        let launcher = &self.commands.launcher;
        let run = exec::run(plan, &self.rules, launcher, intent.kept(), stream.gone());
        Ok((run.await?, turn))
    }

    /// What a command comes to that is not run; the trail has it.
    fn refuse(&self, stream: &Stream, command: &[u8], span: &Command, refusal: Refusal) -> Answer {
        let trace = span.trace();
        self.trail
            .refuse(stream.session(), &trace, command, refusal.code);
        Answer::from(Outcome::refused(refusal))
    }

    async fn wait_for_turn(&self, stream: &mut Stream) -> Result<Option<Turn<'_>>, CloseReason> {
        tokio::select! {
            turn = tokio::time::timeout(self.rules.queue_timeout, self.commands.turns.take()) => {
                Ok(turn.ok().flatten())
            }
            reason = stream.gone() => Err(reason),
        }
    }

    /// Brings what was said into the encoding that the peer is sent.
    async fn transcode(&self, outcome: &mut Outcome) {
        let Some(encoding) = self.encoding else {
            return;
        };
        let cut = outcome.truncated;
        for output in [&mut outcome.stdout, &mut outcome.stderr] {
            if transcode::transcode(output, encoding, cut).await.is_err() {
                outcome.truncated = true;
                outcome.error = Some(output::refusal());
            }
        }
    }

    async fn send(
        &self,
        stream: &mut Stream,
        outcome: &Outcome,
        trace_id: &str,
    ) -> Result<(), CloseReason> {
        let head = head(outcome, &self.filename, trace_id);
        let ([stdout, more], [stderr, rest]) = (outcome.stdout.parts(), outcome.stderr.parts());
        let parts = [Part::Bytes(&head), stdout, more, stderr, rest];
        stream.send_all(&parts, PATIENCE).await
    }

    /// The error answer to what cannot be a command; the session ends with it.
    async fn reject(&self, stream: &mut Stream, violation: Violation) -> CloseReason {
        let (reason, line) = refuse(stream, violation);
        if let Some(line) = line {
            let mut outcome = Outcome::refused(Refusal::new(reason.word(), line));
            self.transcode(&mut outcome).await;
            if let Err(gone) = self.send(stream, &outcome, "").await {
                return gone;
            }
        }
        reason
    }
}

/// What telemetry is told; never the text of the command.
fn end(outcome: &Outcome) -> CommandEnd {
    CommandEnd {
        outcome: match (&outcome.error, outcome.exit_code, outcome.signal) {
            (Some(error), _, _) => Ended::Failed(error.code),
            (None, Some(code), _) => Ended::Exited(code),
            (None, None, Some(signal)) => Ended::Signaled(signal),
            (None, None, None) => Ended::Failed("unknown"),
        },
        output_bytes: outcome.stdout.len() + outcome.stderr.len(),
        truncated: outcome.truncated,
    }
}

impl StreamHandler for Shell {
    fn unavailable(&self) -> Bytes {
        let outcome = Outcome::refused(Refusal::new("unavailable", UNAVAILABLE));
        let mut frame = head(&outcome, &self.filename, "");
        frame.extend_from_slice(outcome.stderr.beginning());
        frame.into()
    }

    fn serve<'a>(&'a self, stream: &'a mut Stream) -> Serving<'a> {
        stream.set_framing(self.framing);
        Box::pin(self.converse(stream))
    }
}
