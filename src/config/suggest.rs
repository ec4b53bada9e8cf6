//! The nearest known word, for somebody who wrote another.

/// The candidate that the word was probably meant to be: the nearest by edits (transpositions count one), when at most
/// a third of the longer word differs; or, failing that, the one that the word is the beginning of. Letter case and
/// the difference between `-` and `_` cost nothing.
pub fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str> + Clone,
) -> Option<&'a str> {
    let plain = |text: &str| text.to_lowercase().replace('-', "_");
    let word = plain(word);
    let by_edits = candidates
        .clone()
        .into_iter()
        .filter_map(|candidate| {
            let longer = word.chars().count().max(candidate.chars().count());
            let distance = strsim::damerau_levenshtein(&word, &plain(candidate));
            (distance <= (longer / 3).max(1) && distance < longer).then_some((distance, candidate))
        })
        .min()
        .map(|(_, candidate)| candidate);
    by_edits.or_else(|| {
        let mut longer = candidates
            .into_iter()
            .filter(|candidate| word.chars().count() >= 3 && plain(candidate).starts_with(&word));
        longer.next()
    })
}

#[cfg(test)]
mod tests {
    use super::nearest;

    const KEYS: [&str; 4] = ["bind", "protocol", "max_sessions", "transport"];

    #[test]
    fn a_slip_finds_its_word() {
        for (slip, word) in [
            ("bnd", "bind"),
            ("bidn", "bind"),
            ("Bind", "bind"),
            ("protocl", "protocol"),
            ("max-sessions", "max_sessions"),
            ("max_session", "max_sessions"),
            ("proto", "protocol"),
        ] {
            assert_eq!(nearest(slip, KEYS), Some(word), "{slip}");
        }
    }

    #[test]
    fn another_word_finds_none() {
        for word in ["address", "", "x", "ab", "timeout"] {
            assert_eq!(nearest(word, KEYS), None, "{word}");
        }
        assert_eq!(nearest("anything", []), None);
    }
}
