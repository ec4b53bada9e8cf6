//! The control plane's mouth: proto to the supervisor's words and back, and nothing else.
//!
//! One file a service; `convert` holds the two vocabularies against each other, `status` is the one
//! table of errors. Only this folder and the client side of the command line name generated types.

mod audit;
mod bans;
mod call;
mod chat;
mod close;
mod commands;
mod config;
mod configuration;
mod convert;
mod desk;
mod detail;
mod ending;
mod filter;
mod health;
mod leaving;
mod listeners;
mod listing;
mod load;
mod mask;
mod metrics;
mod once;
mod order;
mod page;
mod reflection;
mod refusal;
mod server;
mod sessions;
mod show;
mod spec;
mod status;
mod tap;
mod verbs;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

pub use config::{is_asked, setting};
pub use configuration::{
    Caller, Changed, Changing, Configuration, Creation, Deletion, Effective, Persistence,
    ReloadOptions, Reloaded, SettingRow, Side, Update, Verb, Warning, Wish,
};
pub use filter::Filter;
pub use leaving::Leaving;
pub use metrics::STREAMS;
pub use once::Answers;
pub use watch::Watches;

use reflection::Late;

use crate::cage::Offer;
use crate::net::{Address, Counters, UnixSocket, web};
use crate::store::Store;
use crate::supervisor::Supervisor;
use crate::telemetry::Telemetry;

pub mod api {
    //! The generated types of `proto/switchboard/v1`.
    #![allow(
        missing_docs,
        unreachable_pub,
        clippy::all,
        clippy::pedantic,
        reason = "generated"
    )]
    tonic::include_proto!("switchboard.v1");
    /// The descriptors of `proto/switchboard/v1` and of all that it imports.
    pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("switchboard");
}

/// What the control plane is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where it listens: loopback only, since it is plain text and asks nobody who they are.
    pub address: Address,
    /// Where it listens in the file system besides, as a socket of mode 0600; empty for nowhere.
    pub socket: PathBuf,
    /// Whether callers may make shell listeners, which is the right to run commands.
    pub allow_shell: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            address: Address(([127, 0, 0, 1], 50_051).into()),
            socket: PathBuf::new(),
            allow_shell: false,
        }
    }
}

impl Settings {
    /// What cannot be obeyed.
    pub fn check(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        if !self.address.is_loopback() {
            let rule = format!(
                "{} is open to the network, and the control plane has no TLS and no roles yet; \
                 bind it to loopback, such as 127.0.0.1:{}",
                self.address,
                self.address.0.port()
            );
            faults.push(("address", rule));
        }
        faults.extend(UnixSocket::check(&self.socket).map(|rule| ("socket", rule)));
        faults
    }
}

/// What the services speak for.
#[derive(Clone)]
pub struct Control {
    /// The listeners.
    pub supervisor: Supervisor,
    /// Where calls are told, and metrics read.
    pub telemetry: Telemetry,
    /// Who changes what should be.
    pub configuration: Arc<dyn Configuration>,
    /// Facts about the process.
    pub facts: Arc<Facts>,
    /// What was answered under a request id.
    pub answers: Arc<Answers>,
    /// The watches that are open.
    pub watches: Arc<Watches>,
    /// What outlives a restart.
    pub store: Store,
    /// When the process goes, which callers may ask for.
    pub leaving: Leaving,
    /// A place for each stream of metrics.
    pub snapshots: Arc<Semaphore>,
    /// Cancelled when the control plane goes: streams that have no end of their own end then.
    pub closing: CancellationToken,
}

/// Facts about the process.
#[derive(Debug)]
pub struct Facts {
    /// Unique to this run.
    pub instance_id: String,
    /// When it started.
    pub started: SystemTime,
    /// What the host was found to offer the commands of shells.
    pub offer: tokio::sync::OnceCell<Offer>,
}

/// The largest request: everything that a caller says is short.
const MAX_REQUEST: usize = 256 << 10;

/// The largest answer; lists are paged well below it.
const MAX_ANSWER: usize = 4 << 20;

macro_rules! service {
    ($module:ident :: $server:ident, $control:expr) => {
        api::$module::$server::new($control.clone())
            .max_decoding_message_size(MAX_REQUEST)
            .max_encoding_message_size(MAX_ANSWER)
    };
}

/// Serves the control plane until it closes, then what is under way until `insist`. Calls that find
/// no room are counted in `refused`.
pub async fn serve(
    site: web::Site,
    control: Control,
    refused: Arc<Counters>,
    insist: CancellationToken,
) {
    let stop = control.closing.clone();
    let (health, reporter) = health::service();
    let routes = Routes::new(health)
        .add_service(Late::new(reflection::v1))
        .add_service(Late::new(reflection::v1alpha))
        .add_service(service!(
            listener_service_server::ListenerServiceServer,
            control
        ))
        .add_service(service!(
            session_service_server::SessionServiceServer,
            control
        ))
        .add_service(service!(chat_service_server::ChatServiceServer, control))
        .add_service(service!(
            config_service_server::ConfigServiceServer,
            control
        ))
        .add_service(service!(
            metric_service_server::MetricServiceServer,
            control
        ))
        .add_service(service!(
            server_service_server::ServerServiceServer,
            control
        ));
    let load = load::Load::new(refused, stop.clone());
    let calls = call::Layered::new(routes.prepare(), control.telemetry.clone(), load);
    let reporting = health::report(reporter, control.supervisor.clone(), stop.clone());
    let serving = web::serve(site, web::Version::Http2, calls, stop, insist.clone());
    tokio::join!(reporting, serving);
}
