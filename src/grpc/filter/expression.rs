//! What a filter says, as a tree of comparisons: first as they were written, then bound to a message.

/// Restrictions put together. Whatever a restriction is: written, or bound to a message.
#[derive(Debug, PartialEq)]
pub(super) enum Expression<R> {
    /// `*`
    Everything,
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
    One(R),
}

/// One comparison, as it was written.
#[derive(Debug, PartialEq)]
pub(super) struct Written<'a> {
    /// Where it begins, in bytes.
    pub(super) at: usize,
    pub(super) path: Vec<String>,
    pub(super) comparator: Comparator,
    pub(super) value: Word<'a>,
    /// Where the value begins, in bytes.
    pub(super) value_at: usize,
}

/// What something is compared with.
#[derive(Debug, PartialEq)]
pub(super) enum Word<'a> {
    Bare(&'a str),
    Quoted(String),
}

impl Word<'_> {
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Bare(text) => text,
            Self::Quoted(text) => text,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparator {
    Equal,
    Unequal,
    Less,
    AtMost,
    More,
    AtLeast,
    Has,
}

/// What is wrong, and where, in bytes.
#[derive(Debug, PartialEq)]
pub(in crate::grpc) struct Fault {
    pub(in crate::grpc) at: usize,
    pub(in crate::grpc) what: String,
}

impl<R> Expression<R> {
    /// Whether it holds, if each restriction is as `test` says.
    pub(super) fn holds(&self, test: &impl Fn(&R) -> bool) -> bool {
        match self {
            Self::Everything => true,
            Self::All(parts) => parts.iter().all(|part| part.holds(test)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(test)),
            Self::Not(part) => !part.holds(test),
            Self::One(restriction) => test(restriction),
        }
    }

    /// The same of other restrictions; none when one of them has no other.
    pub(super) fn bind<S>(self, to: &mut impl FnMut(R) -> Option<S>) -> Option<Expression<S>> {
        // Every one is bound, also behind one that could not be, so that all faults are told at once.
        let mut each = |parts: Vec<Self>| {
            let bound: Vec<_> = parts.into_iter().map(|part| part.bind(to)).collect();
            bound.into_iter().collect::<Option<Vec<_>>>()
        };
        Some(match self {
            Self::Everything => Expression::Everything,
            Self::All(parts) => Expression::All(each(parts)?),
            Self::Any(parts) => Expression::Any(each(parts)?),
            Self::Not(part) => Expression::Not(Box::new(part.bind(to)?)),
            Self::One(restriction) => Expression::One(to(restriction)?),
        })
    }
}
