//! Values as the text of a file, such that the file gives the same values again.

use std::fmt;

use serde_json::{Map, Value};
use yaml_rust2::yaml::Hash;
use yaml_rust2::{Yaml, YamlEmitter};

use super::format::Format;
use super::path::{Segment, render};

/// A value that the format has no way to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inexpressible {
    /// The key of the value.
    pub key: String,
    /// What is wrong with it.
    pub message: String,
}

impl fmt::Display for Inexpressible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.as_str() {
            "" => f.write_str(&self.message),
            key => write!(f, "{key}: {}", self.message),
        }
    }
}

impl std::error::Error for Inexpressible {}

/// A table of settings as a document, which ends in a line feed. Null says nothing and is left out.
///
/// # Errors
/// What the format cannot say: whole numbers past 2^63 - 1, in TOML and YAML.
pub fn export(table: &Value, format: Format) -> Result<String, Inexpressible> {
    let table = said(table);
    if format != Format::Json {
        signed(&table, format, &mut Vec::new())?;
    }
    match format {
        Format::Toml => toml::to_string(&table).map_err(|error| Inexpressible {
            key: String::new(),
            message: error.to_string(),
        }),
        Format::Json => Ok(format!("{table:#}\n")),
        Format::Yaml => Ok(yaml_text(&table)),
    }
}

/// The same value without its nulls.
fn said(value: &Value) -> Value {
    match value {
        Value::Object(entries) => {
            let entries = entries.iter().filter(|(_, value)| !value.is_null());
            let entries = entries.map(|(key, value)| (key.clone(), said(value)));
            Value::Object(entries.collect())
        }
        Value::Array(items) => {
            let items = items.iter().filter(|item| !item.is_null());
            Value::Array(items.map(said).collect())
        }
        other => other.clone(),
    }
}

/// Refuses numbers that the readers of TOML and YAML do not take for whole ones.
fn signed(value: &Value, format: Format, path: &mut Vec<Segment>) -> Result<(), Inexpressible> {
    let mut beneath = |segment, value| {
        path.push(segment);
        signed(value, format, path)?;
        path.pop();
        Ok(())
    };
    match value {
        Value::Number(number) if number.is_u64() && !number.is_i64() => Err(Inexpressible {
            key: render(path),
            message: format!("{number} is more than {format} can say, {}", i64::MAX),
        }),
        Value::Object(entries) => {
            let mut entries = entries.iter();
            entries.try_for_each(|(key, value)| beneath(Segment::Key(key.clone()), value))
        }
        Value::Array(items) => {
            let mut items = items.iter().enumerate();
            items.try_for_each(|(index, value)| beneath(Segment::Index(index), value))
        }
        _ => Ok(()),
    }
}

/// Any JSON value as one YAML document, without the dashes that may begin one; ends in a line feed. Text is quoted
/// wherever some reader of YAML might take it for something else.
pub fn yaml_text(value: &Value) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = YamlEmitter::new(&mut text).dump(&yaml(value));
    let text = text
        .strip_prefix("---")
        .unwrap_or(&text)
        .trim_start_matches('\n');
    format!("{text}\n")
}

fn yaml(value: &Value) -> Yaml {
    match value {
        // The emitter's own word for it would be `~`.
        Value::Null => Yaml::Real("null".to_owned()),
        Value::Bool(value) => Yaml::Boolean(*value),
        // The emitter writes what is called real as it is.
        Value::Number(number) => Yaml::Real(number.to_string()),
        Value::String(text) => scalar(text),
        Value::Array(items) => Yaml::Array(items.iter().map(yaml).collect()),
        Value::Object(entries) => Yaml::Hash(hash(entries)),
    }
}

fn hash(entries: &Map<String, Value>) -> Hash {
    let entries = entries.iter();
    entries
        .map(|(key, value)| (scalar(key), yaml(value)))
        .collect()
}

/// Text as it is if it is plain words, else in JSON's quotes, which are YAML's too. The emitter's own choice would leave
/// `1_000` and `0o17` without.
fn scalar(text: &str) -> Yaml {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    let mut words = text.split(' ');
    let is_plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && words.all(|word| !word.is_empty() && word.chars().all(plain))
        && !MEANT_OTHERWISE.contains(&text.to_ascii_lowercase().as_str())
        && matches!(Yaml::from_str(text), Yaml::String(_));
    Yaml::Real(if is_plain {
        text.to_owned()
    } else {
        quoted(text)
    })
}

/// Words that one reader or another takes for a truth, nothing or a number.
const MEANT_OTHERWISE: [&str; 13] = [
    "y", "n", "yes", "no", "on", "off", "true", "false", "null", "nil", "nan", "inf", "infinity",
];

/// JSON's quoting, with what YAML does not take as it is written as escapes.
fn quoted(text: &str) -> String {
    let mut out = String::new();
    for c in Value::from(text).to_string().chars() {
        match c {
            '\x7f'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' => {
                out.extend(['\\', 'u']);
                out.push_str(&format!("{:04x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out
}
