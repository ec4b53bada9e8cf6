//! Cutting a byte stream into messages, and framing an answer.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use switchboard::net::{Cut, Framing};

const SIZES: [usize; 2] = [64, 64 << 10];

/// Longest message of a listener that says nothing of it.
const MOST: usize = 64 << 10;

/// What a full segment of Ethernet carries.
const SEGMENT: usize = 1_460;

/// Finds the one message of `size` bytes. Only a line has to be looked for.
fn cut(bencher: Bencher<'_, '_>, framing: Framing, size: usize) {
    let bytes = framing.wrap(&vec![b'x'; size]);
    let first = || black_box(framing).cut(black_box(&bytes), 0, MOST, false);
    let Cut::Message { body, consumed } = first() else {
        panic!("{framing:?} found no message in {} bytes", bytes.len());
    };
    assert_eq!((body.len(), consumed), (size, bytes.len()));
    match framing {
        Framing::Line => bencher.counter(BytesCount::new(size)).bench_local(first),
        _ => bencher.bench_local(first),
    }
}

#[divan::bench(args = SIZES)]
fn raw(bencher: Bencher<'_, '_>, size: usize) {
    cut(bencher, Framing::Raw, size);
}

#[divan::bench(args = SIZES)]
fn line(bencher: Bencher<'_, '_>, size: usize) {
    cut(bencher, Framing::Line, size);
}

#[divan::bench(args = SIZES)]
fn length(bencher: Bencher<'_, '_>, size: usize) {
    cut(bencher, Framing::Length, size);
}

/// A line that comes in many reads is not searched from its beginning at each of them.
#[divan::bench(args = SIZES)]
fn line_in_segments(bencher: Bencher<'_, '_>, size: usize) {
    let bytes = Framing::Line.wrap(&vec![b'x'; size]);
    let ends: Vec<usize> = (SEGMENT..bytes.len())
        .step_by(SEGMENT)
        .chain([bytes.len()])
        .collect();
    let whole = || {
        let mut seen = 0;
        for &end in &ends {
            match Framing::Line.cut(black_box(&bytes[..end]), seen, MOST, false) {
                Cut::More { scanned } => seen = scanned,
                Cut::Message { consumed, .. } => return consumed,
                Cut::Violation(violation) => panic!("{violation:?}"),
            }
        }
        0
    };
    assert_eq!(whole(), bytes.len());
    bencher.counter(BytesCount::new(size)).bench_local(whole);
}

#[divan::bench(args = SIZES)]
fn wrap_length(bencher: Bencher<'_, '_>, size: usize) {
    let message = vec![b'x'; size];
    bencher
        .counter(BytesCount::new(size))
        .bench_local(|| Framing::Length.wrap(black_box(&message)));
}
