//! Up to where each page of a snapshot is right: which events it shows already.

use crate::net::SessionId;

/// The pages of a snapshot, each right as of an event of its own.
#[derive(Debug, Default)]
pub(super) struct Marks(Vec<Mark>);

#[derive(Debug)]
struct Mark {
    /// Whose page: a run of a listener, or a desk.
    whose: u64,
    /// The last id that it covers; none for all that are left.
    up_to: Option<SessionId>,
    /// The event to come when it was taken.
    next: u64,
}

impl Marks {
    /// A page was taken behind the one before it of the same `whose`, up to an id.
    pub(super) fn add(&mut self, whose: u64, up_to: Option<SessionId>, next: u64) {
        self.0.push(Mark { whose, up_to, next });
    }

    /// Whether the snapshot was taken after this event, so that it shows what the event tells.
    pub(super) fn cover(&self, whose: u64, id: SessionId, number: u64) -> bool {
        let covers = |mark: &&Mark| mark.whose == whose && mark.up_to.is_none_or(|last| id <= last);
        self.0
            .iter()
            .find(covers)
            .is_some_and(|mark| number < mark.next)
    }

    /// No event is as old as the pages any more.
    pub(super) fn forget(&mut self) {
        self.0 = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_covered_by_the_page_that_its_id_is_on() {
        let mut marks = Marks::default();
        marks.add(1, Some(SessionId(10)), 100);
        marks.add(2, None, 150);
        marks.add(1, None, 200);
        for (whose, id, number, covered) in [
            (1, 10, 99, true),
            (1, 10, 100, false),
            (1, 11, 100, true),
            (1, 11, 200, false),
            (2, 1, 149, true),
            (3, 1, 1, false),
        ] {
            let is = marks.cover(whose, SessionId(id), number);
            assert_eq!(is, covered, "{whose} {id} {number}");
        }
        marks.forget();
        assert!(!marks.cover(1, SessionId(10), 0));
    }
}
