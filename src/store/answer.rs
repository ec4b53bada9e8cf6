//! What was answered to calls that gave themselves an id, so that one whose answer was lost is given it after a restart
//! too. How long answers are kept is for those to say who give them: they tell the first one that stays.

use std::time::Duration;

use rusqlite::{Connection, Row, params};
use tracing::warn;

use super::Store;
use super::row::{Write, checksum};

/// How long somebody waits for an answer to be kept that is given anyway.
const PATIENCE: Duration = Duration::from_secs(2);

/// One call that was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The caller's word for it; of two calls under one id the later is kept.
    pub request_id: String,
    /// Tells its request from another under the same id.
    pub fingerprint: i64,
    /// Nanoseconds since 1970; no two are the same, and later ones are greater.
    pub stamp: i64,
    /// What was answered; none when the process ended between the change and its answer.
    pub answer: Option<Vec<u8>>,
}

impl Store {
    /// Keeps an answer, and forgets those before `from`. Whether or not that works the answer may be given: what it
    /// tells of is done.
    pub async fn remember(&self, answer: Answer, from: i64) {
        let write = Write {
            answer: Some(answer),
            answers_from: Some(from),
            ..Write::default()
        };
        let why = match tokio::time::timeout(PATIENCE, self.write(write)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the disk does not answer".to_owned(),
        };
        warn!(why, "an answer is remembered only until the process ends");
    }
}

pub(super) fn keep(connection: &Connection, row: &Answer) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO answers VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![
            row.request_id,
            row.fingerprint,
            row.stamp,
            row.answer,
            sum(row)
        ])?;
    Ok(())
}

pub(super) fn forget_before(connection: &Connection, stamp: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM answers WHERE stamp < ?1")?
        .execute([stamp])?;
    Ok(())
}

/// None when its checksum is wrong.
pub(super) fn answer(row: &Row<'_>) -> rusqlite::Result<Option<Answer>> {
    let answer = Answer {
        request_id: row.get(0)?,
        fingerprint: row.get(1)?,
        stamp: row.get(2)?,
        answer: row.get(3)?,
    };
    Ok((sum(&answer) == row.get::<_, i64>(4)?).then_some(answer))
}

fn sum(row: &Answer) -> i64 {
    let (given, answer) = match &row.answer {
        Some(answer) => (b"1", &answer[..]),
        None => (b"0", &b""[..]),
    };
    let fingerprint = row.fingerprint.to_le_bytes();
    let parts = [row.request_id.as_bytes(), given, answer, &fingerprint];
    checksum(&parts, row.stamp)
}
