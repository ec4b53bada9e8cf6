//! Pages: sizes, and tokens that only fit the list that they came from.

use std::hash::{DefaultHasher, Hash, Hasher};

use tonic::{Response, Status};

use super::MAX_ANSWER;

use super::status::{invalid_field, unsupported};

const DEFAULT_SIZE: usize = 50;
const MAX_SIZE: usize = 1_000;

/// How many to return: 50 unless asked, at most 1,000.
pub(super) fn size(asked: i32) -> Result<usize, Status> {
    match usize::try_from(asked) {
        Ok(0) => Ok(DEFAULT_SIZE),
        Ok(asked) => Ok(asked.min(MAX_SIZE)),
        Err(_) => Err(invalid_field(
            "PAGE_SIZE_INVALID",
            "page_size",
            "a page has no negative size",
        )),
    }
}

/// A page ends at this many bytes, with one item at least: what clients say may be long, and an
/// answer has a limit.
const MAX_BYTES: usize = 1 << 20;

/// The first `size` of `items`, or fewer when they are long, each made by `show`; and the last of
/// them when there are more behind it.
pub(super) fn cut<T, M: prost::Message>(
    items: impl IntoIterator<Item = T>,
    size: usize,
    mut show: impl FnMut(&T) -> M,
) -> (Vec<M>, Option<T>) {
    let (mut page, mut bytes, mut last) = (Vec::new(), 0, None);
    for item in items {
        let shown = show(&item);
        bytes += shown.encoded_len();
        if page.len() == size || (bytes > MAX_BYTES && !page.is_empty()) {
            return (page, last);
        }
        page.push(shown);
        last = Some(item);
    }
    (page, None)
}

/// An answer that only reads, if it is not more than one may be.
pub(super) fn fitting<A: prost::Message>(
    answer: A,
    field: &str,
    instead: &str,
) -> Result<Response<A>, Status> {
    if answer.encoded_len() <= MAX_ANSWER {
        return Ok(Response::new(answer));
    }
    let rule = format!("the answer is longer than {MAX_ANSWER} bytes; {instead}");
    Err(invalid_field("ANSWER_TOO_LARGE", field, rule))
}

/// A token for the rest of `list` behind `cursor`.
pub(super) fn token(list: impl Hash, cursor: &str) -> String {
    format!("{:016x}{cursor}", fingerprint(list, cursor))
}

/// The cursor of a token of `list`; none for the first page.
pub(super) fn cursor(list: impl Hash, token: &str) -> Result<Option<String>, Status> {
    if token.is_empty() {
        return Ok(None);
    }
    let wrong = || {
        let rule = "it is not from a page of this very list; begin again without one";
        invalid_field("PAGE_TOKEN_INVALID", "page_token", rule)
    };
    let (print, cursor) = token.split_at_checked(16).ok_or_else(wrong)?;
    let given = u64::from_str_radix(print, 16).map_err(|_| wrong())?;
    if given == fingerprint(list, cursor) {
        Ok(Some(cursor.to_owned()))
    } else {
        Err(wrong())
    }
}

fn fingerprint(list: impl Hash, cursor: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (list, cursor).hash(&mut hasher);
    hasher.finish()
}

/// Filters and orders are not understood yet; a list that ignored them would be a wrong answer.
pub(super) fn refuse_query(filter: &str, order_by: &str) -> Result<(), Status> {
    match (filter, order_by) {
        ("", "") => Ok(()),
        ("", _) => Err(unsupported("order_by")),
        _ => Err(unsupported("filter")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_fits_its_own_list_alone() {
        let made = token(("sessions", "ack"), "0190");
        assert_eq!(
            cursor(("sessions", "ack"), &made).unwrap().as_deref(),
            Some("0190")
        );
        for (list, given) in [
            (("sessions", "shell"), &*made),
            (("sessions", "ack"), "nonsense"),
            (("sessions", "ack"), "é234567890123456789"),
            (("sessions", "ack"), &made[..made.len() - 1]),
        ] {
            assert!(cursor(list, given).is_err(), "{given}");
        }
    }

    #[test]
    fn a_page_ends_at_its_size_in_items_or_bytes_and_never_empty() {
        let show = |text: &String| text.clone();
        let short: Vec<_> = (0..5).map(|i| i.to_string()).collect();
        assert_eq!(
            cut(short.clone(), 2, show),
            (vec!["0".into(), "1".into()], Some("1".into()))
        );
        assert_eq!(cut(short.clone(), 5, show), (short, None));
        let long = vec!["x".repeat(MAX_BYTES); 3];
        let (page, last) = cut(long, 3, show);
        assert!(page.len() == 1 && last.is_some());
    }

    #[test]
    fn sizes_are_clamped_and_never_negative() {
        assert_eq!(size(0).unwrap(), 50);
        assert_eq!(size(5_000).unwrap(), 1_000);
        assert!(size(-1).is_err());
    }
}
