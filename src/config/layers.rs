//! Every layer by itself, so that one can be changed, left out or asked what it says.
//!
//! A layer is one tree or several, each a file, a variable, a flag or a change: what is merged is made from them anew
//! each time, and costs less than reading the files again.

use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::node::{Kind, Node, Table};
use super::origin::{Layer, Origin, Origins};
use super::problem::{Problem, Problems, Reason};
use super::sources::Sources;
use super::texts::Texts;
use super::{Loaded, check, path, text};

/// One change that was made at run time.
///
/// The value takes the place of all that lower layers say at its path, tables too; null means that nothing is there.
/// Only the tables above the path merge.
#[derive(Debug, Clone, PartialEq)]
pub struct Assignment {
    /// The way to the value: `["listeners", "web", "limits", "max_sessions"]`.
    pub path: Vec<String>,
    /// The value as a file in JSON would say it.
    pub value: serde_json::Value,
    /// The method that made it, when, who and why; its layer is that of the set in which it is given.
    pub origin: Origin,
}

/// What one source says.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) layer: Layer,
    pub(super) tree: Node,
    /// The change that it is, in the layers of changes.
    change: Option<Assignment>,
}

impl Part {
    pub(super) fn new(layer: Layer, tree: Node) -> Self {
        let change = None;
        Self {
            layer,
            tree,
            change,
        }
    }

    fn of_change(layer: Layer, mut change: Assignment) -> Self {
        change.origin.layer = layer;
        let mut value = Node::from_json(&change.value, &Arc::new(change.origin.clone()));
        value.whole = true;
        Self {
            layer,
            tree: value.beneath(&change.path),
            change: Some(change),
        }
    }
}

/// Every layer, each as what it is; a clone shares the trees.
#[derive(Debug, Clone)]
pub struct Layers {
    /// Lowest first.
    parts: Vec<Arc<Part>>,
    /// What could not be read.
    problems: Vec<Problem>,
    texts: Arc<Texts>,
}

impl Layers {
    /// Reads files, environment and `--set`. What cannot be read is told by [`load`](Self::load).
    pub fn read(sources: &Sources) -> Self {
        let mut texts = Texts::default();
        let mut parts = Vec::new();
        let mut problems = Vec::new();
        for (layer, source) in sources.read(&mut texts) {
            match source {
                Ok(tree) => parts.push(Arc::new(Part::new(layer, tree))),
                Err(found) => problems.extend(found),
            }
        }
        let texts = Arc::new(texts);
        Self {
            parts,
            problems,
            texts,
        }
    }

    /// The same for the same files with the same bytes, in the same order; an absent file counts too.
    pub fn fingerprint(&self) -> u64 {
        self.texts.fingerprint()
    }

    /// The same with a lowest layer of built-in values, in place of the one it had.
    #[must_use]
    pub fn with_defaults(mut self, defaults: &serde_json::Value) -> Self {
        let nowhere = Arc::new(Origin::whole(Layer::Default, ""));
        let tree = Node::from_json(defaults, &nowhere);
        self.replace(Layer::Default, vec![Part::new(Layer::Default, tree)]);
        self
    }

    /// Puts the durable changes between files and environment, in place of those it had. Shorter paths are laid first;
    /// of two for one path the later wins.
    pub fn set_runtime(&mut self, changes: Vec<Assignment>) {
        self.set_changes(Layer::Runtime, changes);
    }

    /// The same for the changes that end with the process, on top of all.
    pub fn set_ephemeral(&mut self, changes: Vec<Assignment>) {
        self.set_changes(Layer::Ephemeral, changes);
    }

    /// Defaults and files only.
    #[must_use]
    pub fn files_only(&self) -> Self {
        self.filtered(|layer| layer <= Layer::File)
    }

    /// Where a file, a variable or a flag says something at this path: the lowest of them, which defines what others
    /// amend. Null and an empty table are nothing.
    pub fn configured(&self, path: &[impl AsRef<str>]) -> Option<Arc<Origin>> {
        self.lowest(path, |layer| {
            matches!(layer, Layer::File | Layer::Environment | Layer::CommandLine)
        })
    }

    /// Where the layers beneath the durable changes, defaults and files, say something at this path: what stays when
    /// a change of it is taken back, and what a deletion has to hide.
    pub fn beneath_runtime(&self, path: &[impl AsRef<str>]) -> Option<Arc<Origin>> {
        self.lowest(path, |layer| layer < Layer::Runtime)
    }

    /// The first key at, below or above this path that a layer above the given one sets, highest layer first: it would
    /// hide a change of the path in that layer. The key as it is shown, and where it is set.
    pub fn pinned(&self, path: &[impl AsRef<str>], above: Layer) -> Option<(String, Arc<Origin>)> {
        let path: Vec<_> = path.iter().map(AsRef::as_ref).collect();
        let higher = self.parts.iter().rev().filter(|part| part.layer > above);
        let mut pins = higher.filter_map(|part| pin(&part.tree, &path, &mut Vec::new()));
        pins.next()
    }

    /// Takes out, and tells, the changes within something that is not there: the first `prefix` segments of their path
    /// lead to nothing in the other layers, nor to what a change of exactly that path made. With a prefix of 2, the
    /// desired state of a listener that nothing defines.
    pub fn take_orphans(&mut self, prefix: usize) -> Vec<Assignment> {
        let within = |part: &Part| {
            let change = part.change.as_ref();
            change.filter(|change| change.path.len() > prefix).cloned()
        };
        let others = self.parts.iter().filter(|part| within(part).is_none());
        let mut others = merged(others);
        let mut orphans = Vec::new();
        self.parts.retain(|part| {
            let Some(change) = within(part) else {
                return true;
            };
            let there = change.path[..prefix]
                .iter()
                .try_fold(&mut others, |node, key| {
                    node.open_table();
                    node.child(&path::Segment::Key(key.clone()))
                });
            let there = there.is_some_and(|node| !node.is_nothing());
            orphans.extend((!there).then_some(change));
            there
        });
        orphans
    }

    /// Merges the layers and checks the result.
    ///
    /// Defaults are `T`'s own, by `#[serde(default)]`, beneath those of [`with_defaults`](Self::with_defaults). A source
    /// that cannot be read does not hide what is wrong with the others; only keys that seem to be missing are then left
    /// unsaid, for the unreadable source may hold them.
    ///
    /// # Errors
    /// Every problem of every source: by layer, then source, then line. Those whose place is in a layer of changes go
    /// away when that change is left out.
    pub fn load<T: DeserializeOwned>(&self) -> Result<Loaded<T>, Problems> {
        let mut tree = merged(&self.parts);
        let mut problems = self.problems.clone();
        let origins = Origins::of(&tree);
        match check::check(&mut tree) {
            Ok(value) if problems.is_empty() => return Ok(Loaded { value, origins }),
            Ok(_) => {}
            Err(found) if problems.is_empty() => problems = found,
            Err(found) => {
                problems.extend(found.into_iter().filter(|p| p.reason != Reason::Missing));
            }
        }
        Err(self.explained(problems))
    }

    /// Puts problems (one at least) in order, each with the line of the file that it stands in.
    pub fn explained(&self, mut problems: Vec<Problem>) -> Problems {
        for problem in &mut problems {
            problem.excerpt = problem.origin.as_ref().and_then(|o| self.texts.excerpt(o));
        }
        Problems::new(problems)
    }

    fn set_changes(&mut self, layer: Layer, mut changes: Vec<Assignment>) {
        changes.sort_by_key(|change| change.path.len());
        let parts = changes.into_iter();
        self.replace(
            layer,
            parts.map(|change| Part::of_change(layer, change)).collect(),
        );
    }

    fn replace(&mut self, layer: Layer, parts: Vec<Part>) {
        self.parts.retain(|part| part.layer != layer);
        self.parts.extend(parts.into_iter().map(Arc::new));
        self.parts.sort_by_key(|part| part.layer);
    }

    fn filtered(&self, wanted: impl Fn(Layer) -> bool) -> Self {
        let mut kept = self.clone();
        kept.parts.retain(|part| wanted(part.layer));
        kept.problems.retain(|problem| {
            let origin = problem.origin.as_ref();
            origin.is_none_or(|origin| wanted(origin.layer))
        });
        kept
    }

    fn lowest(
        &self,
        path: &[impl AsRef<str>],
        wanted: impl Fn(Layer) -> bool,
    ) -> Option<Arc<Origin>> {
        let mut parts = self.parts.iter().filter(|part| wanted(part.layer));
        parts.find_map(|part| said(&part.tree, path))
    }
}

/// What the parts say together.
fn merged<'p>(parts: impl IntoIterator<Item = &'p Arc<Part>>) -> Node {
    let nowhere = Arc::new(Origin::whole(Layer::Default, ""));
    let mut tree = Node::new(&nowhere, Kind::Table(Table::new()));
    for part in parts {
        tree.merge(part.tree.clone());
    }
    tree
}

/// Where one tree says something at the path.
fn said(node: &Node, path: &[impl AsRef<str>]) -> Option<Arc<Origin>> {
    match (&node.kind, path.split_first()) {
        (Kind::Table(table), Some((key, rest))) => said(table.get(key.as_ref())?, rest),
        (Kind::Text(text), Some(_)) => said(&text::table(text, &node.origin).ok()?, path),
        (_, Some(_)) | (Kind::Null, None) => None,
        (Kind::Table(table), None) if table.is_empty() => None,
        (_, None) => Some(node.key.clone()),
    }
}

/// What one tree sets at, below or above the path, `way` having led to the node.
fn pin<'n>(node: &'n Node, path: &[&str], way: &mut Vec<&'n str>) -> Option<(String, Arc<Origin>)> {
    let here = |way: &[&str]| Some((path::key(way), node.key.clone()));
    match &node.kind {
        _ if node.whole => here(way),
        Kind::Null => None,
        Kind::Table(table) => {
            let (wanted, rest) = match path.split_first() {
                Some((key, rest)) => (Some(*key), rest),
                None => (None, path),
            };
            let mut entries = table.iter();
            entries.find_map(|(key, child)| {
                if wanted.is_some_and(|wanted| wanted != key) {
                    return None;
                }
                way.push(key);
                let found = pin(child, rest, way);
                way.pop();
                found
            })
        }
        // A table in a variable's text hides no more than its keys.
        Kind::Text(text) if !path.is_empty() => match text::table(text, &node.origin) {
            Ok(table) => {
                let mut within: Vec<&str> = way.clone();
                pin(&table, path, &mut within)
            }
            Err(_) => here(way),
        },
        _ => here(way),
    }
}
