//! The one composition: everything is bound first, then run, then drained in order.

mod signals;
mod start_error;

pub use start_error::StartError;

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::config::{Layer, Origin, Origins};
use crate::net::{self, Address, Bound};
use crate::protocol::{Protocol, shell};
use crate::settings::Settings;
use crate::supervisor::{Parts, Supervisor};
use crate::telemetry::{Identity, Telemetry};
use crate::{grpc, http};
use signals::Signals;

/// Descriptors that are not for sessions: our own files, pipes of commands, the control plane.
const RESERVED_DESCRIPTORS: u64 = 1_024;

/// How long calls under way may take once the listeners have drained, and how long telemetry may
/// take to hand over the last of what it has.
const CALLS_GRACE: Duration = Duration::from_secs(5);
const FLUSH_GRACE: Duration = Duration::from_secs(2);

/// A service whose every socket is bound.
pub struct App {
    control: grpc::Control,
    grpc: tokio::net::TcpListener,
    http: tokio::net::TcpListener,
    grace: Duration,
    signals: Signals,
}

impl App {
    /// Binds everything. Listeners that cannot bind are FAILED and the rest will serve; the control
    /// plane and the HTTP side must bind. Must be called within the runtime.
    ///
    /// # Errors
    /// What keeps the process from starting at all.
    pub fn bind(settings: Settings, origins: &Origins) -> Result<Self, StartError> {
        let started = SystemTime::now();
        let signals = Signals::new()?;
        let descriptors = net::raise_descriptor_limit();
        let instance_id = instance_id();
        let identity = Identity {
            version: env!("CARGO_PKG_VERSION"),
            node: settings.node.name.clone(),
            instance_id: instance_id.clone(),
        };
        let telemetry =
            Telemetry::start(&settings.telemetry, &identity).map_err(StartError::Telemetry)?;
        let grpc = door("grpc", settings.grpc.address)?;
        let http = door("http", settings.http.address)?;
        let carried = descriptors.saturating_sub(RESERVED_DESCRIPTORS.min(descriptors / 2));
        let supervisor = Supervisor::new(Parts {
            node: settings.node.name.clone(),
            grace: settings.shutdown.grace,
            most_sessions: usize::try_from(carried).unwrap_or(usize::MAX),
            telemetry: telemetry.clone(),
        });
        warn_of_shells(&settings);
        let facts = grpc::Facts {
            instance_id,
            started,
            config_revision: settings.revision(),
        };
        let grace = settings.shutdown.grace;
        for (name, spec) in settings.listeners {
            let origin = origin(origins, name.as_str());
            supervisor.adopt(name, spec, Some(origin));
        }
        let control = grpc::Control {
            supervisor,
            telemetry,
            allow_shell: settings.grpc.allow_shell,
            facts: Arc::new(facts),
            answers: Arc::default(),
            unfinished: tokio_util::task::TaskTracker::new(),
        };
        Ok(Self {
            control,
            grpc,
            http,
            grace,
            signals,
        })
    }

    /// Says where everything listens, and what could not start and why.
    ///
    /// # Errors
    /// When `out` cannot be written to.
    pub fn announce(&self, out: &mut impl Write) -> io::Result<()> {
        let node = self.control.supervisor.node();
        writeln!(
            out,
            "switchboard {} (node {node})",
            env!("CARGO_PKG_VERSION")
        )?;
        writeln!(
            out,
            "{:<12} {:<9} {:<4} {}",
            "grpc",
            "control",
            "tcp",
            self.grpc.local_addr()?
        )?;
        writeln!(
            out,
            "{:<12} {:<9} {:<4} {}",
            "http",
            "metrics",
            "tcp",
            self.http.local_addr()?
        )?;
        for view in self.control.supervisor.list() {
            let protocol = &view.spec.protocol;
            write!(
                out,
                "{:<12} {:<9} {:<4} ",
                view.name,
                protocol.word(),
                protocol.transport().word()
            )?;
            match (view.bound, view.failure) {
                (Some(bound), _) => writeln!(out, "{bound}")?,
                (None, Some(failure)) => {
                    writeln!(out, "FAILED, trying again: {}", failure.message)?;
                }
                (None, None) => writeln!(out, "stopped")?,
            }
        }
        out.flush()
    }

    /// Serves until a signal, then drains. A second signal skips the waiting.
    pub async fn run(self) {
        let Self {
            control,
            grpc,
            http,
            grace,
            mut signals,
        } = self;
        let (supervisor, telemetry) = (control.supervisor.clone(), control.telemetry.clone());
        let (stop, insist) = (CancellationToken::new(), CancellationToken::new());
        let calls = tokio::spawn(grpc::serve(grpc, control, stop.clone(), insist.clone()));
        let (scraped, told) = (supervisor.clone(), telemetry.clone());
        let pages = tokio::spawn(http::serve(
            http,
            scraped,
            told,
            stop.clone(),
            insist.clone(),
        ));

        let name = signals.next().await;
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        info!(signal = name, grace_ms, "draining; a second signal cuts");
        let impatient = tokio::spawn(cut_at_the_next(signals, insist.clone()));
        // 1. Whoever asks learns that we are leaving. 2. Every door closes. 3. Sessions are asked.
        // 4. The last one leaves, or time is up. 5. The rest is cut.
        let drained = supervisor.drain_all(grace, insist.clone()).await;
        info!(
            sessions = drained.sessions,
            cut = drained.cut,
            "listeners drained"
        );
        // 6. The control plane goes last, so that the drain could be watched; it has its own time.
        stop.cancel();
        let timer = tokio::spawn(insist_after(CALLS_GRACE, insist));
        report(
            calls
                .await
                .map_err(|e| e.to_string())
                .and_then(|r| r.map_err(|e| e.to_string())),
        );
        report(pages.await.map_err(|e| e.to_string()));
        timer.abort();
        impatient.abort();
        info!("stopped");
        // 7. What is left to tell is told, off the runtime's threads, and not for long.
        let flushed = tokio::task::spawn_blocking(move || telemetry.flush(FLUSH_GRACE));
        // If even that failed there is nothing left to tell it with.
        let _ = flushed.await;
    }
}

/// A second signal, at any point of the drain, waits for nobody.
async fn cut_at_the_next(mut signals: Signals, insist: CancellationToken) {
    let name = signals.next().await;
    warn!(signal = name, "cutting what is left");
    insist.cancel();
}

async fn insist_after(grace: Duration, insist: CancellationToken) {
    tokio::time::sleep(grace).await;
    insist.cancel();
}

fn report(served: Result<(), String>) {
    if let Err(fault) = served {
        error!(fault, "the control plane or the HTTP side failed");
    }
}

fn door(whose: &'static str, address: Address) -> Result<tokio::net::TcpListener, StartError> {
    match net::bind_stream(address, 1_024).map_err(|e| StartError::Bind(whose, e))? {
        Bound::Stream(listener) => Ok(tokio::net::TcpListener::from_std(listener)?),
        Bound::Datagram(_) => Err(io::Error::other("a stream was asked for").into()),
    }
}

/// Where a listener's definition stands: where its protocol, which every definition has, is set.
fn origin(origins: &Origins, name: &str) -> Arc<Origin> {
    let place = |key| origins.get(&format!("listeners.{name}.{key}"));
    place("protocol").map_or_else(
        || {
            Arc::new(Origin {
                layer: Layer::Default,
                source: "built in".into(),
                line: None,
                column: None,
            })
        },
        |setting| setting.origin.clone(),
    )
}

/// Commands that anybody can send run with our rights, and ours may be all there are.
fn warn_of_shells(settings: &Settings) {
    let root = rustix::process::geteuid().is_root();
    for (name, spec) in &settings.listeners {
        if let Protocol::Shell(shell) = &spec.protocol {
            let any = shell.policy == shell::Policy::Any;
            if any && root {
                warn!(listener = %name, "every command sent to this shell runs as root");
            } else if any {
                warn!(listener = %name, "every command sent to this shell runs with the rights of the service");
            }
        }
    }
}

fn instance_id() -> String {
    use std::hash::{BuildHasher, RandomState};
    format!("{:016x}", RandomState::new().hash_one(std::process::id()))
}
