//! Tables whose keys are chosen by one of them.

use super::{Protocol, Uppercase, complaints, read};

#[test]
fn a_tagged_table_is_read_by_its_tag() {
    let loaded = read(
        "[listeners.a]\nprotocol = \"ack\"\nbind = \"1\"\n\
         [listeners.s]\nbind = \"2\"\nprograms = [\"ls\"]\npolicy = \"any\"\nprotocol = \"shell\"\n\
         [listeners.u]\nencoding = \"gbk\"\nprotocol = \"uppercase\"\nbind = \"3\"\nlabels.\"a.b\" = \"c\"",
    )
    .unwrap();
    let listeners = &loaded.value.listeners;
    assert_eq!(listeners["a"].protocol, Protocol::Ack);
    let encoding = "gbk".to_owned();
    assert_eq!(
        listeners["u"].protocol,
        Protocol::Uppercase(Uppercase { encoding })
    );
    assert_eq!(listeners["u"].labels["a.b"], "c");
    let label = loaded.origins.get("listeners.u.labels.\"a.b\"").unwrap();
    assert_eq!(label.origin.line, Some(13));
    assert!(
        matches!(&listeners["s"].protocol, Protocol::Shell { programs, .. } if programs == &["ls"])
    );
}

/// What stands in `[listeners.x]`, from the second line on, and what is said of it; `|` parts the lines.
const WRONG: [(&str, &str); 11] = [
    (
        "bind = \"1\"",
        "1:12: listeners.x.protocol: is required, one of ack, uppercase, shell",
    ),
    (
        "bind = \"1\"\nprotocl = \"ack\"",
        "3:1: listeners.x.protocl: unknown key; did you mean `protocol`?",
    ),
    (
        "bind = \"1\"\nprotocol = \"shel\"\npolicy = \"any\"",
        "3:12: listeners.x.protocol: unknown word \"shel\"; one of ack, uppercase, shell; did you mean `shell`?",
    ),
    (
        "bind = \"1\"\nprotocol = \"uppercase\"\nencodign = \"gbk\"",
        "4:1: listeners.x.encodign: unknown key; did you mean `encoding`?",
    ),
    (
        "bidn = \"1\"\nprotocol = \"uppercase\"",
        "2:1: listeners.x.bidn: unknown key; did you mean `bind`?",
    ),
    (
        "bind = \"1\"\nprotocol = \"ack\"\nlimit = {}",
        "4:1: listeners.x.limit: unknown key; did you mean `limits`?",
    ),
    (
        "bind = \"1\"\nprotocol = \"shell\"",
        "1:12: listeners.x.policy: is required",
    ),
    (
        "bind = \"1\"\nprotocol = \"shell\"\npolicy = \"all\"",
        "4:10: listeners.x.policy: unknown word \"all\"; one of any, programs",
    ),
    (
        "bind = \"1\"\nprotocol = \"shell\"\npolicy = 1\nprograms = [\"a\", 2]",
        "4:10: listeners.x.policy: expected a word, found 1|5:18: listeners.x.programs[1]: expected text, found 2",
    ),
    (
        "bind = \"1\"\nprotocol = \"ack\"\n\"$protocol\" = 1",
        "4:1: listeners.x.\"$protocol\": unknown key; did you mean `protocol`?",
    ),
    (
        "protocol = \"ack\"\nbind = \"1\"\n[listeners.x.limits]\nmax_sessions = -1\nrat = 1",
        "5:16: listeners.x.limits.max_sessions: expected a whole number from 0 to 4294967295, found -1|6:1: listeners.x.limits.rat: unknown key; did you mean `rate`?",
    ),
];

#[test]
fn a_tagged_table_tells_where_it_is_wrong() {
    for (body, complaint) in WRONG {
        let expected: Vec<_> = complaint
            .split('|')
            .map(|line| format!("a.toml:{line}"))
            .collect();
        assert_eq!(complaints(&format!("[listeners.x]\n{body}")), expected);
    }
}
