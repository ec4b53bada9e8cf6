//! Tests of the real binary, one file a promise.
fn main() {}
