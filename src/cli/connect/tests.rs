//! Every wire against a tiny server of that wire.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::thread;

use super::*;

/// Serves one client by hand.
fn server(behave: impl FnOnce(TcpStream) + Send + 'static) -> Vec<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || behave(listener.accept().unwrap().0));
    vec![address]
}

/// Reads `question`, then sends the pieces.
fn answering(question: &'static [u8], pieces: &[&[u8]]) -> Vec<SocketAddr> {
    let pieces: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.to_vec()).collect();
    server(move |mut client| {
        client.set_nodelay(true).unwrap();
        let mut asked = vec![0; question.len()];
        client.read_exact(&mut asked).unwrap();
        assert_eq!(asked, question);
        for piece in pieces {
            client.write_all(&piece).unwrap();
        }
    })
}

fn lines(text: &str) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.rewind().unwrap();
    file
}

fn screen() -> Screen<Vec<u8>> {
    Screen::new(Vec::new(), false)
}

/// What a visit in lockstep printed, and how it ended.
fn stream(addresses: &[SocketAddr], framing: Framing, text: &str) -> (String, Result<(), Failure>) {
    let (mut peer, mut screen) = (Stream::connect(addresses, framing, None).unwrap(), screen());
    let mut prompt = Prompt::piped(lines(text), None);
    let done = visit(&mut prompt, |line| exchange(&mut peer, line, &mut screen));
    (String::from_utf8(screen.into_inner()).unwrap(), done)
}

fn shell(addresses: &[SocketAddr], line: &[u8]) -> (Vec<u8>, Result<(), Failure>) {
    let mut peer = Stream::connect(addresses, Framing::Raw, None).unwrap();
    let mut screen = screen();
    let text = String::from_utf8(line.to_vec()).unwrap();
    let mut prompt = Prompt::piped(lines(&text), None);
    let done = super::shell(&mut peer, &mut prompt, &mut screen);
    (screen.into_inner(), done)
}

fn fails_with(done: &Result<(), Failure>, expected: u8) -> bool {
    matches!(done, Err(Failure::Here(code, _)) if *code == expected)
}

#[test]
fn framings_are_kept() {
    for (framing, question, answer) in [
        (Framing::Raw, &b"hello"[..], &[&b"yes"[..]][..]),
        (Framing::Line, b"hello\n", &[b"ye", b"s\n"]),
        (
            Framing::Length,
            b"\x05\0\0\0hello",
            &[b"\x03\0", b"\0\0y", b"es"],
        ),
    ] {
        let (text, done) = stream(&answering(question, answer), framing, "hello\nq\nmore\n");
        assert_eq!(text, "yes\n", "{framing:?}");
        done.unwrap();
    }
}

#[test]
fn a_line_of_nothing_is_no_raw_message() {
    let (text, done) = stream(&answering(b"hello", &[b"yes"]), Framing::Raw, "\n\nhello\n");
    assert_eq!(text, "yes\n");
    done.unwrap();
}

#[test]
fn a_server_that_leaves_is_told_apart_from_leaving() {
    let (text, done) = stream(
        &answering(b"hello", &[b"yes"]),
        Framing::Raw,
        "hello\nagain\n",
    );
    assert_eq!(text, "yes\n");
    assert!(fails_with(&done, ERROR), "{done:?}");
}

#[test]
fn lengths_that_lie_are_refused() {
    for length in [-1i32, i32::MAX] {
        let server = answering(b"\x02\0\0\0hi", &[&length.to_le_bytes()]);
        let (_, done) = stream(&server, Framing::Length, "hi\n");
        assert!(fails_with(&done, ERROR), "{done:?}");
    }
}

#[test]
fn a_shells_answer_may_come_in_crumbs() {
    let header = br#"{"error":null,"len":7,"more":{}}"#;
    let whole = [&[header.len() as u8, 0, 0, 0][..], header, b"a\0\xff\nbc\n"].concat();
    let crumbs: Vec<&[u8]> = whole.chunks(1).collect();
    let (body, done) = shell(&answering(b"ls", &crumbs), b"ls");
    assert_eq!(body, b"a\0\xff\nbc\n");
    done.unwrap();
}

#[test]
fn a_large_body_passes_through() {
    const SIZE: usize = 3 << 20;
    let header = format!(r#"{{"filename":"cls.avi","len":{SIZE}}}"#);
    let whole = [
        &[header.len() as u8, 0, 0, 0][..],
        header.as_bytes(),
        &[7; SIZE],
    ]
    .concat();
    let (body, done) = shell(&answering(b"cat", &[&whole]), b"cat");
    assert!(body == vec![7; SIZE]);
    done.unwrap();
}

#[test]
fn a_command_that_was_refused_fails_a_script() {
    let header = br#"{"len":0,"error":{"code":"denied","message":"no"}}"#;
    let answer = [&[header.len() as u8, 0, 0, 0][..], header].concat();
    let (body, done) = shell(&answering(b"rm", &[&answer]), b"rm");
    assert!(body.is_empty());
    assert!(matches!(done, Err(Failure::Told(ERROR))), "{done:?}");
}

#[test]
fn a_shells_frame_that_lies_or_stops_is_an_error() {
    for answer in [
        &b"\xff\xff\xff\xff"[..],
        b"\0\0\0\0",
        b"\xff\xff\xff\x7f{}",
        b"\x02\0\0\0{}",
        b"\x09\0",
        b"\x09\0\0\0{\"len\"",
        b"\x09\0\0\0{\"len\":5}abc",
        b"",
    ] {
        let (_, done) = shell(&answering(b"ls", &[answer]), b"ls");
        assert!(fails_with(&done, ERROR), "{answer:?}: {done:?}");
    }
}

#[test]
fn nobody_there_is_unavailable() {
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let refused = Stream::connect(&[closed], Framing::Raw, None).map(|_| ());
    assert!(fails_with(&refused, UNAVAILABLE), "{refused:?}");
    let mut peer = Datagrams::connect(&[closed], Duration::from_secs(5)).unwrap();
    let refused = peer.exchange(b"hello", &mut screen()).map(|_| ());
    assert!(fails_with(&refused, UNAVAILABLE), "{refused:?}");
}

#[test]
fn a_silent_stream_is_left_when_asked_to() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let timeout = Some(Duration::from_millis(20));
    let mut peer =
        Stream::connect(&[listener.local_addr().unwrap()], Framing::Raw, timeout).unwrap();
    let done = exchange(&mut peer, b"hello", &mut screen());
    assert!(fails_with(&done, UNAVAILABLE), "{done:?}");
}

#[test]
fn a_late_datagram_is_not_the_next_answer() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let timeout = Duration::from_millis(500);
    let mut peer = Datagrams::connect(&[socket.local_addr().unwrap()], timeout).unwrap();
    let mut screen = screen();
    assert!(!peer.exchange(b"one", &mut screen).unwrap());

    let mut asked = [0; 16];
    let (_, from) = socket.recv_from(&mut asked).unwrap();
    socket.send_to(b"ONE", from).unwrap();
    let answering = thread::spawn(move || {
        let (length, from) = socket.recv_from(&mut asked).unwrap();
        assert_eq!(&asked[..length], b"two");
        socket.send_to(b"TWO", from).unwrap();
    });
    assert!(peer.exchange(b"two", &mut screen).unwrap());
    answering.join().unwrap();
    assert_eq!(screen.into_inner(), b"TWO\n");
}

/// A free visit with the lines given; what it printed, and how it ended.
fn free(addresses: &[SocketAddr], framing: Framing, input: File) -> (String, Result<(), Failure>) {
    let mut peer = Stream::connect(addresses, framing, None).unwrap();
    let watched = peer.as_fd().try_clone_to_owned().unwrap();
    let (mut prompt, mut screen) = (Prompt::piped(input, Some(watched)), screen());
    let done = free::visit(&mut peer, &mut prompt, &mut screen);
    (String::from_utf8(screen.into_inner()).unwrap(), done)
}

#[test]
fn free_prints_what_comes_and_waits_for_the_rest() {
    let addresses = server(|mut client| {
        client.write_all(b"welcome\n").unwrap();
        let mut said = String::new();
        client.read_to_string(&mut said).unwrap();
        client
            .write_all(format!("you said {said}").as_bytes())
            .unwrap();
    });
    let (text, done) = free(&addresses, Framing::Line, lines("a\nb\n"));
    assert_eq!(text, "welcome\nyou said a\nb\n");
    done.unwrap();
}

#[test]
fn free_prints_every_frame_that_came_at_once() {
    let addresses = server(|mut client| {
        client.write_all(b"\x03\0\0\0one\x03\0\0\0two").unwrap();
        client.read_to_end(&mut Vec::new()).unwrap();
    });
    let (text, done) = free(&addresses, Framing::Length, lines(""));
    assert_eq!(text, "one\ntwo\n");
    done.unwrap();
}

#[test]
fn free_notices_a_server_that_leaves() {
    let (silent, _writer) = io::pipe().unwrap();
    let addresses = server(drop);
    let (_, done) = free(&addresses, Framing::Raw, File::from(OwnedFd::from(silent)));
    assert!(fails_with(&done, ERROR), "{done:?}");
}

#[test]
fn arguments_that_contradict_each_other_are_refused() {
    let args = |protocol| ConnectArgs {
        protocol,
        address: "localhost:1".into(),
        udp: false,
        framing: None,
        free: false,
        lines: Vec::new(),
        timeout: None,
    };
    args(Protocol::Uppercase).check().unwrap();
    ConnectArgs {
        udp: true,
        free: true,
        ..args(Protocol::Chat)
    }
    .check()
    .unwrap();
    for wrong in [
        ConnectArgs {
            udp: true,
            ..args(Protocol::Shell)
        },
        ConnectArgs {
            free: true,
            ..args(Protocol::Ack)
        },
        ConnectArgs {
            framing: Some(Framing::Line),
            ..args(Protocol::Uppercase)
        },
        ConnectArgs {
            timeout: Some(Duration::ZERO),
            ..args(Protocol::Chat)
        },
    ] {
        wrong.check().unwrap_err();
    }
}
