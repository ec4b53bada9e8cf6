//! The files as they were read: to show a line of one, and to tell whether any has changed.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::excerpt::Excerpt;
use super::origin::{Layer, Origin};

/// Files by what they are called.
#[derive(Debug, Default)]
pub(super) struct Texts {
    texts: BTreeMap<Arc<str>, String>,
    hasher: DefaultHasher,
}

impl Texts {
    /// Adds what a file holds; `None` for one that cannot be read.
    pub(super) fn add(&mut self, source: &Arc<str>, bytes: Option<&[u8]>) {
        (source, bytes).hash(&mut self.hasher);
        // What is no text has no lines to show, and is refused as a whole.
        if let Some(Ok(text)) = bytes.map(str::from_utf8) {
            let text = text.strip_prefix('\u{feff}').unwrap_or(text);
            self.texts.insert(source.clone(), text.to_owned());
        }
    }

    /// Tells two readings apart: by the files' names, their order and their bytes.
    pub(super) fn fingerprint(&self) -> u64 {
        self.hasher.finish()
    }

    /// The line at a place, if the place is in a file.
    pub(super) fn excerpt(&self, origin: &Origin) -> Option<Excerpt> {
        if origin.layer != Layer::File {
            return None;
        }
        let text = self.texts.get(&origin.source)?;
        Excerpt::of(text, origin.line?, origin.column.unwrap_or(1))
    }
}
