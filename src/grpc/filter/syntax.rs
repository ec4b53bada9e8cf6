//! The grammar of AIP-160: from a text to an expression of restrictions, which know no message yet.
//!
//! A filter comes from outside: one pass over the text, parentheses to a depth, and no word is read twice.

use super::expression::{Comparator, Expression, Fault, Word, Written};
use crate::supervisor::shown;

/// How each is written; a sign stands behind those that it is the beginning of.
const COMPARATORS: [(&str, Comparator); 7] = [
    ("!=", Comparator::Unequal),
    ("<=", Comparator::AtMost),
    (">=", Comparator::AtLeast),
    ("=", Comparator::Equal),
    ("<", Comparator::Less),
    (">", Comparator::More),
    (":", Comparator::Has),
];

/// How deep parentheses may stand in each other.
const DEEPEST: usize = 32;

/// Reads a text that is not blank.
pub(super) fn parse(text: &str) -> Result<Expression<Written<'_>>, Fault> {
    let mut reader = Reader {
        text,
        at: 0,
        depth: 0,
    };
    let expression = reader.expression()?;
    match reader.rest() {
        "" => Ok(expression),
        _ => Err(reader.fault("this `)` closes nothing")),
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn fault(&self, what: impl Into<String>) -> Fault {
        let (at, what) = (self.at, what.into());
        Fault { at, what }
    }

    fn space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn take(&mut self, sign: &str) -> bool {
        let is_next = self.rest().starts_with(sign);
        self.at += if is_next { sign.len() } else { 0 };
        is_next
    }

    /// Takes `AND`, `OR` or `NOT` when it stands by itself.
    fn take_word(&mut self, word: &str) -> bool {
        self.space();
        let behind = self.rest().strip_prefix(word);
        let is_next = behind.is_some_and(|behind| {
            behind.is_empty() || behind.starts_with(|c: char| c.is_whitespace() || c == '(')
        });
        self.at += if is_next { word.len() } else { 0 };
        is_next
    }

    /// `a b AND c`: what stands side by side holds together.
    fn expression(&mut self) -> Result<Expression<Written<'a>>, Fault> {
        let mut parts = vec![self.any()?];
        loop {
            let joined = self.take_word("AND");
            self.space();
            if !joined && (self.rest().is_empty() || self.rest().starts_with(')')) {
                return Ok(alone_or(parts, Expression::All));
            }
            parts.push(self.any()?);
        }
    }

    /// `a OR b`, which binds tighter than AND.
    fn any(&mut self) -> Result<Expression<Written<'a>>, Fault> {
        let mut parts = vec![self.term()?];
        while self.take_word("OR") {
            parts.push(self.term()?);
        }
        Ok(alone_or(parts, Expression::Any))
    }

    fn term(&mut self) -> Result<Expression<Written<'a>>, Fault> {
        if self.take_word("NOT") || self.take("-") {
            return Ok(Expression::Not(Box::new(self.simple()?)));
        }
        self.simple()
    }

    fn simple(&mut self) -> Result<Expression<Written<'a>>, Fault> {
        self.space();
        let opened = self.at;
        if !self.take("(") {
            return self.restriction();
        }
        if self.depth == DEEPEST {
            return Err(self.fault(format!("parentheses stand {DEEPEST} deep at most")));
        }
        self.depth += 1;
        let inner = self.expression()?;
        self.depth -= 1;
        if !self.take(")") {
            let (at, what) = (opened, "this `(` is not closed".to_owned());
            return Err(Fault { at, what });
        }
        Ok(inner)
    }

    fn restriction(&mut self) -> Result<Expression<Written<'a>>, Fault> {
        let at = self.at;
        if self.take("*") {
            return Ok(Expression::Everything);
        }
        let path = self.path()?;
        self.space();
        let known = COMPARATORS.iter().find(|(sign, _)| self.take(sign));
        let Some((_, comparator)) = known else {
            self.at = at;
            return Err(self.fault(compared(&path)));
        };
        self.space();
        let (value_at, value) = (self.at, self.value()?);
        Ok(Expression::One(Written {
            at,
            path,
            comparator: *comparator,
            value,
            value_at,
        }))
    }

    /// `labels.team`, `attributes."a.b"`.
    fn path(&mut self) -> Result<Vec<String>, Fault> {
        let mut path = Vec::new();
        loop {
            path.push(match self.quoted()? {
                Some(quoted) => quoted,
                None => self.name()?,
            });
            if !self.take(".") {
                return Ok(path);
            }
        }
    }

    fn name(&mut self) -> Result<String, Fault> {
        let is_name = |c: char| c.is_alphanumeric() || c == '_' || c == '-' || c == '/';
        let name = self.run(is_name);
        match name.is_empty() {
            true => Err(self.expected("the name of a field")),
            false => Ok(name.to_owned()),
        }
    }

    fn value(&mut self) -> Result<Word<'a>, Fault> {
        if let Some(quoted) = self.quoted()? {
            return Ok(Word::Quoted(quoted));
        }
        let bare = self.run(|c| !c.is_whitespace() && !"()\"'=<>!,".contains(c));
        match bare.is_empty() {
            true => Err(self.expected("a value")),
            false => Ok(Word::Bare(bare)),
        }
    }

    /// As many characters as are `wanted`.
    fn run(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let run = &rest[..rest.find(|c| !wanted(c)).unwrap_or(rest.len())];
        self.at += run.len();
        run
    }

    /// A text in quotes of either kind; a backslash takes the next character as it is.
    fn quoted(&mut self) -> Result<Option<String>, Fault> {
        let Some(quote) = self.rest().chars().next().filter(|c| "\"'".contains(*c)) else {
            return Ok(None);
        };
        let mut text = String::new();
        let mut characters = self.rest().char_indices().skip(1);
        while let Some((at, c)) = characters.next() {
            if c == quote {
                self.at += at + 1;
                return Ok(Some(text));
            }
            match c {
                '\\' => text.extend(characters.next().map(|(_, c)| c)),
                c => text.push(c),
            }
        }
        Err(self.fault("this quote is not closed"))
    }

    fn expected(&self, what: &str) -> Fault {
        match self.rest().chars().next() {
            Some(found) => {
                let found = shown(found.encode_utf8(&mut [0; 4]));
                self.fault(format!("{what} is expected, not `{found}`"))
            }
            None => self.fault(format!("{what} is missing at the end")),
        }
    }
}

/// What to say of a field that stands alone.
fn compared(path: &[String]) -> String {
    let field = shown(&path.join("."));
    match &*field {
        "AND" | "OR" | "NOT" => format!("`{field}` stands between two comparisons"),
        "and" | "or" | "not" => {
            format!(
                "write {} in capitals between comparisons",
                field.to_uppercase()
            )
        }
        _ => format!("compare `{field}` with something, by `=`, `!=`, `<`, `<=`, `>`, `>=` or `:`"),
    }
}

fn alone_or<R>(
    mut parts: Vec<Expression<R>>,
    several: impl FnOnce(Vec<Expression<R>>) -> Expression<R>,
) -> Expression<R> {
    match (parts.len(), parts.pop()) {
        (1, Some(alone)) => alone,
        (_, last) => {
            parts.extend(last);
            several(parts)
        }
    }
}
