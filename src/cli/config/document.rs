//! `config export` and `config validate`: the configuration as one document, out of the service and into it.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::super::client::Client;
use super::super::effect::warnings;
use super::super::exit::{BAD_CONFIGURATION, Failure, complain};
use super::super::output::{self, Format, legible, on_a_terminal};
use crate::grpc::api;

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// What to write it in
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Syntax::Toml)]
    format: Syntax,
    /// With the durable changes that were made at run time
    #[arg(long)]
    with_runtime_state: bool,
}

#[derive(Debug, Args)]
pub(super) struct ValidateArgs {
    /// The document; - reads stdin
    file: PathBuf,
    /// What it is written in; by default what the file's name ends in, otherwise TOML
    #[arg(long, value_name = "FORMAT", value_enum)]
    format: Option<Syntax>,
}

/// What a document is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Syntax {
    Toml,
    Json,
    Yaml,
}

impl Syntax {
    fn of(file: &Path) -> Self {
        match file.extension().and_then(|end| end.to_str()) {
            Some("json") => Self::Json,
            Some("yaml" | "yml") => Self::Yaml,
            _ => Self::Toml,
        }
    }

    fn name(self) -> String {
        match self {
            Self::Toml => "toml",
            Self::Json => "json",
            Self::Yaml => "yaml",
        }
        .to_owned()
    }
}

/// Prints the document.
pub(super) async fn export(
    args: &ExportArgs,
    client: &Client,
    format: Format,
) -> Result<(), Failure> {
    let asked = api::ExportConfigRequest {
        format: args.format.name(),
        include_runtime_state: args.with_runtime_state,
    };
    let answer = client.call(asked).await?;
    if format.is_document() {
        return output::whole(format, &answer);
    }
    let mut document = answer.document;
    if !document.ends_with('\n') {
        document.push('\n');
    }
    // A file gets what the service wrote, byte for byte.
    if on_a_terminal() {
        document = legible(document.as_bytes(), b"\\\n\t");
    }
    output::print(&document)
}

/// Has a document checked; the problems are told as `switchboard check` tells them.
pub(super) async fn validate(
    args: &ValidateArgs,
    client: &Client,
    format: Format,
) -> Result<(), Failure> {
    let asked = api::ValidateConfigRequest {
        document: read(&args.file)?,
        format: args.format.unwrap_or_else(|| Syntax::of(&args.file)).name(),
    };
    let mut answer = client.call(asked).await?;
    for problem in answer.problems.iter_mut().filter(|p| p.source.is_empty()) {
        problem.source = args.file.display().to_string();
    }
    if format.is_document() {
        output::whole(format, &answer)?;
    } else {
        for problem in &answer.problems {
            complain(&legible(line(problem).as_bytes(), b"\\"));
        }
        warnings(&answer.warnings);
    }
    if !answer.problems.is_empty() {
        return Err(Failure::Told(BAD_CONFIGURATION));
    }
    if format.is_document() {
        return Ok(());
    }
    output::print("the configuration is valid\n")
}

fn read(file: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = match file.to_str() {
        Some("-") => io::stdin().read_to_string(&mut text).map(|_| text),
        _ => fs::read_to_string(file),
    };
    let mut text = read.map_err(|error| {
        Failure::Here(
            BAD_CONFIGURATION,
            format!("cannot read {}: {error}", file.display()),
        )
    })?;
    // No text at all would ask for the files of the service.
    if text.is_empty() {
        text.push('\n');
    }
    Ok(text)
}

/// ``FILE:LINE:COLUMN: key: message; did you mean `word`?``, without the parts that are not known.
fn line(problem: &api::ConfigProblem) -> String {
    let mut out = problem.source.clone();
    for number in [problem.line, problem.column] {
        if number > 0 {
            out += &format!(":{number}");
        }
    }
    if !problem.key.is_empty() {
        out += &format!(": {}", problem.key);
    }
    out += &format!(": {}", problem.message);
    if !problem.suggestion.is_empty() {
        out += &format!("; did you mean `{}`?", problem.suggestion);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_a_line_that_editors_follow() {
        let mut problem = api::ConfigProblem {
            key: "listeners.ack.bnd".into(),
            message: "there is no such key".into(),
            source: "a.toml".into(),
            line: 3,
            column: 1,
            suggestion: "bind".into(),
            ..Default::default()
        };
        let whole = "a.toml:3:1: listeners.ack.bnd: there is no such key; did you mean `bind`?";
        assert_eq!(line(&problem), whole);
        (problem.line, problem.column) = (0, 0);
        (problem.key, problem.suggestion) = (String::new(), String::new());
        assert_eq!(line(&problem), "a.toml: there is no such key");
    }

    #[test]
    fn a_name_says_its_format() {
        let names = ["a.toml", "a.json", "a.yaml", "b/a.yml", "-", "a"];
        let formats = names.map(|name| Syntax::of(Path::new(name)).name());
        assert_eq!(formats, ["toml", "json", "yaml", "yaml", "toml", "toml"]);
    }

    #[test]
    fn an_empty_document_is_a_document() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(read(file.path()).unwrap(), "\n");
        assert!(read(Path::new("/nonexistent/a.toml")).is_err());
    }
}
