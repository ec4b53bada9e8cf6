//! Networks that are kept away, as rows: what is banned stays so over a restart.

use std::time::SystemTime;

use ipnet::IpNet;
use rusqlite::{Connection, Row, params};

use super::Store;
use super::error::{Refusal, WriteError};
use super::row::{checksum, nanos, rows, time};

/// A network that is kept away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ban {
    /// From whom: a listener's name; none for all listeners.
    pub listener: Option<String>,
    /// Without host bits.
    pub network: IpNet,
    /// When it ends by itself, if it does.
    pub until: Option<SystemTime>,
    /// What its maker gave as the reason; may be empty.
    pub reason: String,
    /// Who made it.
    pub actor: String,
}

/// Where a ban stands: there is one for each.
pub type BanKey = (Option<String>, IpNet);

impl Ban {
    /// Where it stands.
    pub fn key(&self) -> BanKey {
        (self.listener.clone(), self.network)
    }
}

impl Store {
    /// Takes bans out and puts others in, in this order, all or nothing. Resolves as [`write`](Self::write) does.
    pub async fn write_bans(&self, lift: Vec<BanKey>, put: Vec<Ban>) -> Result<(), WriteError> {
        self.run(move |connection| {
            for (listener, network) in &lift {
                connection
                    .prepare_cached("DELETE FROM bans WHERE listener = ?1 AND network = ?2")?
                    .execute([column(listener.as_deref()), &network.to_string()])?;
            }
            put.iter().try_for_each(|ban| insert(connection, ban))
        })
        .await
    }
}

fn insert(connection: &Connection, ban: &Ban) -> rusqlite::Result<()> {
    let (listener, network) = (column(ban.listener.as_deref()), ban.network.to_string());
    let until = ban.until.map(nanos);
    let sum = checksum(
        &[listener, &network, &ban.reason, &ban.actor],
        until.unwrap_or(NEVER),
    );
    connection
        .prepare_cached("INSERT OR REPLACE INTO bans VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
        .execute(params![
            listener, network, until, ban.reason, ban.actor, sum
        ])?;
    Ok(())
}

/// All that are kept.
pub(super) fn read(connection: &Connection) -> Result<Vec<Ban>, Refusal> {
    let query = "SELECT network, listener, until, reason, actor, checksum FROM bans";
    rows(connection, "bans", query, ban)
}

fn ban(row: &Row<'_>) -> rusqlite::Result<Option<Ban>> {
    let (network, listener): (String, String) = (row.get(0)?, row.get(1)?);
    let until: Option<i64> = row.get(2)?;
    let (reason, actor): (String, String) = (row.get(3)?, row.get(4)?);
    let sum = checksum(
        &[&listener, &network, &reason, &actor],
        until.unwrap_or(NEVER),
    );
    let Ok(network) = network.parse() else {
        return Ok(None);
    };
    let ban = Ban {
        listener: (listener != ALL).then_some(listener),
        network,
        until: until.map(time),
        reason,
        actor,
    };
    Ok((sum == row.get::<_, i64>(5)?).then_some(ban))
}

/// In the place of a listener's name, which begins with a letter.
const ALL: &str = "-";

/// In the checksum of one that does not end; where times end.
const NEVER: i64 = i64::MAX;

fn column(listener: Option<&str>) -> &str {
    listener.unwrap_or(ALL)
}
