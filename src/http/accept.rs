//! Which of the texts of `/metrics` a scraper wants, and whether compressed: what its headers say, by RFC 9110.

use axum::http::{HeaderMap, HeaderName, header};

use crate::telemetry::Exposition;

/// The text that is wanted most; Prometheus text for whoever wants both as much, says nothing, or knows neither.
pub(super) fn exposition(headers: &HeaderMap) -> Exposition {
    let ranges = weighed(headers, &header::ACCEPT);
    let text = quality(&ranges, |range| range.fits("text", "plain", "0.0.4"));
    let open = quality(&ranges, |range| {
        range.fits("application", "openmetrics-text", "1.0.0")
    });
    if open > text {
        Exposition::OpenMetrics
    } else {
        Exposition::Prometheus
    }
}

/// Whether gzip is wanted; it is not unless that is said.
pub(super) fn gzip(headers: &HeaderMap) -> bool {
    let codings = weighed(headers, &header::ACCEPT_ENCODING);
    let fits = |coding: &Range| match coding.name.as_str() {
        "gzip" | "x-gzip" => Some(1),
        "*" => Some(0),
        _ => None,
    };
    quality(&codings, fits) > 0
}

/// One element of such a header.
struct Range {
    /// In lower case.
    name: String,
    version: Option<String>,
    /// In thousandths.
    quality: u16,
}

impl Range {
    /// How exactly it names this type, if it does.
    fn fits(&self, kind: &str, subtype: &str, version: &str) -> Option<u8> {
        match self.name.split_once('/')? {
            (k, s) if k == kind && s == subtype => match self.version.as_deref() {
                None => Some(2),
                Some(asked) => (asked == version).then_some(3),
            },
            (k, "*") if k == kind => Some(1),
            ("*", "*") => Some(0),
            _ => None,
        }
    }
}

/// The quality of what fits most exactly, and of that the highest; 0 when nothing does.
fn quality(ranges: &[Range], fits: impl Fn(&Range) -> Option<u8>) -> u16 {
    let fitting = ranges
        .iter()
        .filter_map(|range| Some((fits(range)?, range.quality)));
    fitting.max().map_or(0, |(_, quality)| quality)
}

fn weighed(headers: &HeaderMap, name: &HeaderName) -> Vec<Range> {
    let values = headers.get_all(name).iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    texts
        .flat_map(|text| text.split(','))
        .filter_map(range)
        .collect()
}

/// None when its quality is not one.
fn range(text: &str) -> Option<Range> {
    let mut parts = text.split(';').map(str::trim);
    let mut range = Range {
        name: parts.next()?.to_ascii_lowercase(),
        version: None,
        quality: 1_000,
    };
    for (key, value) in parts.filter_map(|part| part.split_once('=')) {
        match key.trim().to_ascii_lowercase().as_str() {
            "q" => {
                let quality: f64 = value.trim().parse().ok()?;
                if !(0.0..=1.0).contains(&quality) {
                    return None;
                }
                range.quality = (quality * 1_000.0).round() as u16;
            }
            "version" => range.version = Some(value.trim().trim_matches('"').to_owned()),
            _ => {}
        }
    }
    Some(range)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Exposition::{OpenMetrics, Prometheus};
    use axum::http::HeaderValue;

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_str(value).unwrap());
        headers
    }

    #[test]
    fn the_text_that_is_wanted_most_is_sent() {
        for (accept, wanted) in [
            ("", Prometheus),
            ("*/*", Prometheus),
            ("text/plain", Prometheus),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Prometheus),
            ("application/json", Prometheus),
            ("application/openmetrics-text", OpenMetrics),
            ("Application/OpenMetrics-Text; Version=1.0.0", OpenMetrics),
            (
                "application/openmetrics-text; version=\"1.0.0\"",
                OpenMetrics,
            ),
            ("application/openmetrics-text; version=2.0.0", Prometheus),
            ("application/openmetrics-text;q=0", Prometheus),
            ("application/openmetrics-text;q=much", Prometheus),
            (
                "application/openmetrics-text;q=0.5,text/plain;q=0.6",
                Prometheus,
            ),
            (
                "application/openmetrics-text;q=0.6, text/*;q=0.5",
                OpenMetrics,
            ),
            ("application/*;q=0.6, */*;q=0.5", OpenMetrics),
            // What Prometheus 2 and 3 say.
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                OpenMetrics,
            ),
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
                OpenMetrics,
            ),
            (
                "text/plain;version=0.0.4;q=0.5,application/openmetrics-text;version=1.0.0;q=0.4,*/*;q=0.1",
                Prometheus,
            ),
        ] {
            let headers = headers(header::ACCEPT, accept);
            assert_eq!(exposition(&headers), wanted, "{accept}");
        }
        assert_eq!(exposition(&HeaderMap::new()), Prometheus);
    }

    #[test]
    fn only_who_asks_for_gzip_gets_it() {
        for (encoding, wanted) in [
            ("", false),
            ("identity", false),
            ("br, zstd", false),
            ("gzip;q=0", false),
            ("*;q=0", false),
            ("gzip", true),
            ("br;q=1.0, GZIP;q=0.1", true),
            ("*", true),
            ("gzip;q=0, *", false),
        ] {
            assert_eq!(
                gzip(&headers(header::ACCEPT_ENCODING, encoding)),
                wanted,
                "{encoding}"
            );
        }
        assert!(!gzip(&HeaderMap::new()));
    }
}
