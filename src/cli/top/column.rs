//! The columns of each table: how the service sorts by them, and which of them go first where there is no room.

/// One column of a table.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) name: &'static str,
    /// Whether it is read from its end, as numbers are.
    pub(super) is_number: bool,
    /// The higher, the earlier it goes where there is no room.
    pub(super) rank: u8,
    /// How the service sorts by it, the way one wants first and the other way round; none where it cannot.
    pub(super) order: Option<[&'static str; 2]>,
}

const fn text(name: &'static str, rank: u8) -> Column {
    Column {
        name,
        is_number: false,
        rank,
        order: None,
    }
}

const fn number(name: &'static str, rank: u8) -> Column {
    Column {
        name,
        is_number: true,
        rank,
        order: None,
    }
}

const fn ordered(column: Column, order: [&'static str; 2]) -> Column {
    Column {
        order: Some(order),
        ..column
    }
}

/// Of the listeners.
pub(super) const LISTENERS: [Column; 11] = [
    text("NAME", 0),
    text("STATE", 0),
    number("SESSIONS", 1),
    number("MSG/S", 1),
    number("IN/S", 2),
    number("OUT/S", 2),
    number("REJ", 5),
    number("DROP", 6),
    text("PROTO", 4),
    text("BIND", 3),
    text("NOTE", 2),
];

/// Of the sessions: those that the service can sort by.
pub(super) const SESSIONS: [Column; 11] = [
    ordered(number("AGE", 1), ["", "open_time desc"]),
    ordered(
        number("QUIET", 2),
        ["last_receive_time", "last_receive_time desc"],
    ),
    ordered(text("LISTENER", 0), ["name", "name desc"]),
    ordered(text("PEER", 0), ["peer", "peer desc"]),
    ordered(number("IN", 3), ["received_bytes desc", "received_bytes"]),
    ordered(number("OUT", 3), ["sent_bytes desc", "sent_bytes"]),
    number("IN/S", 2),
    number("OUT/S", 2),
    ordered(
        number("QUEUE", 4),
        ["send_queue_bytes desc", "send_queue_bytes"],
    ),
    ordered(text("STATE", 5), ["state", "state desc"]),
    text("ID", 4),
];

/// Of the conversations.
pub(super) const DESK: [Column; 7] = [
    number("WAITING", 0),
    text("STATE", 1),
    number("N", 2),
    text("LISTENER", 3),
    text("FROM", 0),
    text("OPERATOR", 2),
    text("LAST", 1),
];

/// Of what happened.
pub(super) const EVENTS: [Column; 4] = [
    text("TIME", 0),
    text("EVENT", 1),
    text("RESOURCE", 0),
    text("DETAIL", 0),
];
