//! Answering a datagram in upper case.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use switchboard::net::MAX_DATAGRAM;
use switchboard::protocol::uppercase::{Invalid, Settings, Uppercase};

fn answer(bencher: Bencher<'_, '_>, settings: &Settings, question: &[u8], begins: &[u8]) {
    let uppercase = Uppercase::new(settings);
    let mut out = Vec::with_capacity(4 * MAX_DATAGRAM);
    uppercase.answer(question, &mut out).unwrap();
    assert!(out.starts_with(begins));
    bencher
        .counter(BytesCount::of_slice(question))
        .bench_local(|| {
            out.clear();
            uppercase.answer(black_box(question), &mut out)
        });
}

/// `text` as often as it fits in `size`.
fn filled(text: &str, size: usize) -> Vec<u8> {
    text.repeat(size / text.len()).into_bytes()
}

#[divan::bench(args = [64, 1_400, MAX_DATAGRAM])]
fn ascii(bencher: Bencher<'_, '_>, size: usize) {
    let question = filled("k", size);
    answer(bencher, &Settings::default(), &question, b"KKK");
}

#[divan::bench(args = [64, 1_400])]
fn mixed(bencher: Bencher<'_, '_>, size: usize) {
    let question = filled("the straße, ñandú and привет ", size);
    let begins = "THE STRASSE, ÑANDÚ AND ПРИВЕТ".as_bytes();
    answer(bencher, &Settings::default(), &question, begins);
}

/// Each character becomes three, and the answer three times as long.
#[divan::bench(args = [64, 1_400, MAX_DATAGRAM / 3])]
fn tripled(bencher: Bencher<'_, '_>, size: usize) {
    let question = filled("\u{390}", size);
    let begins = "\u{399}\u{308}\u{301}".as_bytes();
    answer(bencher, &Settings::default(), &question, begins);
}

/// None of it is text, and each byte is answered by three.
#[divan::bench(args = [64, 1_400, MAX_DATAGRAM / 3])]
fn replaced(bencher: Bencher<'_, '_>, size: usize) {
    let settings = Settings {
        invalid: Invalid::Replace,
        ..Settings::default()
    };
    answer(bencher, &settings, &vec![0xff; size], "\u{fffd}".as_bytes());
}
