//! Files as layers: read within bounds, in three formats.
//!
//! The `config` crate reads the values. Places are added here: of every value for TOML, of syntax errors alone for JSON
//! and YAML, whose parsers tell no more.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use config::{ConfigError, FileFormat, Source as _};
use yaml_rust2::parser::{Event, Parser};
use yaml_rust2::scanner::Marker;

use super::node::Node;
use super::origin::{Layer, Origin};
use super::path::MAX_DEPTH;
use super::problem::{Problem, Reason};
use super::spans::Spans;
use super::unique::repeated;

/// No configuration is longer; a wrong path may be endless. In bytes.
const MAX_BYTES: u64 = 1 << 20;

/// The format that a file's name ends in, if it is one of ours.
pub(super) fn format(path: &Path) -> Option<FileFormat> {
    match path.extension()?.to_str()? {
        "toml" => Some(FileFormat::Toml),
        "json" => Some(FileFormat::Json),
        "yaml" | "yml" => Some(FileFormat::Yaml),
        _ => None,
    }
}

/// Reads one file.
///
/// # Errors
/// Why it cannot be read, or every syntax error that its parser finds.
pub(super) fn read(path: &Path) -> Result<Node, Vec<Problem>> {
    let origin = Origin::whole(Layer::File, &path.display().to_string());
    let unreadable =
        |why: String| vec![Problem::of_source(Reason::Unreadable, origin.clone(), why)];
    let Some(format) = format(path) else {
        return Err(unreadable(
            "the name of a configuration ends in .toml, .json, .yaml or .yml".to_owned(),
        ));
    };
    let text = contents(path).map_err(unreadable)?;
    // Some editors begin a file with a byte order mark; JSON has no place for it.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    parse(text, format, &origin)
}

fn contents(path: &Path) -> Result<String, String> {
    let refused = |error: std::io::Error| format!("cannot be read: {error}");
    let file = File::open(path).map_err(refused)?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(refused)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err("is longer than 1 MiB".to_owned());
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        format!(
            "is not UTF-8 text: byte {} is the first wrong one",
            valid + 1
        )
    })
}

fn parse(text: &str, format: FileFormat, origin: &Origin) -> Result<Node, Vec<Problem>> {
    let spans = match format {
        FileFormat::Toml => Some(Spans::parse(text, origin)?),
        _ => None,
    };
    if format == FileFormat::Yaml {
        scan_yaml(text, origin).map_err(|problem| vec![problem])?;
    }
    let twice = (format == FileFormat::Json)
        .then(|| repeated(text))
        .flatten();
    if let Some((key, line, column)) = twice {
        let message = format!("the key {key:?} stands twice in one table");
        let place = origin.at(line, column);
        return Err(vec![Problem::of_source(Reason::Syntax, place, message)]);
    }
    let map = config::File::from_str(text, format)
        .collect()
        .map_err(|error| vec![syntax(error, origin)])?;
    let mut node = Node::from_map(map, &Arc::new(origin.clone()));
    if let Some(spans) = spans {
        spans.place(&mut node);
    }
    Ok(node)
}

fn syntax(error: ConfigError, origin: &Origin) -> Problem {
    let ConfigError::FileParse { cause, .. } = error else {
        return Problem::of_source(Reason::Syntax, origin.clone(), error);
    };
    let message = cause.to_string();
    match cause.downcast_ref::<serde_json::Error>() {
        Some(json) => {
            let place = origin.at(json.line(), json.column());
            // The place is said by the origin.
            let message = message.split(" at line ").next().unwrap_or(&message);
            Problem::of_source(Reason::Syntax, place, message)
        }
        None => Problem::of_source(Reason::Syntax, origin.clone(), message),
    }
}

/// Finds YAML's syntax errors with their places, and refuses what would end the process when it is read: aliases, since
/// they are copied, so that a few lines of aliases to aliases would fill the memory; and depth, since it is recursed over.
fn scan_yaml(text: &str, origin: &Origin) -> Result<(), Problem> {
    let refused = |mark: Marker, message: &str| {
        let place = origin.at(mark.line(), mark.col() + 1);
        Err(Problem::of_source(Reason::Syntax, place, message))
    };
    let mut parser = Parser::new_from_str(text);
    let mut depth = 0;
    loop {
        match parser.next_token() {
            Err(error) => return refused(*error.marker(), error.info()),
            Ok((Event::Alias(_), mark)) => return refused(mark, "YAML aliases are not read here"),
            Ok((Event::SequenceStart(..) | Event::MappingStart(..), mark)) => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return refused(mark, "the value is too deep");
                }
            }
            Ok((Event::SequenceEnd | Event::MappingEnd, _)) => depth -= 1,
            Ok((Event::StreamEnd, _)) => return Ok(()),
            Ok(_) => {}
        }
    }
}
