//! One comparison of a filter, bound to a message: checked when it is read, so that it only has to be tried later.

use std::cmp::Ordering;

use prost_reflect::{DynamicMessage, EnumDescriptor, Kind, MapKey, MessageDescriptor, Value};

use super::expression::{Comparator, Fault, Word, Written};
use super::path::{Path, Shape};
use crate::supervisor::shown;

/// A comparison of what stands at a path. With what is not there it is false, `!=` too.
#[derive(Debug)]
pub(super) struct Restriction {
    path: Path,
    test: Test,
}

#[derive(Debug)]
enum Test {
    Present,
    HasKey(MapKey),
    Compare(Comparator, Literal),
}

/// A value that was read as what the field is.
#[derive(Debug, PartialEq)]
enum Literal {
    Text(String),
    Whole(i128),
    Real(f64),
    Truth(bool),
    Choice(i32),
    /// A point in time, or a length of it: seconds and nanoseconds of one sign.
    Moment(i64, i32),
}

impl Restriction {
    /// Binds what was written to the fields of `of`.
    pub(super) fn bind(of: &MessageDescriptor, written: &Written<'_>) -> Result<Self, Fault> {
        let at = written.at;
        let path = Path::find(of, &written.path).map_err(|what| Fault { at, what })?;
        let test = test(&path, written)?;
        Ok(Self { path, test })
    }

    /// Whether it holds of a message of the kind that it was bound to.
    pub(super) fn holds(&self, message: &DynamicMessage) -> bool {
        match &self.test {
            Test::Present => self.path.is_present(message),
            Test::HasKey(key) => self.path.any(message, &mut |value| {
                value
                    .as_map()
                    .is_some_and(|entries| entries.contains_key(key))
            }),
            Test::Compare(comparator, literal) => self
                .path
                .any(message, &mut |value| compares(value, *comparator, literal)),
        }
    }
}

/// What is asked of the values at `path`, if it can be asked of them.
fn test(path: &Path, written: &Written<'_>) -> Result<Test, Fault> {
    use Comparator::{Equal, Has, Unequal};
    let (comparator, value) = (written.comparator, &written.value);
    let named = || shown(&written.path.join("."));
    let wrong = |rule: String| {
        let (at, what) = (written.at, format!("`{}` {rule}", named()));
        Err(Fault { at, what })
    };
    let (kind, comparator) = match (&path.end, comparator) {
        (_, Has) if *value == Word::Bare("*") => return Ok(Test::Present),
        (Shape::Map, Has) => return Ok(Test::HasKey(MapKey::String(value.text().to_owned()))),
        (Shape::Map, _) => {
            let key = format!("{}.KEY", named());
            return wrong(format!(
                "is a map; ask for a key by `:`, or compare `{key}`"
            ));
        }
        (Shape::Opaque, _) => return wrong("is asked for by `:*` alone".to_owned()),
        // Of a list it is asked for one of its values, not for a part of one.
        (Shape::Value(kind), Has) if path.listed => (kind, Equal),
        (Shape::Value(_), _) if path.listed => {
            return wrong("is a list; ask for a value by `:`".to_owned());
        }
        (Shape::Value(Kind::Bool | Kind::Enum(_)), other)
            if ![Equal, Unequal, Has].contains(&other) =>
        {
            return wrong("has no order; compare it by `=` or `!=`".to_owned());
        }
        (Shape::Value(kind), other) => (kind, other),
    };
    let literal = literal(kind, value.text()).map_err(|right| Fault {
        at: written.value_at,
        what: format!(
            "`{}` is no value of `{}`, which is {right}",
            shown(value.text()),
            named()
        ),
    })?;
    Ok(Test::Compare(comparator, literal))
}

/// Reads a value of a kind; or what would be one.
fn literal(kind: &Kind, text: &str) -> Result<Literal, String> {
    let is = |what: &str| what.to_owned();
    match kind {
        Kind::String => Ok(Literal::Text(text.to_owned())),
        Kind::Bool => match text {
            "true" => Ok(Literal::Truth(true)),
            "false" => Ok(Literal::Truth(false)),
            _ => Err(is("`true` or `false`")),
        },
        Kind::Float | Kind::Double => {
            let read = text.parse().map_err(|_| is("a number, such as 0.5"));
            read.map(Literal::Real)
        }
        Kind::Enum(values) => choice(values, text).map(Literal::Choice),
        Kind::Message(message) if message.name() == "Timestamp" => {
            let read = text.parse::<prost_types::Timestamp>();
            let moment = read.map(|time| Literal::Moment(time.seconds, time.nanos));
            moment.map_err(|_| is("a time, such as \"2026-11-22T10:00:00Z\""))
        }
        Kind::Message(_) => length(text).ok_or_else(|| is("a duration, such as 1.5s or 5m")),
        _ => {
            let read = text.parse().map_err(|_| is("a whole number, such as 42"));
            read.map(Literal::Whole)
        }
    }
}

/// A value of an enum by its name, `STATE_ACTIVE`, or by what tells it from the others, `active`.
fn choice(values: &EnumDescriptor, text: &str) -> Result<i32, String> {
    let zero = values.default_value();
    let prefix = zero.name().strip_suffix("UNSPECIFIED").unwrap_or_default();
    let is_meant = |name: &str| {
        let word = name.strip_prefix(prefix).unwrap_or(name);
        name == text || word.to_lowercase() == text
    };
    let found = values.values().find(|value| is_meant(value.name()));
    found.map(|value| value.number()).ok_or_else(|| {
        let known: Vec<_> = values
            .values()
            .skip(1)
            .map(|v| v.name().to_owned())
            .collect();
        format!("one of {}", known.join(", "))
    })
}

/// `1.5s` as the API writes durations, or `5m` and `1h 30m` as the configuration does.
fn length(text: &str) -> Option<Literal> {
    if let Ok(length) = text.parse::<prost_types::Duration>() {
        return Some(Literal::Moment(length.seconds, length.nanos));
    }
    let length = humantime::parse_duration(text).ok()?;
    let seconds = i64::try_from(length.as_secs()).ok()?;
    Some(Literal::Moment(
        seconds,
        i32::try_from(length.subsec_nanos()).ok()?,
    ))
}

fn compares(value: &Value, comparator: Comparator, literal: &Literal) -> bool {
    if let (Comparator::Has, Value::String(value), Literal::Text(part)) =
        (comparator, value, literal)
    {
        return value.contains(part.as_str());
    }
    let Some(order) = order(value, literal) else {
        return false;
    };
    match comparator {
        Comparator::Equal | Comparator::Has => order.is_eq(),
        Comparator::Unequal => order.is_ne(),
        Comparator::Less => order.is_lt(),
        Comparator::AtMost => order.is_le(),
        Comparator::More => order.is_gt(),
        Comparator::AtLeast => order.is_ge(),
    }
}

/// How a value stands to a literal of its kind; none of a number that is none.
fn order(value: &Value, literal: &Literal) -> Option<Ordering> {
    let whole = |own: i128, other: &i128| Some(own.cmp(other));
    match (value, literal) {
        (Value::String(own), Literal::Text(other)) => Some(own.as_str().cmp(other)),
        (Value::U64(own), Literal::Whole(other)) => whole((*own).into(), other),
        (Value::U32(own), Literal::Whole(other)) => whole((*own).into(), other),
        (Value::I64(own), Literal::Whole(other)) => whole((*own).into(), other),
        (Value::I32(own), Literal::Whole(other)) => whole((*own).into(), other),
        (Value::F64(own), Literal::Real(other)) => own.partial_cmp(other),
        (Value::F32(own), Literal::Real(other)) => f64::from(*own).partial_cmp(other),
        (Value::Bool(own), Literal::Truth(other)) => Some(own.cmp(other)),
        (Value::EnumNumber(own), Literal::Choice(other)) => Some(own.cmp(other)),
        (Value::Message(own), Literal::Moment(seconds, nanos)) => {
            Some(moment(own).cmp(&(*seconds, *nanos)))
        }
        _ => None,
    }
}

/// The seconds and nanoseconds of a time or a duration.
pub(in crate::grpc) fn moment(message: &DynamicMessage) -> (i64, i32) {
    let part = |number| message.get_field_by_number(number);
    let seconds = part(1).and_then(|v| v.as_i64()).unwrap_or_default();
    let nanos = part(2).and_then(|v| v.as_i32()).unwrap_or_default();
    (seconds, nanos)
}
