//! The order of a list, as AIP-132 writes it: `received_bytes desc, open_time`.
//!
//! A place in an order is a row of bytes that sorts as the items do. Its last part is the item's name, so no two are
//! the same, and a page goes on behind a place whether or not what stood there is still there.

use prost::Message;
use prost_reflect::{MessageDescriptor, Value};
use tonic::Status;

use super::filter::{Fault, LONGEST, Path, Shape, descriptor, dynamic, moment, refused};

/// Most fields that one order may have.
const MOST_FIELDS: usize = 8;

/// Bytes of a text that count: a place travels in a token.
const TEXT: usize = 256;

/// What stands before a value, and in place of one that is not there.
const ABSENT: u8 = 0;
const PRESENT: u8 = 1;

/// By which fields a list is sorted.
#[derive(Debug)]
pub(super) struct Order {
    by: Vec<Sorting>,
    /// None without fields.
    descriptor: Option<MessageDescriptor>,
}

#[derive(Debug)]
struct Sorting {
    path: Path,
    descending: bool,
}

impl Order {
    /// Reads the text of `order_by`, an order of messages `M`. Blank, items stand by name alone.
    ///
    /// # Errors
    /// `ORDER_BY_INVALID`, with every place where it is wrong.
    pub(super) fn read<M: prost::Name>(text: &str) -> Result<Self, Status> {
        if text.trim().is_empty() {
            let (by, descriptor) = (Vec::new(), None);
            return Ok(Self { by, descriptor });
        }
        let of = descriptor::<M>()?;
        match fields(&of, text) {
            Ok(by) => Ok(Self {
                by,
                descriptor: Some(of),
            }),
            Err(faults) => Err(refused("ORDER_BY_INVALID", "order_by", text, faults)),
        }
    }

    /// Whether items stand by name alone.
    pub(super) fn is_empty(&self) -> bool {
        self.by.is_empty()
    }

    /// The place of a message of the kind that it was read for. Of what has the same values `name` decides.
    pub(super) fn place(&self, message: &impl Message, name: &[u8]) -> Place {
        let mut place = Vec::new();
        if let Some(descriptor) = &self.descriptor {
            let whole = dynamic(descriptor, message);
            for Sorting { path, descending } in &self.by {
                let begin = place.len();
                place.push(PRESENT);
                let put = |value: &Value| put(value, &mut place);
                if !path.any(&whole, &mut { put }) {
                    place.truncate(begin);
                    place.push(ABSENT);
                }
                if *descending {
                    place[begin..].iter_mut().for_each(|byte| *byte = !*byte);
                }
            }
        }
        place.extend_from_slice(name);
        Place(place)
    }
}

/// Where something stands in an order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(pub(super) Vec<u8>);

impl Place {
    /// As it stands in a token.
    pub(super) fn cursor(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Reads such a text.
    pub(super) fn of(cursor: &str) -> Option<Self> {
        let byte = |at| u8::from_str_radix(cursor.get(at..at + 2)?, 16).ok();
        let bytes = (0..cursor.len()).step_by(2).map(byte);
        bytes.collect::<Option<_>>().map(Self)
    }
}

fn fields(of: &MessageDescriptor, text: &str) -> Result<Vec<Sorting>, Vec<Fault>> {
    let whole = |what: String| vec![Fault { at: 0, what }];
    if text.len() > LONGEST {
        return Err(whole(format!("it is longer than {LONGEST} bytes")));
    }
    let (mut by, mut faults, mut at) = (Vec::new(), Vec::new(), 0);
    for part in text.split(',') {
        match sorting(of, part) {
            Ok(sorting) => by.push(sorting),
            Err(what) => {
                let space = part.len() - part.trim_start().len();
                let at = at + space;
                faults.push(Fault { at, what });
            }
        }
        at += part.len() + 1;
    }
    match (faults.is_empty(), by.len() <= MOST_FIELDS) {
        (false, _) => Err(faults),
        (true, false) => Err(whole(format!("an order has {MOST_FIELDS} fields at most"))),
        (true, true) => Ok(by),
    }
}

/// One field, and `desc` or not.
fn sorting(of: &MessageDescriptor, part: &str) -> Result<Sorting, String> {
    let mut words = part.split_whitespace();
    let name = words.next().ok_or("the name of a field is missing")?;
    let descending = match (words.next(), words.next()) {
        (None | Some("asc"), None) => false,
        (Some("desc"), None) => true,
        _ => return Err("behind a field stands `desc`, `asc` or a comma".to_owned()),
    };
    let names: Vec<_> = name.split('.').map(str::to_owned).collect();
    let path = Path::find(of, &names)?;
    match (&path.end, path.listed) {
        (Shape::Value(_), false) => Ok(Sorting { path, descending }),
        _ => Err(format!("`{name}` is not one value that could be sorted by")),
    }
}

/// Adds a value so that bytes sort as values do, and none is the beginning of another; false for what is no value.
fn put(value: &Value, place: &mut Vec<u8>) -> bool {
    let whole = |value: i64| (value as u64 ^ 1 << 63).to_be_bytes();
    match value {
        Value::String(text) => {
            for byte in text.bytes().take(TEXT) {
                place.push(byte);
                place.extend((byte == 0).then_some(0xff));
            }
            place.extend([0, 0]);
        }
        Value::U64(value) => place.extend(value.to_be_bytes()),
        Value::U32(value) => place.extend(value.to_be_bytes()),
        Value::I64(value) => place.extend(whole(*value)),
        Value::I32(value) | Value::EnumNumber(value) => place.extend(whole((*value).into())),
        Value::F64(value) => place.extend(real(*value)),
        Value::F32(value) => place.extend(real((*value).into())),
        Value::Bool(value) => place.push((*value).into()),
        Value::Message(message) => {
            let (seconds, nanos) = moment(message);
            place.extend(whole(seconds));
            place.extend(whole(nanos.into()));
        }
        Value::Bytes(_) | Value::List(_) | Value::Map(_) => return false,
    }
    true
}

/// Sorts as the numbers do: the more negative, the larger its own bits.
fn real(value: f64) -> [u8; 8] {
    let bits = value.to_bits();
    let flipped = if value.is_sign_negative() {
        !bits
    } else {
        bits ^ 1 << 63
    };
    flipped.to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::super::api;
    use super::*;
    use proptest::prelude::*;
    use tonic_types::StatusExt;

    fn session(peer: &str, bytes: u64, seconds: Option<i64>) -> api::Session {
        api::Session {
            peer: peer.to_owned(),
            received_bytes: bytes,
            close_time: seconds.map(|seconds| prost_types::Timestamp { seconds, nanos: 5 }),
            ..api::Session::default()
        }
    }

    #[test]
    fn items_stand_by_their_fields_and_then_by_name() {
        let items = [
            ("a", session("x", 5, Some(-1))),
            ("b", session("x\0", 5, None)),
            ("c", session("xa", 300, Some(9))),
            ("d", session("x", 5, Some(-1))),
            ("e", session("", 0, None)),
        ];
        for (text, sorted) in [
            ("", "abcde"),
            ("peer", "eadbc"),
            ("peer desc", "cbade"),
            ("received_bytes desc, peer asc", "cadbe"),
            (" receivedBytes , close_time desc", "eadbc"),
            ("close_time", "beadc"),
            ("close_time desc", "cadbe"),
        ] {
            let order = Order::read::<api::Session>(text).unwrap();
            let mut placed = items
                .clone()
                .map(|(name, item)| (order.place(&item, name.as_bytes()), name));
            placed.sort();
            assert_eq!(placed.map(|(_, name)| name).concat(), sorted, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_sorted_by_is_told_with_its_place() {
        let told = |text: &str| {
            let refused = Order::read::<api::Listener>(text).unwrap_err();
            assert_eq!(
                refused.get_details_error_info().unwrap().reason,
                "ORDER_BY_INVALID"
            );
            let violations = refused.get_details_bad_request().unwrap().field_violations;
            violations
                .into_iter()
                .map(|v| format!("{}: {}", v.field, v.description))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            told("name, stat desc, labels"),
            [
                "order_by: at 7: Listener has no field `stat`; did you mean `state`?",
                "order_by: at 18: `labels` is not one value that could be sorted by",
            ]
        );
        for (text, place) in [
            ("name,", "at 6: the name of a field is missing"),
            (
                "name down",
                "at 1: behind a field stands `desc`, `asc` or a comma",
            ),
            (
                "status",
                "at 1: `status` is not one value that could be sorted by",
            ),
            (
                "limits.allow_cidrs",
                "at 1: `limits.allow_cidrs` is not one value that could be sorted by",
            ),
            (
                "name,name,name,name,name,name,name,name,name",
                "at 1: an order has 8 fields at most",
            ),
        ] {
            assert_eq!(told(text), [format!("order_by: {place}")]);
        }
        assert!(Order::read::<api::Listener>("labels.team, status.active_sessions desc").is_ok());
    }

    proptest! {
        #[test]
        fn places_sort_as_values_do(a in any::<(f64, i32, u64, bool)>(), b in any::<(f64, i32, u64, bool)>(), s in ".{0,9}", t in ".{0,9}") {
            let place = |value: Value| {
                let mut place = Vec::new();
                assert!(put(&value, &mut place));
                place
            };
            if let Some(order) = a.0.partial_cmp(&b.0).filter(|order| order.is_ne()) {
                prop_assert_eq!(place(Value::F64(a.0)).cmp(&place(Value::F64(b.0))), order);
            }
            prop_assert_eq!(place(Value::I32(a.1)).cmp(&place(Value::I32(b.1))), a.1.cmp(&b.1));
            prop_assert_eq!(place(Value::U64(a.2)).cmp(&place(Value::U64(b.2))), a.2.cmp(&b.2));
            prop_assert_eq!(place(Value::Bool(a.3)).cmp(&place(Value::Bool(b.3))), a.3.cmp(&b.3));
            prop_assert_eq!(place(Value::String(s.clone())).cmp(&place(Value::String(t.clone()))), s.cmp(&t));
        }

        #[test]
        fn a_place_survives_its_token(bytes in any::<Vec<u8>>()) {
            let place = Place(bytes);
            prop_assert_eq!(Place::of(&place.cursor()), Some(place));
        }

        #[test]
        fn no_cursor_does_harm(text in ".{0,20}") {
            Place::of(&text);
        }
    }
}
