//! What peers say is kept as it came and read in their encoding, and they are answered in it.

use serde_json::{Value, json};

use super::{DESKS, framed, messages, say};
use crate::chat::waiting;
use crate::support::{Service, Talk, no_grpcurl};

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let mut bits = [0; 3];
        bits[..group.len()].copy_from_slice(group);
        let bits = u32::from_be_bytes([0, bits[0], bits[1], bits[2]]);
        for digit in 0..4 {
            let value = bits >> (18 - 6 * digit) & 63;
            text.push(match digit > group.len() {
                true => '=',
                false => char::from(DIGITS[value as usize]),
            });
        }
    }
    text
}

fn answered(
    service: &Service,
    client: &mut Talk,
    listener: &str,
    said: &[u8],
    text: &str,
    answer: &[u8],
) {
    client.send(framed(said));
    let talk = waiting(service, listener, 1);
    let request = json!({ "name": talk["name"], "text": text });
    service.call("ChatService/ReplyConversation", &request, "message");
    client.expect(framed(answer));
}

#[test]
fn every_byte_that_came_is_kept() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(DESKS);
    let all = super::attacks();
    for listener in ["utf8", "gb18030", "auto", "bytes"] {
        let talks = say(&service, listener, &all, 200);
        let mut kept: Vec<String> =
            messages(&service, &format!("listeners/{listener}/conversations/-"))
                .iter()
                .map(|message| message["raw"].as_str().unwrap().to_owned())
                .collect();
        let mut sent: Vec<_> = all.iter().map(|(_, bytes)| base64(bytes)).collect();
        kept.sort_unstable();
        sent.sort_unstable();
        assert_eq!(kept, sent, "{listener}");
        drop(talks);
    }
}

#[test]
fn what_was_said_can_be_told_from_what_is_shown() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(DESKS);
    let all = super::attacks();
    let _talks = say(&service, "bytes", &all, 200);
    let unescaped = |text: &str| {
        let mut bytes = Vec::new();
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            let c = match (c, c == '\\') {
                (_, false) => c,
                _ => match rest.next().unwrap() {
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    'x' => {
                        let digits: String = rest.by_ref().take(2).collect();
                        bytes.push(u8::from_str_radix(&digits, 16).unwrap());
                        continue;
                    }
                    'u' => {
                        let digits: String =
                            rest.by_ref().skip(1).take_while(|c| *c != '}').collect();
                        char::from_u32(u32::from_str_radix(&digits, 16).unwrap()).unwrap()
                    }
                    other => other,
                },
            };
            bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
        bytes
    };
    for message in messages(&service, "listeners/bytes/conversations/-") {
        let text: &Value = &message["text"];
        let said = base64(&unescaped(text.as_str().unwrap()));
        assert_eq!(said, message["raw"].as_str().unwrap(), "{text}");
    }
}

#[test]
fn an_auto_peer_is_answered_as_it_last_said_something_telling() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(DESKS);
    let (gbk, utf8) = (&b"\xd4\xd9\xbc\xfb"[..], "再见".as_bytes());
    let mut client = service.talk("auto");
    let mut ask = |said: &[u8], answer: &[u8]| {
        answered(&service, &mut client, "auto", said, "再见", answer);
    };
    ask(b"hello", utf8);
    ask(b"\xc4\xe3\xba\xc3", gbk);
    // What both would send tells nothing.
    ask(b"ok", gbk);
    ask("你好".as_bytes(), utf8);
    ask(b"ok", utf8);
    // Beyond GBK there is GB18030.
    ask(b"\x81\x30\x81\x30", gbk);
}
