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
//! A **tagged table** has the keys of its kind beside its common ones, as a listener has those of its protocol. serde's
//! `flatten` would lose both places and strictness, so a field renamed to `$TAG` means: the value of key `TAG` chooses
//! the enum's variant, and every key that the struct itself does not name belongs to that variant.

mod access;
mod check;
mod de;
pub mod duration;
mod error;
mod files;
mod node;
mod origin;
mod path;
mod problem;
pub mod size;
mod sources;
mod spans;
mod suggest;
mod text;
mod unique;

use serde::de::DeserializeOwned;

pub use origin::{Layer, Origin, Origins, Setting, Shadow};
pub use problem::{Problem, Problems, Reason};
pub use sources::Sources;
pub use suggest::nearest;

/// A checked configuration, and where each of its values stands.
#[derive(Debug, Clone)]
pub struct Loaded<T> {
    /// The settings themselves.
    pub value: T,
    /// Where each of them was set; what is absent here is a built-in default.
    pub origins: Origins,
}

/// Reads every layer, merges them and checks the result.
///
/// Defaults are `T`'s own, by `#[serde(default)]`. A source that cannot be read does not hide what is wrong with the
/// others; only keys that seem to be missing are then left unsaid, for the unreadable source may hold them.
///
/// # Errors
/// Every problem of every source: by layer, then source, then line.
pub fn load<T: DeserializeOwned>(sources: &Sources) -> Result<Loaded<T>, Problems> {
    let (mut tree, mut problems) = sources.read();
    let origins = Origins::of(&tree);
    match check::check(&mut tree) {
        Ok(value) if problems.is_empty() => return Ok(Loaded { value, origins }),
        Ok(_) => {}
        Err(found) if problems.is_empty() => problems = found,
        Err(found) => problems.extend(found.into_iter().filter(|p| p.reason != Reason::Missing)),
    }
    Err(Problems::new(problems))
}

#[cfg(test)]
mod tests;
