//! Names of sessions, and texts of peers made safe to show.

use std::fmt::Write;

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use switchboard::net::SessionId;
use switchboard::telemetry::{escape, escape_bytes};

const ID: SessionId = SessionId(0x0193_5a2b_3c4d_0000_0000_0123_4567_89ab);

#[divan::bench]
fn session_id_shown(bencher: Bencher<'_, '_>) {
    let mut text = String::with_capacity(32);
    bencher.bench_local(|| {
        text.clear();
        write!(text, "{}", black_box(ID))
    });
    assert_eq!(text.parse(), Ok(ID));
}

#[divan::bench]
fn session_id_read(bencher: Bencher<'_, '_>) {
    let text = ID.to_string();
    bencher.bench_local(|| black_box(text.as_str()).parse::<SessionId>());
}

#[divan::bench]
fn escape_of_harmless_text(bencher: Bencher<'_, '_>) {
    let text = "nothing to be seen here, ".repeat(40);
    assert_eq!(escape(&text), text);
    bencher
        .counter(BytesCount::of_str(&text))
        .bench_local(|| escape(black_box(&text)).len());
}

#[divan::bench]
fn escape_of_hostile_bytes(bencher: Bencher<'_, '_>) {
    let bytes = b"a line\n\x1b[2J, a forged one \xff\xfe and \\ ".repeat(25);
    assert!(escape_bytes(&bytes).starts_with(r"a line\n\u{1b}[2J, a forged one \xff\xfe and \\ "));
    bencher
        .counter(BytesCount::of_slice(&bytes))
        .bench_local(|| escape_bytes(black_box(&bytes)));
}
