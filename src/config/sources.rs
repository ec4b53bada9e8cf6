//! The places that are read, and their order.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use config::{Environment, Map, Source as _};

use super::files::File;
use super::format::Format;
use super::node::{Kind, Node};
use super::origin::{Layer, Origin};
use super::path::MAX_DEPTH;
use super::problem::{Problem, Reason};
use super::texts::Texts;

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
    /// A text to be read in place of the system's and the named files, such as one that is yet to be written. Its places
    /// are in `document`.
    pub document: Option<(String, Format)>,
}

/// The tree of one source, or what is wrong with it.
type Read = (Layer, Result<Node, Vec<Problem>>);

impl Sources {
    /// Reads every source, lowest first; `texts` gets the files.
    pub(super) fn read(&self, texts: &mut Texts) -> Vec<Read> {
        let files = self.files().into_iter().map(|file| {
            let file = file?;
            texts.add(file.source(), file.bytes());
            file.parse()
        });
        let mut read: Vec<_> = files.map(|tree| (Layer::File, tree)).collect();
        let mut variables: Vec<_> = self.environment.iter().collect();
        variables.sort();
        let environment = variables.into_iter();
        let environment = environment.filter_map(|(name, value)| variable(name, value));
        let environment = environment.map(|tree| (Layer::Environment, tree));
        let sets = self.sets.iter();
        let sets = sets.map(|set| (Layer::CommandLine, assignment(set)));
        read.extend(environment.chain(sets));
        read
    }

    /// The files, lowest first, or the one text that stands in for them.
    fn files(&self) -> Vec<Result<File, Vec<Problem>>> {
        if let Some((text, format)) = &self.document {
            return vec![Ok(File::candidate(text, *format))];
        }
        let system = match self.system.as_deref().map(system_files).transpose() {
            Ok(paths) => paths.into_iter().flatten().map(Ok).collect(),
            Err(problems) => vec![Err(problems)],
        };
        let named = self.files.iter().cloned().map(Ok);
        let paths = system.into_iter().chain(named);
        paths
            .map(|path| path.map(|path| File::read(&path)))
            .collect()
    }
}

/// The system's files that exist, lowest first.
fn system_files(directory: &Path) -> Result<Vec<PathBuf>, Vec<Problem>> {
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
            return Err(vec![Problem::of_source(
                Reason::Unreadable,
                origin,
                message,
            )]);
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
        if !hidden && Format::of(&entry.path()).is_some() {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

/// What one variable sets, if it is one of ours. Each is given to the `config` crate by itself: of a whole environment
/// it would tell neither which variable set a key nor, of two that set the same, which won.
fn variable(name: &str, value: &str) -> Option<Result<Node, Vec<Problem>>> {
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
        Err(error) => Err(malformed(origin, &error.to_string())),
    })
}

/// What one `--set` sets.
fn assignment(set: &str) -> Result<Node, Vec<Problem>> {
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
fn leaf(key: &str, value: &str, origin: Origin) -> Result<Node, Vec<Problem>> {
    let segments: Vec<_> = key.split('.').collect();
    if segments.iter().any(|segment| segment.is_empty()) {
        return Err(malformed(origin, &format!("{key:?} is no key such as a.b")));
    }
    if segments.len() > MAX_DEPTH {
        return Err(malformed(origin, "the key is too deep"));
    }
    let text = Node::new(&Arc::new(origin), Kind::Text(value.to_owned()));
    Ok(text.beneath(&segments))
}

fn malformed(origin: Origin, message: &str) -> Vec<Problem> {
    vec![Problem::of_source(Reason::Syntax, origin, message)]
}
