//! Output in the encoding that old clients decode: what is UTF-8 is transcoded, what is not passes.

use encoding_rs::{Encoder, EncoderResult, Encoding, UTF_8};

use super::output::{Full, Output, SPOOLS};

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

/// Puts `output` into `encoding`; what it cannot carry becomes `?`. A character that was cut in two
/// at the end (`cut`: more was to come) does not make the whole pass as it is.
///
/// # Errors
/// There is no room for all of it: what there was room for is there.
pub(super) async fn transcode(
    output: &mut Output,
    encoding: &'static Encoding,
    cut: bool,
) -> Result<(), Full> {
    let mut buffer = vec![0; PIECE.min(usize::try_from(output.len()).unwrap_or(PIECE))];
    let mut at = 0;
    loop {
        let Some(text) = text_at(output, at, &mut buffer, cut) else {
            return Ok(());
        };
        if text.last {
            break;
        }
        at += text.text.len() as u64;
        tokio::task::yield_now().await;
    }
    let came = std::mem::take(output);
    let mut encoder = encoding.new_encoder();
    let mut encoded = Vec::new();
    at = 0;
    while let Some(text) = text_at(&came, at, &mut buffer, cut) {
        encode(&mut encoder, &text, &mut encoded);
        output.append(&encoded, &SPOOLS)?;
        if text.last {
            break;
        }
        at += text.text.len() as u64;
        encoded.clear();
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Looked at at once: others get their turn in between.
const PIECE: usize = 64 << 10;

struct Text<'a> {
    text: &'a str,
    /// Nothing follows it.
    last: bool,
}

/// The text that begins `at` bytes from the beginning; none when it is none.
fn text_at<'a>(output: &Output, at: u64, buffer: &'a mut [u8], cut: bool) -> Option<Text<'a>> {
    let count = output.read(buffer, at).ok()?;
    let last = at + count as u64 == output.len();
    let bytes = &buffer[..count];
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(Text { text, last }),
        // Cut in two by the buffer, or by whoever cut the output.
        Err(e) if e.error_len().is_none() && (cut || !last) => {
            let text = std::str::from_utf8(&bytes[..e.valid_up_to()]).ok()?;
            Some(Text { text, last })
        }
        Err(_) => None,
    }
}

/// Appends a text to `encoded`.
fn encode(encoder: &mut Encoder, text: &Text<'_>, encoded: &mut Vec<u8>) {
    let mut rest = text.text;
    loop {
        encoded.reserve(rest.len() + 16);
        let (result, read) =
            encoder.encode_from_utf8_to_vec_without_replacement(rest, encoded, text.last);
        rest = &rest[read..];
        match result {
            EncoderResult::InputEmpty => return,
            EncoderResult::OutputFull => {}
            EncoderResult::Unmappable(_) => encoded.push(b'?'),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn gbk(bytes: &[u8], cut: bool) -> Vec<u8> {
        let mut output = Output::default();
        output.append(bytes, &SPOOLS).unwrap();
        let encoding = encoding("gbk").unwrap().unwrap();
        transcode(&mut output, encoding, cut).await.unwrap();
        let mut encoded = vec![0; usize::try_from(output.len()).unwrap()];
        assert_eq!(output.read(&mut encoded, 0).unwrap(), encoded.len());
        encoded
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

    #[tokio::test]
    async fn text_is_transcoded_and_bytes_pass() {
        let text = "中文".as_bytes();
        assert_eq!(gbk(text, false).await, [0xd6, 0xd0, 0xce, 0xc4]);
        assert_eq!(gbk("a\u{1f600}b".as_bytes(), false).await, b"a?b");
        assert_eq!(gbk(b"\xff\xfe\0", false).await, b"\xff\xfe\0");
        assert_eq!(gbk(&text[..2], false).await, &text[..2]);
        assert_eq!(gbk(b"", false).await, b"");
    }

    #[tokio::test]
    async fn a_character_cut_in_two_is_left_out() {
        let text = "中文".as_bytes();
        assert_eq!(gbk(&text[..5], true).await, [0xd6, 0xd0]);
        assert_eq!(gbk(&text[..2], true).await, b"");
    }

    #[tokio::test]
    async fn a_long_text_is_one_text_wherever_it_is_cut() {
        for before in ["", "a", "ab"] {
            let text = format!("{before}{}", "文".repeat(100_000));
            let encoded = gbk(text.as_bytes(), false).await;
            assert_eq!(encoded.len(), before.len() + 200_000);
            assert!(encoded[before.len()..].chunks(2).all(|c| c == [0xce, 0xc4]));
        }
    }

    #[tokio::test]
    async fn one_byte_at_the_end_makes_a_long_output_pass() {
        let mut bytes = "文".repeat(100_000).into_bytes();
        bytes.push(0xff);
        assert_eq!(gbk(&bytes, false).await, bytes);
    }
}
