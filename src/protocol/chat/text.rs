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
