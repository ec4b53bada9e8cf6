//! Filters of lists and watches, in a part of AIP-160's language; `ListListenersRequest.filter` says which.
//!
//! A text comes from outside. It is checked whole when it is read, against the message that it is to be tried on; what
//! is left then can only be true or false. What it costs grows with its length and no faster.

mod expression;
mod path;
mod restriction;
mod syntax;
#[cfg(test)]
mod tests;

use std::sync::LazyLock;

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use prost_types::FileDescriptorSet;
use tonic::Status;

pub(super) use expression::Fault;
pub(super) use path::{Path, Shape};
pub(super) use restriction::moment;

use super::api;
use super::status::{internal, invalid};
use crate::supervisor::Violation;
use expression::Expression;
use restriction::Restriction;

/// Longest text, in bytes.
pub(super) const LONGEST: usize = 4_096;

/// Which messages are wanted.
#[derive(Debug)]
pub struct Filter {
    /// None wants all.
    wanted: Option<(MessageDescriptor, Expression<Restriction>)>,
}

impl Filter {
    /// Reads the text of the request's `field`, a filter of messages `M`. Blank, it admits all.
    ///
    /// # Errors
    /// `FILTER_INVALID`, with every place where it is wrong, and what would be right.
    pub fn read<M: prost::Name>(field: &str, text: &str) -> Result<Self, Status> {
        if text.trim().is_empty() {
            return Ok(Self { wanted: None });
        }
        let descriptor = descriptor::<M>()?;
        match bound(&descriptor, text) {
            Ok(expression) => Ok(Self {
                wanted: Some((descriptor, expression)),
            }),
            Err(faults) => Err(refused("FILTER_INVALID", field, text, faults)),
        }
    }

    /// Whether it admits all for want of a text.
    pub fn is_empty(&self) -> bool {
        self.wanted.is_none()
    }

    /// Whether it wants `message`, of the kind that it was read for.
    pub fn admits<M: Message + prost::Name>(&self, message: &M) -> bool {
        let Some((descriptor, expression)) = &self.wanted else {
            return true;
        };
        debug_assert_eq!(descriptor.full_name(), M::full_name());
        let whole = dynamic(descriptor, message);
        expression.holds(&|restriction| restriction.holds(&whole))
    }
}

/// `message` with its fields to be found by name.
pub(super) fn dynamic(descriptor: &MessageDescriptor, message: &impl Message) -> DynamicMessage {
    let mut whole = DynamicMessage::new(descriptor.clone());
    // One's own encoding reads back.
    let _ = whole.transcode_from(message);
    whole
}

/// The descriptor of `M`.
pub(super) fn descriptor<M: prost::Name>() -> Result<MessageDescriptor, Status> {
    static POOL: LazyLock<Option<DescriptorPool>> = LazyLock::new(|| {
        let mut files = FileDescriptorSet::decode(api::FILE_DESCRIPTOR_SET).ok()?;
        // Comments are most of it, and nobody reads them here.
        for file in &mut files.file {
            file.source_code_info = None;
        }
        DescriptorPool::from_file_descriptor_set(files).ok()
    });
    let name = M::full_name();
    let found = POOL
        .as_ref()
        .and_then(|pool| pool.get_message_by_name(&name));
    found.ok_or_else(|| internal(&format!("{name} has no descriptor")))
}

fn bound(
    descriptor: &MessageDescriptor,
    text: &str,
) -> Result<Expression<Restriction>, Vec<Fault>> {
    if text.len() > LONGEST {
        let what = format!("it is longer than {LONGEST} bytes");
        return Err(vec![Fault { at: LONGEST, what }]);
    }
    let written = syntax::parse(text).map_err(|fault| vec![fault])?;
    let mut faults = Vec::new();
    let expression = written.bind(&mut |written| {
        let bound = Restriction::bind(descriptor, &written);
        bound.map_err(|fault| faults.push(fault)).ok()
    });
    expression.ok_or(faults)
}

/// Tells all faults of a text, each with the number of the character that it stands at.
pub(super) fn refused(reason: &str, field: &str, text: &str, faults: Vec<Fault>) -> Status {
    let violations = faults.into_iter().map(|Fault { at, what }| {
        let before = text.get(..at).unwrap_or(text);
        let description = format!("at {}: {what}", before.chars().count() + 1);
        let field = field.to_owned();
        Violation { field, description }
    });
    invalid(reason, violations.collect())
}
