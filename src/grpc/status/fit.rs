//! As much of a refusal as reaches its caller: it travels in headers, of which common clients read 8 KiB and take a longer
//! one for a broken connection.

use crate::supervisor::Violation;

/// What a message may take of them.
const MOST_OF_MESSAGE: usize = 3_500;

/// Bytes of all violations; they are a third longer there.
const MOST_OF_VIOLATIONS: usize = 2_600;

/// Most violations that are told.
pub(super) const MOST_TOLD: usize = 20;

/// Most characters of a violation's field, and of its description.
const LONGEST: usize = 300;

/// As much of a message as there is room for.
pub(super) fn message(mut text: String) -> String {
    // It stands there as it is, with what is not plain as %XX, and once more among the details.
    let in_headers = |c: char| {
        let plain = c.is_ascii_graphic() && !"\"#%<>`?{}".contains(c);
        let length = c.len_utf8();
        (4 * length).div_ceil(3) + if plain { 1 } else { 3 * length }
    };
    let mut taken = 0;
    let beyond = text.char_indices().find(|(_, c)| {
        taken += in_headers(*c);
        taken > MOST_OF_MESSAGE
    });
    if let Some((at, _)) = beyond {
        text.truncate(at);
        text.push('…');
    }
    text
}

/// The first violations, and how many more there are.
pub(super) fn violations(mut all: Vec<Violation>) -> Vec<Violation> {
    let start = |text: &str| text.chars().take(LONGEST).collect();
    for violation in &mut all {
        violation.description = start(&violation.description);
        violation.field = start(&violation.field);
    }
    let mut taken = 0;
    let told = all.iter().take(MOST_TOLD).take_while(|v| {
        taken += v.field.len() + v.description.len();
        taken <= MOST_OF_VIOLATIONS
    });
    let told = told.count();
    let more = all.len() - told;
    all.truncate(told);
    if more > 0 {
        all.push(Violation {
            field: String::new(),
            description: format!("and {more} more are wrong"),
        });
    }
    all
}
