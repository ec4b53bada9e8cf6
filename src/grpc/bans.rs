//! Bans: what `SessionService` is asked of networks that are to be kept away.

use std::time::{Duration, SystemTime};

use ipnet::{IpNet, Ipv4Net};
use tonic::Status;

use super::convert::{bare_name, listener_name, time};
use super::listeners::refused;
use super::sessions::parent;
use super::status::invalid;
use super::{Caller, Control, api, page};
use crate::net::parse_network;
use crate::store::{Ban, BanKey};
use crate::supervisor::{Violation, shown};

/// No ban with an end stands longer: ten years.
const LONGEST: Duration = Duration::from_secs(3_653 * 86_400);

impl Control {
    pub(super) async fn ban(
        self,
        asked: api::BanSourceRequest,
        caller: Caller,
    ) -> Result<api::BanSourceResponse, Status> {
        let resource = resource(&asked.parent, &asked.cidr);
        let make = self.make_ban(asked, &caller);
        self.audited(caller.clone(), &resource, make).await
    }

    async fn make_ban(
        &self,
        asked: api::BanSourceRequest,
        caller: &Caller,
    ) -> Result<api::BanSourceResponse, Status> {
        let until = expiry(asked.expire_after);
        let (place, until) = match (place(&asked.parent, &asked.cidr), until) {
            (Ok(place), Ok(until)) => (place, until),
            (place, until) => {
                let mut violations = place.err().unwrap_or_default();
                violations.extend(until.err());
                return Err(invalid(INVALID, violations));
            }
        };
        let (listener, network) = place;
        let ban = Ban {
            listener,
            network,
            until,
            reason: caller.reason.clone(),
            actor: caller.actor.clone(),
        };
        self.supervisor.ban(ban.clone()).await.map_err(refused)?;
        let closed = if asked.close_sessions {
            self.supervisor.close_banned(&ban)
        } else {
            0
        };
        Ok(api::BanSourceResponse {
            ban: Some(shape(&ban)),
            close_count: i32::try_from(closed).unwrap_or(i32::MAX),
        })
    }

    pub(super) async fn unban(
        self,
        asked: api::UnbanSourceRequest,
        caller: Caller,
    ) -> Result<api::UnbanSourceResponse, Status> {
        let lift = async {
            let place = place(&asked.parent, &asked.cidr);
            let place = place.map_err(|violations| invalid(INVALID, violations))?;
            self.supervisor.unban(place).await.map_err(refused)?;
            Ok(api::UnbanSourceResponse {})
        };
        let resource = resource(&asked.parent, &asked.cidr);
        self.audited(caller, &resource, lift).await
    }

    pub(super) fn bans(
        &self,
        asked: &api::ListBansRequest,
    ) -> Result<api::ListBansResponse, Status> {
        let size = page::size(asked.page_size)?;
        let listener = parent(&asked.parent)?;
        let list = ("bans", listener);
        let after = page::cursor(list, &asked.page_token)?;
        let after = after.and_then(|cursor| read_cursor(&cursor));
        // One more than asked for tells that there are more.
        let bans = self.supervisor.bans(listener, after, size + 1);
        let (bans, last) = page::cut(bans.map_err(refused)?, size, shape);
        let token = |last: Ban| page::token(list, &cursor(&last));
        Ok(api::ListBansResponse {
            bans,
            next_page_token: last.map(token).unwrap_or_default(),
        })
    }
}

/// What a change of a ban is about, for the record.
fn resource(parent: &str, cidr: &str) -> String {
    format!("{}/bans/{cidr}", listener_name(bare_name(parent)))
}

const INVALID: &str = "BAN_INVALID";

/// Where a ban stands, or all that is wrong with what was said.
fn place(parent_of: &str, cidr: &str) -> Result<BanKey, Vec<Violation>> {
    let listener = match parent(parent_of) {
        Ok(listener) => Ok(listener.map(str::to_owned)),
        Err(_) => Err(violation(
            "parent",
            "name a listener, `listeners/ack`, or all, `listeners/-`",
        )),
    };
    let network = network(cidr).map_err(|rule| violation("cidr", rule));
    match (listener, network) {
        (Ok(listener), Ok(network)) => Ok((listener, network)),
        (listener, network) => Err(listener.err().into_iter().chain(network.err()).collect()),
    }
}

fn violation(field: &str, description: impl Into<String>) -> Violation {
    Violation {
        field: field.to_owned(),
        description: description.into(),
    }
}

/// A network as peers are held against it: IPv4 that is written as IPv6 is IPv4.
fn network(text: &str) -> Result<IpNet, String> {
    let network = parse_network(text).map_err(|_| {
        let shown = shown(text);
        format!("`{shown}` is not a network; `192.0.2.0/24`, `2001:db8::/32` or an address is")
    })?;
    if network.addr() != network.network() {
        return Err(format!(
            "{network} has host bits set; {} is meant",
            network.trunc()
        ));
    }
    let mapped = match network {
        IpNet::V6(v6) => v6
            .addr()
            .to_ipv4_mapped()
            .zip(v6.prefix_len().checked_sub(96)),
        IpNet::V4(_) => None,
    };
    let v4 = mapped.and_then(|(address, length)| Ipv4Net::new(address, length).ok());
    Ok(v4.map_or(network, IpNet::V4))
}

/// When a ban of this length ends.
fn expiry(after: Option<prost_types::Duration>) -> Result<Option<SystemTime>, Violation> {
    let wrong = |rule| Err(violation("expire_after", rule));
    match after.map(Duration::try_from).transpose() {
        Err(_) | Ok(Some(Duration::ZERO)) => {
            wrong("a ban stands for longer than nothing; leave it unset for one that does not end")
        }
        Ok(Some(after)) if after > LONGEST => wrong(
            "a ban that ends stands for at most 10 years; leave it unset for one that does not",
        ),
        Ok(after) => Ok(after.map(|after| SystemTime::now() + after)),
    }
}

fn shape(ban: &Ban) -> api::Ban {
    api::Ban {
        parent: listener_name(ban.listener.as_deref().unwrap_or("-")),
        cidr: ban.network.to_string(),
        expire_time: ban.until.map(time),
        reason: ban.reason.clone(),
        actor: ban.actor.clone(),
    }
}

/// The last ban of a page: `LISTENER NETWORK`.
fn cursor(ban: &Ban) -> String {
    let listener = ban.listener.as_deref().unwrap_or_default();
    format!("{listener} {}", ban.network)
}

fn read_cursor(cursor: &str) -> Option<BanKey> {
    let (listener, network) = cursor.split_once(' ')?;
    let listener = (!listener.is_empty()).then(|| listener.to_owned());
    Some((listener, network.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_one_for_all_ways_to_write_it() {
        for (text, is) in [
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("2001:DB8::/32", "2001:db8::/32"),
            ("::1", "::1/128"),
            ("::ffff:192.0.2.7", "192.0.2.7/32"),
            ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
            ("::/0", "::/0"),
            ("0.0.0.0/0", "0.0.0.0/0"),
        ] {
            assert_eq!(network(text).map(|n| n.to_string()), Ok(is.into()));
        }
        for wrong in ["", "x", "192.0.2.0/33", "192.0.2.7/24", "::1/64", "a\u{1b}"] {
            let rule = network(wrong).unwrap_err();
            assert!(!rule.contains('\u{1b}'), "{rule}");
        }
        assert!(
            network("192.0.2.7/24")
                .unwrap_err()
                .contains("192.0.2.0/24 is meant")
        );
    }

    #[test]
    fn all_that_is_wrong_with_a_place_is_told() {
        let wrong = place("", "x").unwrap_err();
        let fields: Vec<_> = wrong.iter().map(|v| &*v.field).collect();
        assert_eq!(fields, ["parent", "cidr"]);
    }

    #[test]
    fn a_cursor_finds_its_ban_again() {
        for listener in [None, Some("ack".to_owned())] {
            let ban = Ban {
                listener,
                network: "fd00::/8".parse().unwrap(),
                until: None,
                reason: String::new(),
                actor: String::new(),
            };
            assert_eq!(read_cursor(&cursor(&ban)), Some(ban.key()));
        }
    }
}
