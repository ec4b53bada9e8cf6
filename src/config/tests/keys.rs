//! Unknown keys and the ones that were meant.

use proptest::prelude::*;

use super::{complaints, read};
use crate::config::Reason;

#[test]
fn an_unknown_key_is_told_at_every_depth() {
    assert_eq!(
        complaints(
            "grcp.address = 1\n\n[grpc]\nadress = 2\n\n[listeners.\"a b\".limits]\nmax-sessions = 3\n"
        ),
        [
            "a.toml:1:1: grcp: unknown key; did you mean `grpc`?",
            "a.toml:4:1: grpc.adress: unknown key; did you mean `address`?",
            "a.toml:6:12: listeners.\"a b\".protocol: is required, one of ack, uppercase, shell",
            "a.toml:7:1: listeners.\"a b\".limits.max-sessions: unknown key; did you mean `max_sessions`?",
        ]
    );
}

/// Keys of every depth, with a value that each takes.
const KEYS: [(&str, &str, &str); 6] = [
    ("", "listeners", "{}"),
    ("grpc.", "address", "\"127.0.0.1:1\""),
    ("grpc.", "allow_shell", "true"),
    ("node.", "weight", "1.5"),
    ("listeners.x.", "encoding", "\"gbk\""),
    ("listeners.x.limits.", "max_sessions", "1"),
];

/// One edit of a word: a letter removed, replaced, inserted or swapped with the next.
fn edited(word: &str, edit: u8, at: usize, letter: char) -> String {
    let mut letters: Vec<_> = word.chars().collect();
    let at = at % letters.len();
    match edit {
        0 => _ = letters.remove(at),
        1 => letters[at] = letter,
        2 => letters.insert(at, letter),
        _ => {
            let next = (at + 1) % letters.len();
            letters.swap(at.min(next), at.max(next));
        }
    }
    letters.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_slip_in_a_key_is_refused_with_the_right_key(
        which in 0..KEYS.len(),
        edit in 0..4_u8,
        at in 0..32_usize,
        letter in proptest::char::range('a', 'z'),
    ) {
        let (parent, key, value) = KEYS[which];
        let slip = edited(key, edit, at, letter);
        prop_assume!(slip != key);
        let listener = "listeners.x.bind = \"1\"\nlisteners.x.protocol = \"uppercase\"\n";
        let problems = read(&format!("{listener}{parent}{slip} = {value}\n")).unwrap_err();
        let found: Vec<_> = problems.into_iter().collect();
        prop_assert_eq!(found.len(), 1);
        prop_assert_eq!(found[0].reason, Reason::UnknownKey);
        prop_assert_eq!(&found[0].key, &format!("{parent}{slip}"));
        prop_assert_eq!(found[0].suggestion.as_deref(), Some(key));
        prop_assert_eq!(found[0].origin.as_ref().unwrap().line, Some(3));
    }
}
