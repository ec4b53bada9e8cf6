//! Pages: sizes, and tokens that only fit the list that they came from.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::LazyLock;

use tonic::{Response, Status};

use super::MAX_ANSWER;

use super::status::invalid_field;

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
    fit(items.into_iter().map(|item| (show(&item), item)), size)
}

/// The same of what is shown already, each with what it is told by.
fn fit<T, M: prost::Message>(
    items: impl Iterator<Item = (M, T)>,
    size: usize,
) -> (Vec<M>, Option<T>) {
    let (mut page, mut bytes, mut last) = (Vec::new(), 0, None);
    for (shown, item) in items {
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

/// A token for the rest of `list` behind `cursor`. `list` is all that was asked for but the page: which items, in which
/// order, how shown.
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

/// Keyed, so that nobody makes a token of their own; by a key of this run, so that none outlives what it goes through.
fn fingerprint(list: impl Hash, cursor: &str) -> u64 {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    KEY.hash_one((list, cursor))
}

/// The items of a list that belong on a page, of however many are offered in whatever order.
pub(super) struct Selection<P, T> {
    size: usize,
    after: Option<P>,
    kept: Vec<(P, T)>,
    /// How many were offered.
    pub(super) total: usize,
}

impl<P: Ord, T> Selection<P, T> {
    /// The first `size` behind the place `after`, or of all.
    pub(super) fn new(size: usize, after: Option<P>) -> Self {
        Self {
            size,
            after,
            kept: Vec::new(),
            total: 0,
        }
    }

    /// Considers an item of the list.
    pub(super) fn offer(&mut self, place: P, item: T) {
        self.total += 1;
        if self.after.as_ref().is_some_and(|after| place <= *after) {
            return;
        }
        self.kept.push((place, item));
        // Now and then, so that each costs little and no more than twice the page is held.
        if self.kept.len() > 2 * (self.size + 1) {
            self.kept
                .select_nth_unstable_by(self.size, |a, b| a.0.cmp(&b.0));
            self.kept.truncate(self.size + 1);
        }
    }

    /// What was selected, in order, and one more when there are more.
    fn sorted(mut self) -> Vec<(P, T)> {
        self.kept.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        self.kept.truncate(self.size + 1);
        self.kept
    }

    /// The page, each item made by `show`; and the place of the last one when there are more behind it.
    pub(super) fn page<M: prost::Message>(
        self,
        mut show: impl FnMut(T) -> M,
    ) -> (Vec<M>, Option<P>) {
        let size = self.size;
        let shown = |(place, item)| (show(item), place);
        fit(self.sorted().into_iter().map(shown), size)
    }
}

/// Items that are looked at before others have their turn: a list may be long, and what flows does not wait for it.
pub(super) const AT_ONCE: usize = 64;

/// Each with a pause behind every few, in which others have their turn.
pub(super) async fn each<T>(items: impl IntoIterator<Item = T>, mut look: impl FnMut(T)) {
    for (before, item) in items.into_iter().enumerate() {
        if before > 0 && before.is_multiple_of(AT_ONCE) {
            tokio::task::yield_now().await;
        }
        look(item);
    }
}

/// A total as answers tell it.
pub(super) fn total(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
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

    #[test]
    fn a_selection_is_the_first_of_what_stands_behind_a_place() {
        let offered = || (0..1_000_u32).map(|n| n * 7_919 % 1_000);
        for (size, after) in [(1, None), (10, Some(500)), (50, Some(990)), (2_000, None)] {
            let mut selection = Selection::new(size, after);
            offered().for_each(|n| selection.offer(n, ()));
            assert_eq!(selection.total, 1_000);
            let from = after.map_or(0, |after| after + 1);
            let expected: Vec<_> = (from..1_000).take(size + 1).collect();
            let selected: Vec<_> = selection.sorted().into_iter().map(|(n, ())| n).collect();
            assert_eq!(selected, expected);
        }
    }
}
