//! What is wanted by which text, and that no text does harm.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use tonic_types::StatusExt;

use super::Filter;
use super::api;
use super::expression::{Comparator, Expression, Word, Written};
use super::syntax::parse;

fn listener() -> api::Listener {
    api::Listener {
        name: "listeners/ack".to_owned(),
        bind: "127.0.0.1:4000".to_owned(),
        labels: BTreeMap::from([
            ("team".into(), "edge".into()),
            ("a.b".into(), "dotted".into()),
        ]),
        state: api::listener::State::Active.into(),
        reconciling: true,
        create_time: Some("2026-11-22T10:00:00.5Z".parse().unwrap()),
        limits: Some(api::ListenerLimits {
            idle_timeout: Some("1.5s".parse().unwrap()),
            max_message_rate: 0.5,
            allow_cidrs: vec!["10.0.0.0/8".into(), "192.0.2.0/24".into()],
            ..api::ListenerLimits::default()
        }),
        status: Some(api::ListenerStatus {
            active_sessions: 7,
            received_bytes: u64::MAX,
            accept_queue_length: Some(0),
            rejected_by_reason: BTreeMap::from([("denied".into(), 3)]),
            ..api::ListenerStatus::default()
        }),
        protocol: Some(api::listener::Protocol::Ack(api::AckProtocol {
            once: true,
            ..api::AckProtocol::default()
        })),
        ..api::Listener::default()
    }
}

fn admits(text: &str) -> bool {
    Filter::read::<api::Listener>("filter", text)
        .unwrap()
        .admits(&listener())
}

/// What is told of a text that is wrong.
fn faults(text: &str) -> Vec<String> {
    let refused = Filter::read::<api::Listener>("condition", text).unwrap_err();
    assert_eq!(
        refused.get_details_error_info().unwrap().reason,
        "FILTER_INVALID"
    );
    let violations = refused.get_details_bad_request().unwrap().field_violations;
    violations
        .into_iter()
        .map(|violation| {
            assert_eq!(violation.field, "condition");
            violation.description
        })
        .collect()
}

#[test]
fn every_kind_of_field_is_compared_by_its_own_measure() {
    for wanted in [
        "",
        "  ",
        "*",
        r#"name = "listeners/ack""#,
        "name = listeners/ack",
        "bind = 127.0.0.1:4000",
        r#"name : "ack""#,
        "name > listeners/abc AND name <= listeners/ack",
        "state = STATE_ACTIVE",
        "state = active",
        "state : STATE_ACTIVE",
        "state != STATE_FAILED",
        "reconciling = true",
        "status.active_sessions = 7",
        "status.activeSessions >= 7",
        "status.active_sessions > -1",
        "status.received_bytes > 18446744073709551614",
        "status.accept_queue_length = 0",
        "limits.idle_timeout = 1.5s",
        r#"limits.idle_timeout < "1m 30s""#,
        "limits.max_message_rate > 0.25",
        r#"create_time > "2026-11-22T10:00:00Z""#,
        "create_time < 2026-11-22T11:00:00.6+01:00",
        "ack.once = true",
        "labels.team = edge",
        r#"labels.team : "dg""#,
        "labels.a.b = dotted",
        r#"labels."a.b" = 'dotted'"#,
        "labels : team",
        "labels:*",
        "labels.team:*",
        "status.rejected_by_reason.denied = 3",
        r#"limits.allow_cidrs : "10.0.0.0/8""#,
        "limits.allow_cidrs:*",
        "status:* AND ack:* AND name:* AND status.accept_queue_length:*",
    ] {
        assert!(admits(wanted), "{wanted}");
    }
    for unwanted in [
        "name = listeners",
        "name : ACK",
        "state = failed",
        "reconciling = false",
        "status.active_sessions < 7",
        "limits.allow_cidrs : 10.0.0.0",
        "labels : edge",
        "labels.stage:*",
        "display_name:*",
        "drain:*",
        "shell:*",
        "status.accept_queue_limit:*",
        r#"name = "*""#,
    ] {
        assert!(!admits(unwanted), "{unwanted}");
    }
}

#[test]
fn what_is_not_there_is_like_nothing_and_unlike_nothing() {
    for absent in ["start_time", "drain.start_time", "last_failure.fail_time"] {
        assert!(!admits(&format!("{absent} > 2000-01-01T00:00:00Z")));
        assert!(!admits(&format!("{absent} != 2000-01-01T00:00:00Z")));
        assert!(admits(&format!("NOT {absent} = 2000-01-01T00:00:00Z")));
    }
    assert!(!admits("labels.stage != x") && admits("-labels.stage = x"));
    assert!(!admits("status.accept_queue_limit != 1"));
    assert!(!admits("last_failure.reason != x"));
    // A text or a number that was never set is empty or zero, and there.
    assert!(admits(
        "display_name = '' AND display_name != x AND status.sent_bytes = 0"
    ));
}

#[test]
fn or_binds_tighter_than_and() {
    let names = |text: &str| {
        let one = |written: Written<'_>| Some(written.path.join("."));
        format!("{:?}", parse(text).unwrap().bind(&mut { one }).unwrap())
    };
    assert_eq!(
        names("a=1 AND b=1 OR c=1 AND d=1"),
        names("a=1 AND (b=1 OR c=1) AND d=1")
    );
    assert_eq!(names("a=1 b=1 OR c=1"), names("a=1 AND (b=1 OR c=1)"));
    assert_eq!(names("NOT a=1 OR -b=1"), names("(NOT a=1) OR (NOT b=1)"));
    let yes = "state = active";
    let no = "state = failed";
    for (text, wanted) in [
        (format!("{yes} {no}"), false),
        (format!("{no} OR {yes}"), true),
        (format!("{no} AND {no} OR {yes}"), false),
        (format!("({no} AND {no}) OR {yes}"), true),
        (format!("NOT {no} -{no} NOT ({no} OR {no})"), true),
        (format!("(({yes}))AND({yes})"), true),
        (format!("(*) {yes}"), true),
        (format!("NOT(*)OR {no}"), false),
    ] {
        assert_eq!(admits(&text), wanted, "{text}");
    }
}

#[test]
fn quotes_hold_everything() {
    let value = |text| match parse(text).unwrap() {
        Expression::One(written) => (written.comparator, written.value.text().to_owned()),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        value(r#"a:"x \" ) \\ AND é""#),
        (Comparator::Has, r#"x " ) \ AND é"#.into())
    );
    assert_eq!(
        value(r#"a != 'it\'s'"#),
        (Comparator::Unequal, "it's".into())
    );
    assert_eq!(Word::Quoted("x".into()).text(), Word::Bare("x").text());
}

#[test]
fn a_wrong_text_is_told_where_it_is_wrong_and_what_would_be_right() {
    for (text, told) in [
        (
            "stat = STATE_ACTIVE",
            "at 1: Listener has no field `stat`; did you mean `state`?",
        ),
        (
            "status.active = 1",
            "at 1: ListenerStatus has no field `active`; did you mean `active_sessions`?",
        ),
        ("name.x = 1", "at 1: `name` has no fields of its own"),
        (
            "create_time.seconds = 1",
            "at 1: `create_time` has no fields of its own",
        ),
        (
            "reconciling = maybe",
            "at 15: `maybe` is no value of `reconciling`, which is `true` or `false`",
        ),
        (
            "status.active_sessions = 1.5",
            "at 26: `1.5` is no value of `status.active_sessions`, which is a whole number, such as 42",
        ),
        (
            "limits.idle_timeout = 5",
            "at 23: `5` is no value of `limits.idle_timeout`, which is a duration, such as 1.5s or 5m",
        ),
        (
            "create_time > today",
            "at 15: `today` is no value of `create_time`, which is a time, such as \"2026-11-22T10:00:00Z\"",
        ),
        (
            "limits.max_message_rate = x",
            "at 27: `x` is no value of `limits.max_message_rate`, which is a number, such as 0.5",
        ),
        (
            "state > STATE_ACTIVE",
            "at 1: `state` has no order; compare it by `=` or `!=`",
        ),
        (
            "limits.allow_cidrs = x",
            "at 1: `limits.allow_cidrs` is a list; ask for a value by `:`",
        ),
        ("status = x", "at 1: `status` is asked for by `:*` alone"),
        (
            "ack.reply : x",
            "at 1: `ack.reply` is asked for by `:*` alone",
        ),
        (
            "name = x and state = active",
            "at 10: write AND in capitals between comparisons",
        ),
        (
            "name",
            "at 1: compare `name` with something, by `=`, `!=`, `<`, `<=`, `>`, `>=` or `:`",
        ),
        ("name =", "at 7: a value is missing at the end"),
        ("name == x", "at 7: a value is expected, not `=`"),
        ("é = (x)", "at 5: a value is expected, not `(`"),
        (
            "name = x AND",
            "at 13: the name of a field is missing at the end",
        ),
        ("AND name = x", "at 1: `AND` stands between two comparisons"),
        (
            "name = x OR OR name = y",
            "at 13: `OR` stands between two comparisons",
        ),
        ("(name = x", "at 1: this `(` is not closed"),
        ("name = x)", "at 9: this `)` closes nothing"),
        ("name = \"x", "at 8: this quote is not closed"),
        ("()", "at 2: the name of a field is expected, not `)`"),
    ] {
        assert_eq!(faults(text), [told], "{text}");
    }
    let enumerated = faults("state = STATE_ACTIV");
    assert!(
        enumerated[0].contains("one of STATE_ACTIVE, STATE_PAUSED, "),
        "{enumerated:?}"
    );
    assert_eq!(
        faults("x = 1 OR (state = y AND NOT reconciling < true)").len(),
        3
    );
}

#[test]
fn what_is_only_asked_of_what_is_shown_is_not_looked_for() {
    for text in ["NOT tcp_info.retransmits > 0", "tcpInfo:*"] {
        let refused = Filter::read::<api::Session>("filter", text).unwrap_err();
        assert!(refused.message().contains("cannot be looked for"), "{text}");
    }
}

#[test]
fn what_a_text_may_be_is_bounded() {
    let nested = |depth: usize| format!("{}name = x{}", "(".repeat(depth), ")".repeat(depth));
    assert!(Filter::read::<api::Listener>("filter", &nested(32)).is_ok());
    assert_eq!(
        faults(&nested(33)),
        ["at 34: parentheses stand 32 deep at most"]
    );
    assert_eq!(
        faults(&" x = y".repeat(700)),
        ["at 4097: it is longer than 4096 bytes"]
    );
    // Enough for the slowest machine, and little beside what a quadratic reader would take.
    let began = Instant::now();
    for longest in [
        "(",
        "-",
        "\"",
        "x=1 ",
        "a.",
        "name:\"\\",
        "zz=1 OR ",
        "NOT ",
        "nam:x ",
    ] {
        let text: String = longest.chars().cycle().take(super::LONGEST).collect();
        let _ = Filter::read::<api::Listener>("filter", &text);
    }
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
}

proptest! {
    #[test]
    fn no_text_does_harm(text in r#"([a-z_.]{0,8}|[ -~é]{0,6}|AND |OR |NOT |\(|\)|-|"|'|\\|=|:|\*|create_time > |labels\.|status\.|state = ){0,24}"#) {
        if let Ok(filter) = Filter::read::<api::Listener>("filter", &text) {
            filter.admits(&listener());
            filter.admits(&api::Listener::default());
        }
    }

    #[test]
    fn no_value_does_harm(field in "create_time|limits.idle_timeout|status.sent_bytes|state|limits.max_message_rate", value in "\\PC{0,40}|[0-9TZ:.+-]{0,40}") {
        let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
        let text = format!("{field} = \"{quoted}\"");
        if let Ok(filter) = Filter::read::<api::Listener>("filter", &text) {
            filter.admits(&listener());
        }
    }

    #[test]
    fn a_quoted_text_is_found_as_it_is(value in "\\PC{1,40}") {
        let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
        let named = api::Listener { display_name: value, ..listener() };
        let filter = Filter::read::<api::Listener>("filter", &format!("display_name = \"{quoted}\"")).unwrap();
        prop_assert!(filter.admits(&named) && !filter.admits(&listener()));
    }
}
