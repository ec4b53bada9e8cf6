//! Files as layers: read within bounds, in three formats.
//!
//! The `config` crate reads the values. What it cannot say is found before, in a walk for each format: every syntax
//! error, and the place of every value.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use config::{ConfigError, Source as _};

use super::format::Format;
use super::node::Node;
use super::origin::{Layer, Origin};
use super::problem::{Problem, Reason};
use super::{json, spans, yaml};

/// No configuration is longer; a wrong path may be endless. In bytes.
const MAX_BYTES: usize = 1 << 20;

/// One file, and what came of the attempt to read it.
pub(super) struct File {
    origin: Origin,
    format: Format,
    bytes: Result<Vec<u8>, String>,
}

impl File {
    /// Reads a file. Why it cannot be read is for [`parse`](Self::parse) to tell.
    pub(super) fn read(path: &Path) -> Self {
        let format = Format::of(path);
        let unknown =
            || "the name of a configuration ends in .toml, .json, .yaml or .yml".to_owned();
        Self {
            origin: Origin::whole(Layer::File, &path.display().to_string()),
            format: format.unwrap_or_default(),
            bytes: format.ok_or_else(unknown).and_then(|_| contents(path)),
        }
    }

    /// A text that stands in no file, called `document`.
    pub(super) fn candidate(text: &str, format: Format) -> Self {
        let origin = Origin::whole(Layer::File, "document");
        let bytes = bounded(text.as_bytes().to_vec());
        Self {
            origin,
            format,
            bytes,
        }
    }

    /// What it is called.
    pub(super) fn source(&self) -> &Arc<str> {
        &self.origin.source
    }

    /// What it holds, if it could be read.
    pub(super) fn bytes(&self) -> Option<&[u8]> {
        self.bytes.as_deref().ok()
    }

    /// The tree that it holds, each value with its place.
    ///
    /// # Errors
    /// Why it cannot be read, or every syntax error that its parser finds.
    pub(super) fn parse(&self) -> Result<Node, Vec<Problem>> {
        let unreadable = |why: String| {
            vec![Problem::of_source(
                Reason::Unreadable,
                self.origin.clone(),
                why,
            )]
        };
        let bytes = self.bytes.as_ref().map_err(|why| unreadable(why.clone()))?;
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let first = error.valid_up_to() + 1;
            unreadable(format!(
                "is not UTF-8 text: byte {first} is the first wrong one"
            ))
        })?;
        // Some editors begin a file with a byte order mark; JSON has no place for it.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        parse(text, self.format, &self.origin)
    }
}

fn contents(path: &Path) -> Result<Vec<u8>, String> {
    let refused = |error: std::io::Error| format!("cannot be read: {error}");
    // A pipe would have its reader wait for a writer, which may never come.
    let mut options = fs::OpenOptions::new();
    let file = options.read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = file.map_err(refused)?;
    if !file.metadata().map_err(refused)?.is_file() {
        return Err("is not a regular file".to_owned());
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(refused)?;
    bounded(bytes)
}

fn bounded(bytes: Vec<u8>) -> Result<Vec<u8>, String> {
    if bytes.len() > MAX_BYTES {
        return Err("is longer than 1 MiB".to_owned());
    }
    Ok(bytes)
}

fn parse(text: &str, format: Format, file: &Origin) -> Result<Node, Vec<Problem>> {
    let place = match format {
        Format::Toml => spans::scan(text, file)?,
        Format::Json => json::scan(text, file)?,
        Format::Yaml => yaml::scan(text, file)?,
    };
    if let Some((key, position)) = place.repeated() {
        let message = format!("the key {key:?} stands twice in one table");
        let twice = Problem::of_source(Reason::Syntax, file.at(position), message);
        return Err(vec![twice]);
    }
    let map = config::File::from_str(text, format.reader()).collect();
    let map = map.map_err(|error| {
        let message = match error {
            ConfigError::FileParse { cause, .. } => cause.to_string(),
            other => other.to_string(),
        };
        vec![Problem::of_source(Reason::Syntax, file.clone(), message)]
    })?;
    let mut node = Node::from_map(map, &Arc::new(file.clone()));
    place.give(&mut node, file);
    Ok(node)
}
