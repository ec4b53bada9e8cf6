//! Layered configuration: where values may stand, which one wins, and what is wrong with them.
//!
//! It knows no setting by name: the parts of the product define their own `Settings`, and [`load`] fills whatever
//! type it is asked for. The `config` crate reads each layer; what it cannot say is added here, since an operator
//! mends a file by line and column: every value keeps the place where it stands, types are not coerced, unknown keys
//! are refused with the nearest known one, and all problems are told at once.
//!
//! ```text
//! sources ─ one Node tree a layer ─ merged, later wins ─ deserialised again and again,
//!                                                         striking out what was refused, until nothing is
//! ```
//!
//! The layers stay apart in [`Layers`], so that what was changed at run time can be laid among them and taken out again,
//! and each can be asked what it says. Settings go the other way as well: [`to_value`] says them as a file would,
//! [`diff`] compares them, [`export`] writes them.
//!
//! A **tagged table** has the keys of its kind beside its common ones, as a listener has those of its protocol. serde's
//! `flatten` would lose both places and strictness, so a field renamed to `$TAG` means: the value of key `TAG` chooses
//! the enum's variant, and every key that the struct itself does not name belongs to that variant.

mod access;
mod check;
mod de;
pub mod duration;
mod error;
mod excerpt;
mod export;
mod files;
mod format;
mod json;
mod layers;
mod node;
mod origin;
mod path;
mod place;
mod problem;
mod scope;
pub mod size;
mod sources;
mod spans;
mod suggest;
mod text;
mod texts;
mod value;
mod write;
mod yaml;

use serde::de::DeserializeOwned;

pub use excerpt::Excerpt;
pub use export::{Inexpressible, export, yaml_text};
pub use format::{Format, UnknownFormat};
pub use layers::{Assignment, Layers};
pub use origin::{Layer, Origin, Origins, Setting, Shadow};
pub use path::{is_within, key, parse_key};
pub use problem::{Problem, Problems, Reason};
pub use scope::{Scope, scope_of};
pub use sources::Sources;
pub use suggest::nearest;
pub use value::{Change, Values, diff, to_value};

/// A checked configuration, and where each of its values stands.
#[derive(Debug, Clone)]
pub struct Loaded<T> {
    /// The settings themselves.
    pub value: T,
    /// Where each of them was set; what is absent here is a built-in default.
    pub origins: Origins,
}

/// Reads every layer, merges them and checks the result: [`Layers::load`] of [`Layers::read`].
///
/// # Errors
/// Every problem of every source: by layer, then source, then line.
pub fn load<T: DeserializeOwned>(sources: &Sources) -> Result<Loaded<T>, Problems> {
    Layers::read(sources).load()
}

#[cfg(test)]
mod tests;
