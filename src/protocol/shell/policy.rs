//! What a message may make us run: a pure decision, before anything is started.

use std::path::{Path, PathBuf};

use super::{PATH, Policy};

/// Something to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<String>,
}

/// Why a message is not run; the words stand in the frame and in the counters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: &'static str,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

/// The kernel takes no longer argument: 32 pages less one byte.
const MAX_ARGUMENT: usize = 131_071;

/// Decides what `message` makes us run. `exists` says whether a path is a program.
pub(super) fn plan(
    message: &[u8],
    policy: Policy,
    programs: &[String],
    exists: impl Fn(&Path) -> bool,
) -> Result<Plan, Refusal> {
    let command = readable(message)?;
    match policy {
        Policy::Any => Ok(Plan {
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), command.into()],
        }),
        Policy::Programs => words(command, programs, exists),
    }
}

/// The command as text, one line end dropped.
fn readable(message: &[u8]) -> Result<&str, Refusal> {
    let message = message
        .strip_suffix(b"\n")
        .map_or(message, |m| m.strip_suffix(b"\r").unwrap_or(m));
    if let Some(at) = memchr::memchr(0, message) {
        return Err(Refusal::new(
            "nul_byte",
            format!("the command has a NUL at byte {at}"),
        ));
    }
    let command = std::str::from_utf8(message).map_err(|e| {
        Refusal::new(
            "invalid_utf8",
            format!("the command is not UTF-8 at byte {}", e.valid_up_to()),
        )
    })?;
    if command.trim().is_empty() {
        return Err(Refusal::new("empty_command", "the command is empty"));
    }
    if command.len() > MAX_ARGUMENT {
        let message = format!(
            "the command has {} bytes; {MAX_ARGUMENT} are possible",
            command.len()
        );
        return Err(Refusal::new("command_too_long", message));
    }
    Ok(command)
}

fn words(
    command: &str,
    programs: &[String],
    exists: impl Fn(&Path) -> bool,
) -> Result<Plan, Refusal> {
    let mut words = shell_words::split(command)
        .map_err(|_| Refusal::new("bad_quotes", "a quotation in the command has no end"))?
        .into_iter();
    let Some(first) = words.next() else {
        return Err(Refusal::new("empty_command", "the command is empty"));
    };
    let allowed = programs
        .iter()
        .find_map(|program| named_by(&first, program, &exists));
    match allowed {
        Some(Some(program)) => Ok(Plan {
            program,
            arguments: words.collect(),
        }),
        Some(None) => Err(Refusal::new(
            "not_found",
            "this program is allowed but not on this machine",
        )),
        None => {
            let names = programs.join(", ");
            let message = format!(
                "policy \"programs\" runs what is listed and nothing else; listed: {names}"
            );
            Err(Refusal::new("not_allowed", message))
        }
    }
}

/// Whether `word` names `program`, by its path or its base name; and where it stands, if it does.
fn named_by(word: &str, program: &str, exists: impl Fn(&Path) -> bool) -> Option<Option<PathBuf>> {
    let base = Path::new(program).file_name()?;
    let place = || {
        if program.starts_with('/') {
            return Some(PathBuf::from(program)).filter(|p| exists(p));
        }
        PATH.split(':')
            .map(|folder| Path::new(folder).join(program))
            .find(|p| exists(p))
    };
    if word.contains('/') {
        let place = place();
        let same = place.as_deref() == Some(Path::new(word)) || word == program;
        return same.then_some(place);
    }
    (base == word).then(place)
}

/// Whether a first message is, or begins, the first line of an HTTP request. A browser can be made
/// to send one to any port of its own machine, with a target, headers and a body that somebody else
/// wrote: none of it is ever run. The line may come in pieces, and may be longer than a message.
pub(super) fn is_http_request(message: &[u8]) -> bool {
    const METHODS: [&[u8]; 10] = [
        b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"CONNECT", b"TRACE",
        b"PRI",
    ];
    let end = memchr::memchr(b'\n', message);
    let line = &message[..end.unwrap_or(message.len())];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut words = line.splitn(2, |&b| b == b' ');
    let (method, rest) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let known = METHODS.contains(&method);
    let target = [&b"/"[..], b"*", b"http:", b"https:"]
        .iter()
        .any(|start| rest.starts_with(start));
    let last = rest.rsplit(|&b| b == b' ').next().unwrap_or_default();
    let version = last
        .strip_prefix(b"HTTP/")
        .is_some_and(|v| v.first().is_some_and(u8::is_ascii_digit));
    // A page may make up a method; such a line is known by its target, and by its version or by
    // being longer than anybody types.
    let made_up = target && (version || (end.is_none() && line.len() >= LONGEST_TYPED));
    let begun = target || version || rest.is_empty() || method == b"CONNECT";
    (known && begun) || made_up
}

/// No person's first command has as many bytes and still no end.
const LONGEST_TYPED: usize = 8 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn programs(message: &str, allowed: &[&str]) -> Result<Plan, Refusal> {
        let allowed: Vec<_> = allowed.iter().map(ToString::to_string).collect();
        let there = |p: &Path| {
            ["/usr/bin/echo", "/opt/tool"]
                .iter()
                .any(|x| p == Path::new(x))
        };
        plan(message.as_bytes(), Policy::Programs, &allowed, there)
    }

    fn refused(result: Result<Plan, Refusal>) -> &'static str {
        result.unwrap_err().code
    }

    #[test]
    fn a_shell_gets_the_line_as_it_is_less_one_line_end() {
        for sent in ["ls | wc", "ls | wc\n", "ls | wc\r\n"] {
            let plan = plan(sent.as_bytes(), Policy::Any, &[], |_| false).unwrap();
            assert_eq!(plan.arguments, ["-c", "ls | wc"]);
        }
    }

    #[test]
    fn words_are_split_and_nothing_is_expanded() {
        let plan = programs(r#"echo "a  b" '$HOME' *  ; id"#, &["echo"]).unwrap();
        assert_eq!(plan.program, Path::new("/usr/bin/echo"));
        assert_eq!(plan.arguments, ["a  b", "$HOME", "*", ";", "id"]);
    }

    #[test]
    fn a_program_is_named_by_its_name_or_its_path_and_by_nothing_else() {
        assert!(programs("/usr/bin/echo x", &["echo"]).is_ok());
        assert!(programs("tool", &["/opt/tool"]).is_ok());
        assert!(programs("/opt/tool", &["/opt/tool"]).is_ok());
        for word in [
            "/tmp/echo",
            "./echo",
            "../usr/bin/echo",
            "/usr/bin/../bin/echo",
            "sh",
            "Echo",
        ] {
            assert_eq!(refused(programs(word, &["echo"])), "not_allowed", "{word}");
        }
        assert_eq!(refused(programs("absent", &["absent"])), "not_found");
    }

    #[test]
    fn what_cannot_be_a_command_says_why() {
        let any = |m: &[u8]| refused(plan(m, Policy::Any, &[], |_| true));
        assert_eq!(any(b"echo \0"), "nul_byte");
        assert_eq!(any(b"echo \xff"), "invalid_utf8");
        assert_eq!(any(b""), "empty_command");
        assert_eq!(any(b" \r\n"), "empty_command");
        assert_eq!(any(&[b'a'; MAX_ARGUMENT + 1]), "command_too_long");
        assert_eq!(refused(programs("echo 'a", &["echo"])), "bad_quotes");
    }

    #[test]
    fn an_http_request_is_known_by_its_first_line() {
        let long = format!("brew /{}", "a".repeat(70_000));
        for yes in [
            "GET / HTTP/1.1\r\nHost: x",
            "POST /x y HTTP/1.0",
            "PRI * HTTP/2.0\r\n",
            "GET",
            "GET /",
            "GET /a-line-that-is-not-all-here-yet",
            "CONNECT example.org:443",
            "brew /pot HTTP/1.1\r\n",
            &long,
        ] {
            assert!(is_http_request(yes.as_bytes()), "{yes}");
        }
        for no in [
            "echo GET / HTTP/1.1",
            "ls /",
            "GETTY x",
            "ls",
            "",
            "HTTP/1.1",
        ] {
            assert!(!is_http_request(no.as_bytes()), "{no}");
        }
    }

    proptest! {
        #[test]
        fn only_what_is_named_is_ever_run(line in ".{0,60}") {
            if let Ok(plan) = programs(&line, &["echo"]) {
                prop_assert_eq!(plan.program, Path::new("/usr/bin/echo"));
            }
        }
    }
}
