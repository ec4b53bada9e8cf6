//! Output in the encoding that old clients decode: what is UTF-8 is transcoded, what is not passes.

use std::borrow::Cow;

use encoding_rs::{EncoderResult, Encoding, UTF_8};

/// The encoding of this label; none for the empty one and for UTF-8 itself.
pub(super) fn encoding(label: &str) -> Result<Option<&'static Encoding>, String> {
    if label.is_empty() {
        return Ok(None);
    }
    match Encoding::for_label(label.as_bytes()) {
        Some(found) if found == UTF_8 => Ok(None),
        Some(found) if found.output_encoding() == found => Ok(Some(found)),
        _ => Err(format!(
            "`{label}` is not an encoding that text can be sent in; `gbk` is"
        )),
    }
}

/// `output` in `encoding`; what it cannot carry becomes `?`. A character that was cut in two at
/// the end (`cut`: more was to come) does not make the whole pass as it is.
pub(super) fn transcode(
    output: Vec<u8>,
    encoding: Option<&'static Encoding>,
    cut: bool,
) -> Vec<u8> {
    let Some(encoding) = encoding else {
        return output;
    };
    let text = match std::str::from_utf8(&output) {
        Ok(text) => Cow::Borrowed(text),
        Err(e) if cut && e.error_len().is_none() => {
            String::from_utf8_lossy(&output[..e.valid_up_to()])
        }
        Err(_) => return output,
    };
    let mut encoder = encoding.new_encoder();
    let mut encoded = Vec::with_capacity(text.len() + 16);
    let mut rest = &*text;
    loop {
        encoded.reserve(rest.len() + 16);
        let (result, read) =
            encoder.encode_from_utf8_to_vec_without_replacement(rest, &mut encoded, true);
        rest = &rest[read..];
        match result {
            EncoderResult::InputEmpty => return encoded,
            EncoderResult::OutputFull => {}
            EncoderResult::Unmappable(_) => encoded.push(b'?'),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gbk(output: &[u8], cut: bool) -> Vec<u8> {
        transcode(output.to_vec(), encoding("gbk").unwrap(), cut)
    }

    #[test]
    fn labels_are_checked() {
        assert_eq!(encoding(""), Ok(None));
        assert_eq!(encoding("utf-8"), Ok(None));
        assert!(encoding("GBK").unwrap().is_some());
        for label in ["utf-16le", "klingon"] {
            assert!(encoding(label).unwrap_err().contains(label));
        }
    }

    #[test]
    fn text_is_transcoded_and_bytes_pass() {
        assert_eq!(gbk("中文".as_bytes(), false), [0xd6, 0xd0, 0xce, 0xc4]);
        assert_eq!(gbk("a\u{1f600}b".as_bytes(), false), b"a?b");
        assert_eq!(gbk(b"\xff\xfe\0", false), b"\xff\xfe\0");
        assert_eq!(gbk(&"中".as_bytes()[..2], false), &"中".as_bytes()[..2]);
    }

    #[test]
    fn a_character_cut_in_two_is_left_out() {
        assert_eq!(gbk(&"中文".as_bytes()[..5], true), [0xd6, 0xd0]);
    }

    #[test]
    fn long_text_fits() {
        let text = "文".repeat(100_000);
        assert_eq!(gbk(text.as_bytes(), false).len(), 200_000);
    }
}
