//! The places that are read, and their order.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use config::{Environment, Map, Source as _};

use super::files;
use super::node::{Kind, Node, Table};
use super::origin::{Layer, Origin};
use super::path::MAX_DEPTH;
use super::problem::{Problem, Reason};

/// What the names of variables begin with. [`PREFIX`] and [`SEPARATOR`] together, so that `SWITCHBOARD_ENDPOINT`, which
/// is the command line's, is none of them.
const PREFIX: &str = "SWITCHBOARD";
const SEPARATOR: &str = "__";

/// Where configuration may come from, lowest first.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The system's directory: `switchboard.toml` in it, then the files of its `conf.d` in the order of their names, those
    /// that end in .toml, .json, .yaml or .yml and do not begin with a dot. What is absent is passed over.
    pub system: Option<PathBuf>,
    /// Files named on the command line, each over the one before it; an absent one is a problem.
    pub files: Vec<PathBuf>,
    /// Variables, of which those named `SWITCHBOARD__A__B` set `a.b`; later names in their order win. Names are read in
    /// lower case.
    pub environment: Vec<(String, String)>,
    /// `a.b=value` from the command line, in its order.
    pub sets: Vec<String>,
}

impl Sources {
    /// Reads and merges every layer that can be read, and says what is wrong with the others.
    pub(super) fn read(&self) -> (Node, Vec<Problem>) {
        let mut problems = Vec::new();
        let nowhere = Arc::new(Origin::whole(Layer::Default, ""));
        let mut tree = Node::new(&nowhere, Kind::Table(Table::new()));
        let mut add = |layer: Result<Node, Vec<Problem>>| match layer {
            Ok(layer) => tree.merge(layer),
            Err(found) => problems.extend(found),
        };
        match self.system.as_deref().map(system_files).transpose() {
            Ok(paths) => paths
                .iter()
                .flatten()
                .for_each(|path| add(files::read(path))),
            Err(problem) => add(Err(vec![problem])),
        }
        self.files.iter().for_each(|path| add(files::read(path)));
        let mut variables: Vec<_> = self.environment.iter().collect();
        variables.sort();
        let environment = variables.into_iter();
        let layers = environment.filter_map(|(name, value)| variable(name, value));
        layers.for_each(|layer| add(layer.map_err(|problem| vec![problem])));
        let sets = self.sets.iter().map(|set| assignment(set));
        sets.for_each(|layer| add(layer.map_err(|problem| vec![problem])));
        (tree, problems)
    }
}

/// The system's files that exist, lowest first.
fn system_files(directory: &Path) -> Result<Vec<PathBuf>, Problem> {
    let main = directory.join("switchboard.toml");
    let mut paths = Vec::new();
    // Anything but absence is for the reading to tell.
    if !matches!(main.try_exists(), Ok(false)) {
        paths.push(main);
    }
    let parts = directory.join("conf.d");
    match entries(&parts) {
        Ok(found) => paths.extend(found),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => {
            let origin = Origin::whole(Layer::File, &parts.display().to_string());
            let message = format!("cannot be read: {error}");
            return Err(Problem::of_source(Reason::Unreadable, origin, message));
        }
    }
    Ok(paths)
}

fn entries(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in directory.read_dir()? {
        let entry = entry?;
        // Editors and configuration mounts keep their own files here, under names with a dot.
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if !hidden && files::format(&entry.path()).is_some() {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

/// What one variable sets, if it is one of ours. Each is given to the `config` crate by itself: of a whole environment
/// it would tell neither which variable set a key nor, of two that set the same, which won.
fn variable(name: &str, value: &str) -> Option<Result<Node, Problem>> {
    if !name.starts_with(&format!("{PREFIX}{SEPARATOR}")) {
        return None;
    }
    let one = Map::from([(name.to_owned(), value.to_owned())]);
    let environment = Environment::with_prefix(PREFIX)
        .prefix_separator(SEPARATOR)
        .separator(SEPARATOR)
        .source(Some(one));
    let origin = Origin::whole(Layer::Environment, name);
    Some(match environment.collect() {
        Ok(map) => map.into_keys().next().map_or_else(
            || Err(malformed(origin.clone(), "the name holds no key")),
            |key| leaf(&key, value, origin.clone()),
        ),
        Err(error) => Err(Problem::of_source(Reason::Syntax, origin, error)),
    })
}

/// What one `--set` sets.
fn assignment(set: &str) -> Result<Node, Problem> {
    let origin = Origin::whole(Layer::CommandLine, "--set");
    match set.split_once('=') {
        Some((key, value)) => leaf(key.trim(), value, origin),
        None => Err(malformed(
            origin,
            &format!("expected KEY=VALUE, found {set:?}"),
        )),
    }
}

/// The tree of one key: `a.b` is a table `a` that holds a text `b`.
fn leaf(key: &str, value: &str, origin: Origin) -> Result<Node, Problem> {
    let segments: Vec<_> = key.split('.').collect();
    if segments.iter().any(|segment| segment.is_empty()) {
        return Err(malformed(origin, &format!("{key:?} is no key such as a.b")));
    }
    if segments.len() > MAX_DEPTH {
        return Err(malformed(origin, "the key is too deep"));
    }
    let origin = Arc::new(origin);
    let text = Node::new(&origin, Kind::Text(value.to_owned()));
    let table = |inner, segment: &&str| {
        let table = Table::from([((*segment).to_owned(), inner)]);
        Node::new(&origin, Kind::Table(table))
    };
    Ok(segments.iter().rev().fold(text, table))
}

fn malformed(origin: Origin, message: &str) -> Problem {
    Problem::of_source(Reason::Syntax, origin, message)
}
