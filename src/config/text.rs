//! Text from variables and the command line, read after what its key wants.
//!
//! A shell has only text, so that a list may be written `a,b,c`; where structure is needed, the text is a TOML value.

use std::sync::Arc;

use config::{File, FileFormat, Source};

use super::error::Error;
use super::node::{Kind, Node};
use super::origin::Origin;
use super::problem::Reason;

/// A TOML list if the text begins like one, else parts between commas, each of them text again; empty text and empty
/// parts are no items.
pub(super) fn list(text: &str, origin: &Arc<Origin>) -> Result<Node, Error> {
    if text.trim_start().starts_with('[') {
        return value(text, origin);
    }
    let parts = text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    let items = parts.map(|part| Node::new(origin, Kind::Text(part.to_owned())));
    Ok(Node::new(origin, Kind::List(items.collect())))
}

/// An inline table.
pub(super) fn table(text: &str, origin: &Arc<Origin>) -> Result<Node, Error> {
    if text.trim_start().starts_with('{') {
        return value(text, origin);
    }
    Err(Error::new(
        Reason::WrongType,
        format!("expected a table such as {{ key = \"value\" }}, found {text:?}"),
    ))
}

/// One TOML value; its types are then those of a file.
fn value(text: &str, origin: &Arc<Origin>) -> Result<Node, Error> {
    const KEY: &str = "value";
    let refused = || Error::new(Reason::Syntax, format!("not a TOML value: {text:?}"));
    let document = File::from_str(&format!("{KEY} = {text}"), FileFormat::Toml);
    let mut map = document.collect().map_err(|_| refused())?;
    // More than one key means that the text broke out of its value by a line of its own.
    match map.remove(KEY) {
        Some(value) if map.is_empty() => Ok(Node::from_value(value, origin)),
        _ => Err(refused()),
    }
}
