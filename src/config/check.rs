//! All problems of a tree, out of a deserializer that stops at the first.
//!
//! What was refused is struck out and the tree is read again, until nothing is refused. What then fails only because
//! something in it was struck is an echo: it is struck too, and nothing is said.

use serde::de::DeserializeOwned;

use super::de::Reader;
use super::error::Error;
use super::node::{Kind, Node};
use super::origin::Layer;
use super::path::{Segment, render};
use super::problem::{Problem, Reason};

/// Enough to mend in one go. It bounds the work too, for each problem costs a reading of the whole tree.
const ENOUGH: usize = 200;

/// Reads a value out of the tree.
///
/// # Errors
/// Up to 200 problems, in the order in which they were met; the tree is then of no more use.
pub(super) fn check<T: DeserializeOwned>(tree: &mut Node) -> Result<T, Vec<Problem>> {
    let mut problems = Vec::new();
    loop {
        match T::deserialize(Reader(tree)) {
            Ok(value) if problems.is_empty() => return Ok(value),
            Ok(_) => return Err(problems),
            Err(error) => problems.extend(strike(tree, error)),
        }
        if tree.is_struck() || problems.len() >= ENOUGH {
            return Err(problems);
        }
    }
}

/// Strikes out what an error points at, and says what is wrong unless it was said before.
///
/// Every call strikes a value that was not struck, so that [`check`] ends: the reader passes over struck values, hence
/// no error comes from within one.
fn strike(tree: &mut Node, mut error: Error) -> Option<Problem> {
    error.path.reverse();
    if let (Reason::UnknownKey, Some(meant)) = (error.reason, &error.suggestion) {
        reserve(tree, &error.path, meant);
    }
    let path = render(&error.path);
    at_deepest(tree, &error.path, |node, beyond| {
        let echo = match (error.reason, beyond) {
            (Reason::Missing, Some(key)) => node.child(key).is_some(),
            _ => node.holds_struck(),
        };
        // What a table lacks, a change that took the whole table away may have held.
        let taken = node.shadows.first().filter(|shadow| shadow.value.is_null());
        let is_key = error.reason == Reason::UnknownKey || matches!(node.kind, Kind::Table(_));
        let origin = match taken {
            Some(shadow) if error.reason == Reason::Missing => &shadow.origin,
            _ if is_key => &node.key,
            _ => &node.origin,
        };
        let place = (origin.layer != Layer::Default).then(|| (**origin).clone());
        let problem = Problem {
            suggestion: error.suggestion,
            ..Problem::new(error.reason, path, error.message, place)
        };
        node.kind = Kind::Struck;
        (!echo).then_some(problem)
    })
}

/// Acts on the last value on the path that exists and is not struck, told the step that could not be taken from it.
fn at_deepest<R>(
    node: &mut Node,
    path: &[Segment],
    act: impl FnOnce(&mut Node, Option<&Segment>) -> R,
) -> R {
    let Some((segment, rest)) = path.split_first() else {
        return act(node, None);
    };
    match node.child(segment) {
        Some(child) if !child.is_struck() => at_deepest(child, rest, act),
        _ => act(node, Some(segment)),
    }
}

/// Puts a struck value where a slip's right key belongs, so that this key is not called missing as well.
fn reserve(tree: &mut Node, path: &[Segment], meant: &str) {
    let Some((_, parent)) = path.split_last() else {
        return;
    };
    at_deepest(tree, parent, |node, beyond| {
        let absent = Node::new(&node.origin, Kind::Struck);
        if let (Kind::Table(table), None) = (&mut node.kind, beyond) {
            table.entry(meant.to_owned()).or_insert(absent);
        }
    });
}
