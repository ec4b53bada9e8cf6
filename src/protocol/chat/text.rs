//! What a conversation's bytes say, and how an operator's words become bytes: one encoding a listener.

use std::borrow::Cow;

use encoding_rs::{EncoderResult, Encoding, GB18030, UTF_8};

/// How a chat listener's text is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Charset {
    /// One encoding for all.
    One(&'static Encoding),
    /// UTF-8 where it is valid, else GB18030; answers go out as the last message came.
    Auto,
    /// No text at all: shown as far as it is UTF-8, answered in UTF-8.
    Bytes,
}

/// What a peer's messages have told of its encoding so far: the last one that tells something counts. ASCII alone is
/// the same in all of them, and so tells nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Speech {
    /// UTF-8, as far as is known.
    #[default]
    Utf8,
    /// What is no UTF-8.
    Other,
}

impl Speech {
    /// The peer has said this.
    pub(super) fn hear(&mut self, raw: &[u8]) {
        if !raw.is_ascii() {
            *self = match std::str::from_utf8(raw) {
                Ok(_) => Self::Utf8,
                Err(_) => Self::Other,
            };
        }
    }
}

impl Charset {
    /// Reads a label; the empty one is UTF-8.
    pub(super) fn from_label(label: &str) -> Result<Self, String> {
        match label {
            "" => Ok(Self::One(UTF_8)),
            "auto" => Ok(Self::Auto),
            "bytes" => Ok(Self::Bytes),
            label => match Encoding::for_label(label.as_bytes()) {
                Some(found) if found.output_encoding() == found => Ok(Self::One(found)),
                _ => Err(format!(
                    "`{label}` is not an encoding for chat; utf-8, gbk, gb18030, auto and bytes are"
                )),
            },
        }
    }

    /// The encoding that a peer is answered in.
    pub(super) fn of(self, speech: Speech) -> &'static Encoding {
        match (self, speech) {
            (Self::One(encoding), _) => encoding,
            (Self::Auto, Speech::Other) => GB18030,
            (Self::Auto | Self::Bytes, _) => UTF_8,
        }
    }

    /// The encoding that `raw` is in.
    pub(super) fn detect(self, raw: &[u8]) -> &'static Encoding {
        match self {
            Self::One(encoding) => encoding,
            Self::Auto if std::str::from_utf8(raw).is_err() => GB18030,
            Self::Auto | Self::Bytes => UTF_8,
        }
    }

    /// What `raw` says. What cannot be read becomes U+FFFD, or `\xNN` where bytes are meant.
    pub(super) fn decode(self, raw: &[u8]) -> Cow<'_, str> {
        match self {
            Self::Bytes => Cow::Owned(crate::telemetry::escape_bytes(raw)),
            _ => self.detect(raw).decode_without_bom_handling(raw).0,
        }
    }
}

/// `text` in `encoding`, or the first character that it cannot carry.
pub(super) fn encode(text: &str, encoding: &'static Encoding) -> Result<Vec<u8>, char> {
    let mut encoded = Vec::with_capacity(text.len() + 16);
    let mut encoder = encoding.new_encoder();
    let mut rest = text;
    loop {
        encoded.reserve(rest.len() + 16);
        let (result, read) =
            encoder.encode_from_utf8_to_vec_without_replacement(rest, &mut encoded, true);
        rest = &rest[read..];
        match result {
            EncoderResult::InputEmpty => return Ok(encoded),
            EncoderResult::OutputFull => {}
            EncoderResult::Unmappable(character) => return Err(character),
        }
    }
}

/// As much of `text` in `encoding` as fits `most` bytes, in whole characters; it ends before one that the encoding
/// cannot carry.
pub(super) fn encode_within(text: &str, encoding: &'static Encoding, most: usize) -> Vec<u8> {
    let mut encoded = vec![0; most];
    let mut encoder = encoding.new_encoder();
    let (_, _, written) = encoder.encode_from_utf8_without_replacement(text, &mut encoded, true);
    encoded.truncate(written);
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn labels_choose_the_charset() {
        assert_eq!(Charset::from_label(""), Ok(Charset::One(UTF_8)));
        assert_eq!(Charset::from_label("auto"), Ok(Charset::Auto));
        assert!(Charset::from_label("gbk").is_ok());
        assert!(Charset::from_label("utf-16").is_err());
    }

    #[test]
    fn auto_reads_both_and_answers_in_kind() {
        let gbk = [0xc4, 0xe3, 0xba, 0xc3];
        assert_eq!(Charset::Auto.decode(&gbk), "你好");
        assert_eq!(Charset::Auto.decode("你好".as_bytes()), "你好");
        assert_eq!(encode("你好", Charset::Auto.detect(&gbk)).unwrap(), gbk);
        assert_eq!(encode("a\u{1f600}", encoding_rs::BIG5), Err('\u{1f600}'));
    }

    #[test]
    fn ascii_tells_nothing_of_an_encoding() {
        let mut speech = Speech::default();
        let mut after = |raw: &[u8]| {
            speech.hear(raw);
            Charset::Auto.of(speech)
        };
        assert_eq!(
            [after(b"hi"), after(b"\xc4\xe3"), after(b"ok")],
            [UTF_8, GB18030, GB18030]
        );
        assert_eq!([after("你".as_bytes()), after(b"")], [UTF_8, UTF_8]);
        assert_eq!(
            Charset::One(encoding_rs::GBK).of(Speech::Utf8),
            encoding_rs::GBK
        );
        assert_eq!(Charset::Bytes.of(Speech::Other), UTF_8);
    }

    /// Text of the characters that GBK has, and of those that it has not.
    fn texts() -> impl Strategy<Value = String> {
        let han = (0x4e00_u32..0x9fa5).prop_map(|c| char::from_u32(c).unwrap());
        prop::collection::vec(prop_oneof![han, any::<char>(), Just('a')], 0..40)
            .prop_map(|chars| chars.into_iter().filter(|c| !is_private(*c)).collect())
    }

    /// What these stand for has changed between versions of GB18030.
    fn is_private(c: char) -> bool {
        ('\u{e000}'..='\u{f8ff}').contains(&c)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(text in texts()) {
            for label in ["utf-8", "gb18030", "gbk", "auto"] {
                let charset = Charset::from_label(label).unwrap();
                let Ok(raw) = encode(&text, charset.of(Speech::Other)) else {
                    prop_assert_eq!(label, "gbk");
                    continue;
                };
                // Few answers in GB18030 are UTF-8 too.
                if label != "auto" || std::str::from_utf8(&raw).is_err() {
                    prop_assert_eq!(charset.decode(&raw), &*text, "{}", label);
                }
            }
        }

        #[test]
        fn any_bytes_are_read(raw in prop::collection::vec(any::<u8>(), 0..200)) {
            for label in ["utf-8", "gbk", "gb18030", "auto", "bytes", "big5", "shift_jis"] {
                let charset = Charset::from_label(label).unwrap();
                let shown = crate::telemetry::escape(&charset.decode(&raw)).into_owned();
                prop_assert!(!shown.chars().any(char::is_control));
            }
        }

        #[test]
        fn what_an_encoding_lacks_is_named_and_nothing_is_sent(text in texts()) {
            if let Err(c) = encode(&text, encoding_rs::GBK) {
                prop_assert!(text.contains(c));
                let alone = c.to_string();
                prop_assert_eq!(encode(&alone, encoding_rs::GBK), Err(c));
            }
        }
    }

    #[test]
    fn what_is_cut_is_cut_between_characters() {
        let text = "没有人在值班, try later".repeat(9);
        for encoding in [UTF_8, encoding_rs::GBK, GB18030] {
            for most in 40..200 {
                let cut = encode_within(&text, encoding, most);
                assert!(
                    cut.len() <= most && cut.len() + 8 > most,
                    "{} of {most}",
                    cut.len()
                );
                let read = encoding.decode_without_bom_handling_and_without_replacement(&cut);
                assert!(text.starts_with(&*read.unwrap()));
            }
        }
    }
}
