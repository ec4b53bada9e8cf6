//! The service as a process of its own, and the peers that talk to it: std sockets with time-outs, and grpcurl.
//!
//! Nothing here sleeps until something has probably happened: the announcement is read line by line, and whatever else
//! must become so is asked for again and again by [`eventually`].

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// How long anything may take before the test has failed.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);

/// What every service of a test is given under its own configuration: ports of the kernel's choice, nothing kept.
const BASE: &str = "[grpc]\naddress = \"127.0.0.1:0\"\n[http]\naddress = \"127.0.0.1:0\"\n[store]\npath = \":memory:\"\n";

/// Asks until it is so, for at most [`TIMEOUT`].
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {TIMEOUT:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The keys of a shell whose commands are held in nothing and run as whoever runs the tests.
pub(crate) fn uncaged() -> String {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    format!(
        "sandbox = {{ isolation = \"none\", min_isolation = \"none\", run_as = \"{}:{}\" }}",
        uid.as_raw(),
        gid.as_raw()
    )
}

// ---------------------------------------------------------------- the process

/// How a run of the program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The exit code, or minus the signal.
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The program under test: the one that is named, as `tests/run` names the one that is shipped, or this build's own.
pub(crate) fn program() -> String {
    let own = || env!("CARGO_BIN_EXE_switchboard").to_owned();
    std::env::var("SWITCHBOARD_BIN").unwrap_or_else(|_| own())
}

/// The program, in an environment that holds `PATH` and a home of its own, and nothing else but `env`.
fn command(args: &[&str], env: &[(&str, &str)], home: &Path) -> Command {
    let mut command = Command::new(program());
    command.args(args);
    at_home(command, env, home)
}

/// Any command, in such an environment.
fn at_home(mut command: Command, env: &[(&str, &str)], home: &Path) -> Command {
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home)
        .env("XDG_STATE_HOME", home)
        .envs(env.iter().copied())
        .current_dir(home)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status
        .code()
        .unwrap_or_else(|| -status.signal().unwrap_or_default())
}

/// Runs the program until it ends by itself, in a home that holds `files` (name and text), which is also where it runs.
pub(crate) fn run(files: &[(&str, &str)], args: &[&str], env: &[(&str, &str)]) -> Ended {
    let home = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(home.path().join(name), text).unwrap();
    }
    ended(command(args, env, home.path()))
}

/// Runs a command until it ends by itself.
fn ended(mut command: Command) -> Ended {
    let mut child = command.spawn().unwrap();
    let stdout = Told::by(child.stdout.take().unwrap());
    let stderr = Told::by(child.stderr.take().unwrap());
    let code = exit(&mut child);
    let ended = Ended {
        code,
        stdout: stdout.all(),
        stderr: stderr.all(),
    };
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    ended
}

/// Waits for the end of a process that is about to end; one that is not is killed, and the test has failed.
fn exit(child: &mut Child) -> i32 {
    let deadline = Instant::now() + 3 * TIMEOUT;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return code(status);
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("the process did not end within {:?}", 3 * TIMEOUT);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What a process has written so far.
struct Told {
    so_far: Arc<(Mutex<(String, bool)>, Condvar)>,
    reader: JoinHandle<()>,
}

impl Told {
    fn by(pipe: impl Read + Send + 'static) -> Self {
        let so_far = Arc::new((Mutex::new((String::new(), false)), Condvar::new()));
        let shared = so_far.clone();
        let reader = std::thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            loop {
                let mut line = Vec::new();
                let ended = !matches!(pipe.read_until(b'\n', &mut line), Ok(n) if n > 0);
                let mut told = shared.0.lock().unwrap();
                told.0.push_str(&String::from_utf8_lossy(&line));
                told.1 = ended;
                shared.1.notify_all();
                if ended {
                    return;
                }
            }
        });
        Self { so_far, reader }
    }

    fn now(&self) -> String {
        self.so_far.0.lock().unwrap().0.clone()
    }

    /// Everything, once the pipe is closed.
    fn all(self) -> String {
        self.reader.join().unwrap();
        self.so_far.0.lock().unwrap().0.clone()
    }

    /// The first whole line whose first word is `word`; none when the process falls silent without it.
    fn line(&self, word: &str) -> Option<String> {
        let line = |text: &str| {
            let mut lines = text
                .split_inclusive('\n')
                .filter_map(|l| l.strip_suffix('\n'));
            lines
                .find(|line| line.split_whitespace().next() == Some(word))
                .map(str::to_owned)
        };
        let told = self.so_far.0.lock().unwrap();
        let (told, _) = self
            .so_far
            .1
            .wait_timeout_while(told, TIMEOUT, |(text, ended)| {
                !*ended && line(text).is_none()
            })
            .unwrap();
        line(&told.0)
    }
}

/// A running `switchboard serve`. Dropping it kills it, and fails the test if it ever panicked.
pub(crate) struct Service {
    child: Child,
    stdout: Option<Told>,
    stderr: Option<Told>,
    home: Arc<tempfile::TempDir>,
}

impl Service {
    /// Serves `toml`, which may leave out the addresses of gRPC and HTTP, and the store: they are then of the test's own.
    pub(crate) fn start(toml: &str) -> Self {
        Self::start_with(toml, &[], &[])
    }

    /// The same with more arguments behind `serve`, and more variables in its environment.
    pub(crate) fn start_with(toml: &str, args: &[&str], env: &[(&str, &str)]) -> Self {
        Self::start_in(Self::home_for(toml), args, env)
    }

    /// A home in which nothing has run yet.
    pub(crate) fn home_for(toml: &str) -> Arc<tempfile::TempDir> {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("base.toml"), BASE).unwrap();
        std::fs::write(home.path().join("switchboard.toml"), toml).unwrap();
        Arc::new(home)
    }

    /// Serves what another service has left in its home: its files, and its store.
    pub(crate) fn start_in(
        home: Arc<tempfile::TempDir>,
        args: &[&str],
        env: &[(&str, &str)],
    ) -> Self {
        let program = Command::new(program());
        let service = Self::spawn(home, program, args, env);
        // Both are bound from here on, and so is every listener.
        service.announced("http");
        service
    }

    /// The same through a `program` that becomes the service, and without a wait for it to listen.
    pub(crate) fn spawn(
        home: Arc<tempfile::TempDir>,
        mut program: Command,
        args: &[&str],
        env: &[(&str, &str)],
    ) -> Self {
        program.arg("serve");
        for file in ["base.toml", "switchboard.toml"] {
            program.arg("--config").arg(home.path().join(file));
        }
        program.args(args);
        let mut child = at_home(program, env, home.path()).spawn().unwrap();
        Self {
            stdout: Some(Told::by(child.stdout.take().unwrap())),
            stderr: Some(Told::by(child.stderr.take().unwrap())),
            child,
            home,
        }
    }

    /// Ends it by a signal: what it leaves for another, and how it ended.
    pub(crate) fn leave(self, signal: Signal) -> (Arc<tempfile::TempDir>, Ended) {
        let home = self.home.clone();
        self.signal(signal);
        (home, self.wait())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it runs, with its configuration in `switchboard.toml`; gone when it is dropped.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// What it has logged so far.
    pub(crate) fn stderr(&self) -> String {
        self.stderr.as_ref().map(Told::now).unwrap_or_default()
    }

    /// What it announced of a listener behind its name, protocol and transport: the address, or why there is none.
    pub(crate) fn announced(&self, name: &str) -> String {
        let line = self.stdout.as_ref().and_then(|told| told.line(name));
        let line = line.unwrap_or_else(|| panic!("no line of `{name}`: {}", self.stderr()));
        let mut rest = line.as_str();
        for _ in 0..3 {
            rest = rest
                .trim_start()
                .split_once(' ')
                .map_or("", |(_, rest)| rest);
        }
        rest.trim_start().to_owned()
    }

    /// Where a listener of the configuration listens; `grpc` and `http` are names too.
    pub(crate) fn address(&self, name: &str) -> SocketAddr {
        let told = self.announced(name);
        told.parse()
            .unwrap_or_else(|_| panic!("`{name}` has no address: {told}"))
    }

    pub(crate) fn port(&self, name: &str) -> u16 {
        self.address(name).port()
    }

    pub(crate) fn grpc(&self) -> SocketAddr {
        self.address("grpc")
    }

    pub(crate) fn http(&self) -> SocketAddr {
        self.address("http")
    }

    /// A new TCP peer of a listener of the configuration.
    pub(crate) fn talk(&self, name: &str) -> Talk {
        Talk::to(self.address(name))
    }

    /// A new UDP peer of a listener of the configuration.
    pub(crate) fn peer(&self, name: &str) -> Peer {
        Peer::to(self.address(name))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Asks it to drain and end.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Its end, which must come by itself or have been asked for.
    pub(crate) fn wait(mut self) -> Ended {
        let code = exit(&mut self.child);
        let ended = Ended {
            code,
            stdout: self.stdout.take().map(Told::all).unwrap_or_default(),
            stderr: self.stderr.take().map(Told::all).unwrap_or_default(),
        };
        assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
        ended
    }

    /// The status and the body of a GET from the HTTP side.
    pub(crate) fn http_get(&self, path: &str) -> (u16, String) {
        let mut talk = Talk::to(self.http());
        // 1.0, so that the body is all that follows, in one piece.
        talk.send(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n"));
        let answer = String::from_utf8(talk.rest()).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
        let status = head.split(' ').nth(1).expect("a status line");
        (status.parse().unwrap(), body.to_owned())
    }

    /// Runs another command of the program in its home, with its control plane for the endpoint.
    pub(crate) fn cli(&self, args: &[&str], env: &[(&str, &str)]) -> Ended {
        let mut command = command(args, env, self.home());
        command.env("SWITCHBOARD_ENDPOINT", self.grpc().to_string());
        ended(command)
    }

    /// Calls a method through grpcurl: `ListenerService/GetListener`, or the full name of a service that is not ours.
    /// Several answers of a stream come as one array.
    pub(crate) fn grpcurl(&self, method: &str, request: &Value) -> Result<Value, GrpcError> {
        let service = method.split('/').next().unwrap_or_default();
        let prefix = if service.contains('.') {
            ""
        } else {
            "switchboard.v1."
        };
        let method = format!("{prefix}{method}");
        let address = self.grpc().to_string();
        let args = ["-format-error", "-d", "@", &address, &method];
        grpcurl(&args, &request.to_string()).map(|text| {
            let mut answers: Vec<Value> = serde_json::Deserializer::from_str(&text)
                .into_iter()
                .map(Result::unwrap)
                .collect();
            if answers.len() == 1 {
                answers.remove(0)
            } else {
                Value::Array(answers)
            }
        })
    }

    /// What is under `key` in the answer of a call that must succeed.
    pub(crate) fn call(&self, method: &str, request: &Value, key: &str) -> Value {
        match self.grpcurl(method, request) {
            Ok(mut answer) => answer[key].take(),
            Err(error) => panic!("{method} {request}: {error:?}"),
        }
    }

    /// A listener as the control plane shows it.
    pub(crate) fn listener(&self, name: &str) -> Value {
        let request = json!({ "name": format!("listeners/{name}") });
        self.call("ListenerService/GetListener", &request, "listener")
    }

    /// Where any listener listens.
    pub(crate) fn bound(&self, name: &str) -> SocketAddr {
        let listener = self.listener(name);
        let bound = listener["bound"].as_str().unwrap_or_default();
        bound
            .parse()
            .unwrap_or_else(|_| panic!("`{name}` has no address: {listener}"))
    }

    /// A number of a listener's status; 0 when it is left out, as zeros are. `rejected_by_reason` has its own.
    pub(crate) fn count(&self, name: &str, key: &str) -> u64 {
        number(&self.listener(name)["status"][key])
    }

    /// How many were refused or dropped for a reason.
    pub(crate) fn rejected(&self, name: &str, reason: &str) -> u64 {
        number(&self.listener(name)["status"]["rejectedByReason"][reason])
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if self.stderr.is_none() {
            return;
        }
        // Asked again it cuts what runs, so that no command of a test that failed outlives it.
        let (began, mut asked) = (Instant::now(), None::<Instant>);
        while matches!(self.child.try_wait(), Ok(None)) && began.elapsed() < Duration::from_secs(2)
        {
            if asked.is_none_or(|at| at.elapsed() > Duration::from_millis(20)) {
                self.signal(Signal::TERM);
                asked = Some(Instant::now());
            }
            std::thread::yield_now();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let stderr = self.stderr.take().map(Told::all).unwrap_or_default();
        if std::thread::panicking() {
            eprintln!("-- the log of the service:\n{stderr}");
        } else {
            assert!(!stderr.contains("panicked"), "{stderr}");
        }
    }
}

/// A number of proto's JSON, where those of 64 bits are texts and zeros are left out.
pub(crate) fn number(value: &Value) -> u64 {
    match value {
        Value::Null => 0,
        Value::String(text) => text.parse().unwrap(),
        value => value
            .as_u64()
            .unwrap_or_else(|| panic!("a number: {value}")),
    }
}

// ------------------------------------------------------------------- grpcurl

/// A status that is not OK.
#[derive(Debug)]
pub(crate) struct GrpcError {
    /// The code's word, such as `NOT_FOUND`.
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) details: Vec<Value>,
}

impl GrpcError {
    /// The detail of a type of `google.rpc`, such as `BadRequest`.
    pub(crate) fn detail(&self, kind: &str) -> &Value {
        let is = |detail: &&Value| {
            let name = detail["@type"].as_str().unwrap_or_default();
            name.ends_with(&format!("google.rpc.{kind}"))
        };
        let found = self.details.iter().find(is);
        found.unwrap_or_else(|| panic!("no {kind} in {self:?}"))
    }

    /// The word of its `ErrorInfo`.
    pub(crate) fn reason(&self) -> &str {
        let info = self.detail("ErrorInfo");
        assert_eq!(info["domain"], "switchboard", "{self:?}");
        info["reason"].as_str().unwrap_or_default()
    }

    /// The fields that its `BadRequest` names.
    pub(crate) fn fields(&self) -> BTreeSet<&str> {
        let violations = self.detail("BadRequest")["fieldViolations"].as_array();
        let violations = violations.unwrap_or_else(|| panic!("violations: {self:?}"));
        violations
            .iter()
            .filter_map(|v| v["field"].as_str())
            .collect()
    }
}

const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Where grpcurl is: named by `SWITCHBOARD_GRPCURL`, or where `tests/run --tools` puts it.
pub(crate) fn grpcurl_program() -> Option<&'static Path> {
    static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();
    let find = || match std::env::var_os("SWITCHBOARD_GRPCURL") {
        Some(named) => Some(named.into()),
        None => {
            let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin/grpcurl");
            installed.exists().then_some(installed)
        }
    };
    PROGRAM.get_or_init(find).as_deref()
}

/// Whether there is no grpcurl, which is then said: the test cannot be run, and returns.
pub(crate) fn no_grpcurl() -> bool {
    if grpcurl_program().is_some() {
        return false;
    }
    let test = std::thread::current();
    let test = test.name().unwrap_or_default();
    // Not by `eprintln!`, which is shown of failed tests only.
    let _ = writeln!(
        std::io::stderr(),
        "SKIPPED {test}: there is no grpcurl; run `tests/run --tools`, or set SWITCHBOARD_GRPCURL"
    );
    true
}

/// Runs grpcurl with `-plaintext` and a deadline, `request` on its stdin (for `-d @`). Its own failures, such as a field that it does not know, fail the test.
pub(crate) fn grpcurl(args: &[&str], request: &str) -> Result<String, GrpcError> {
    let program = grpcurl_program().expect("a test that needs grpcurl asks `no_grpcurl` first");
    let mut child = Command::new(program)
        .args(["-plaintext", "-connect-timeout", "10", "-max-time", "25"])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|fault| panic!("{}: {fault}", program.display()));
    // One that ends without reading its request says why itself.
    let _ = child.stdin.take().unwrap().write_all(request.as_bytes());
    let output = child.wait_with_output().unwrap();
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout).unwrap());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let Ok(status) = serde_json::from_str::<Value>(&stderr) else {
        panic!("grpcurl {args:?}: {}: {stderr}", output.status);
    };
    let details = status["details"].as_array();
    Err(GrpcError {
        code: CODES[usize::try_from(number(&status["code"])).unwrap()],
        message: status["message"].as_str().unwrap_or_default().to_owned(),
        details: details.cloned().unwrap_or_default(),
    })
}

// --------------------------------------------------------------------- peers

/// A TCP peer. Whatever takes longer than [`TIMEOUT`] fails the test.
pub(crate) struct Talk(pub(crate) TcpStream);

/// An answer of the framed shell.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) header: Value,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl Frame {
    /// The code of its error; empty when the command ran.
    pub(crate) fn error(&self) -> &str {
        self.header["error"]["code"].as_str().unwrap_or_default()
    }
}

impl Talk {
    pub(crate) fn to(address: SocketAddr) -> Self {
        Self::dressed(TcpStream::connect_timeout(&address, TIMEOUT).unwrap())
    }

    /// A stream that is connected already, with the time-outs.
    pub(crate) fn dressed(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.set_write_timeout(Some(TIMEOUT)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    pub(crate) fn local(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    /// One send.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).unwrap();
    }

    /// Exactly these bytes come next.
    pub(crate) fn expect(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        let got = self.read(bytes.len());
        assert!(
            got == bytes,
            "expected {}, got {}",
            bytes.escape_ascii(),
            got.escape_ascii()
        );
    }

    /// So many bytes.
    pub(crate) fn read(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// One recv of at most so many bytes.
    pub(crate) fn recv(&mut self, most: usize) -> Vec<u8> {
        let mut bytes = vec![0; most];
        let length = self.0.read(&mut bytes).unwrap();
        bytes.truncate(length);
        bytes
    }

    /// All that comes until the service closes.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.0.read_to_end(&mut bytes).unwrap();
        bytes
    }

    /// The service closes, gracefully or not, and says nothing more.
    pub(crate) fn expect_closed(&mut self) {
        let mut bytes = [0; 1024];
        match self.0.read(&mut bytes) {
            Ok(0) => {}
            Ok(n) => panic!("instead of a close: {}", bytes[..n].escape_ascii()),
            Err(e) if e.kind() == ErrorKind::ConnectionReset => {}
            Err(e) => panic!("instead of a close: {e}"),
        }
    }

    /// Sends no more, and still reads.
    pub(crate) fn half_close(&mut self) {
        self.0.shutdown(Shutdown::Write).unwrap();
    }

    /// Leaves by a reset.
    pub(crate) fn reset(self) {
        let socket = socket2::SockRef::from(&self.0);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// One answer of the framed shell, whose header is read whole and whose lengths agree.
    pub(crate) fn frame(&mut self) -> Frame {
        let length = i32::from_le_bytes(self.read(4).try_into().unwrap());
        assert!(0 < length && length < 1024, "a header of {length} bytes");
        let header = self.read(usize::try_from(length).unwrap());
        let header: Value = serde_json::from_slice(&header).unwrap();
        let count = |key: &str| usize::try_from(header[key].as_u64().unwrap()).unwrap();
        let (stdout, stderr) = (count("stdout_len"), count("stderr_len"));
        assert_eq!(count("len"), stdout + stderr, "{header}");
        Frame {
            stdout: self.read(stdout),
            stderr: self.read(stderr),
            header,
        }
    }

    /// One command and its answer.
    pub(crate) fn command(&mut self, command: impl AsRef<[u8]>) -> Frame {
        self.send(command);
        self.frame()
    }
}

/// A UDP peer, which hears one address alone.
pub(crate) struct Peer(pub(crate) UdpSocket);

impl Peer {
    pub(crate) fn to(address: SocketAddr) -> Self {
        let any = if address.is_ipv4() {
            "127.0.0.1:0"
        } else {
            "[::1]:0"
        };
        let socket = UdpSocket::bind(any).unwrap();
        socket.connect(address).unwrap();
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        Self(socket)
    }

    pub(crate) fn local(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    /// One datagram.
    pub(crate) fn send(&self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        assert_eq!(self.0.send(bytes).unwrap(), bytes.len());
    }

    /// The next datagram.
    pub(crate) fn recv(&self) -> Vec<u8> {
        let mut bytes = vec![0; 65_536];
        let length = self.0.recv(&mut bytes).unwrap();
        bytes.truncate(length);
        bytes
    }

    /// The next datagram is this one.
    pub(crate) fn expect(&self, bytes: impl AsRef<[u8]>) {
        let (bytes, got) = (bytes.as_ref(), self.recv());
        assert!(
            got == bytes,
            "expected {}, got {}",
            bytes.escape_ascii(),
            got.escape_ascii()
        );
    }
}

// ------------------------------------------------------------------ measures

/// Whether the long sizes are asked for.
pub(crate) fn soak() -> bool {
    std::env::var("SWITCHBOARD_SOAK").is_ok_and(|value| value == "1")
}

/// As many descriptors as this process may have: each peer takes one here too.
pub(crate) fn take_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, most).unwrap();
}

/// What a process has used of the processor so far.
pub(crate) fn processor_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The name in parentheses may hold anything; behind it, user and system time are 12th and 13th.
    let rest = stat.rsplit(')').next().unwrap();
    let ticks = rest.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 1_000 / rustix::param::clock_ticks_per_second())
}

/// Resident memory of a process, in bytes.
pub(crate) fn memory(pid: u32) -> u64 {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * u64::try_from(rustix::param::page_size()).unwrap()
}
