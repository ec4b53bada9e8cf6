//! `ConfigService`.

use tonic::{Request, Response, Status};

use super::convert::{origin, scope, warning};
use super::listeners::{caller, refused};
use super::page::fitting;
use super::status::invalid_field;
use super::{Changing, Control, ReloadOptions, Reloaded, SettingRow, Side, api, page};
use crate::config::{Format, Layer, Problem, Shadow, is_within};
use crate::store::Event;

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl api::config_service_server::ConfigService for Control {
    async fn get_effective_config(
        &self,
        request: Request<api::GetEffectiveConfigRequest>,
    ) -> Answer<api::GetEffectiveConfigResponse> {
        let asked = request.into_inner();
        let effective = self.configuration.effective().await.map_err(refused)?;
        let wanted = |row: &SettingRow| {
            (row.drifted || !asked.drifted_only) && is_asked(row, &asked.key_prefix)
        };
        let rows = effective.settings.into_iter().filter(wanted);
        let answer = api::GetEffectiveConfigResponse {
            settings: rows.map(setting).collect(),
            revision: effective.revision,
        };
        fitting(answer, "key_prefix", "ask for the keys of one listener")
    }

    async fn validate_config(
        &self,
        request: Request<api::ValidateConfigRequest>,
    ) -> Answer<api::ValidateConfigResponse> {
        let asked = request.into_inner();
        let format = format(&asked.format)?;
        let document = (!asked.document.is_empty()).then_some((asked.document, format));
        let given = document.is_some();
        let validated = self.configuration.validate(document).await;
        let (problems, warnings) = validated.map_err(refused)?;
        let problems = problems.into_iter().flatten().map(|problem| {
            let layer = problem.origin.as_ref().map(|origin| origin.layer);
            let mut told = self::problem(problem);
            // A document takes the place of all files, and has no name.
            if given && layer == Some(Layer::File) {
                told.source.clear();
            }
            told
        });
        Ok(Response::new(api::ValidateConfigResponse {
            problems: problems.collect(),
            warnings: warnings.into_iter().map(warning).collect(),
        }))
    }

    async fn diff_config(
        &self,
        request: Request<api::DiffConfigRequest>,
    ) -> Answer<api::DiffConfigResponse> {
        let asked = request.get_ref();
        let from = side("from", asked.from, Side::Running)?;
        let to = side("to", asked.to, Side::AfterRestart)?;
        let changes = self.configuration.diff(from, to).await.map_err(refused)?;
        let answer = api::DiffConfigResponse {
            changes: changes.into_iter().map(change).collect(),
        };
        fitting(answer, "to", "compare the files themselves")
    }

    async fn reload_config(
        &self,
        request: Request<api::ReloadConfigRequest>,
    ) -> Answer<api::ReloadConfigResponse> {
        let caller = caller(&request, "ReloadConfig", "");
        let asked = request.into_inner();
        let options = ReloadOptions {
            validate_only: asked.validate_only,
            keep_sessions: asked.keep_sessions,
        };
        let control = self.clone();
        let reload = async move {
            let reload = async { control.configuration.reload(options).await.map_err(refused) };
            if options.validate_only {
                return reload.await.map(told);
            }
            let before = control.configuration.revision();
            let reload = control.attempted(Some(caller.clone()), "config", reload);
            let reloaded = reload.await?;
            let event = Event {
                before_etag: before,
                after_etag: reloaded.revision.clone(),
                ..caller.event("config", "OK")
            };
            control.store.record(event).await;
            Ok(told(reloaded))
        };
        self.once(&asked.request_id, &asked, reload).await
    }

    async fn export_config(
        &self,
        request: Request<api::ExportConfigRequest>,
    ) -> Answer<api::ExportConfigResponse> {
        let asked = request.get_ref();
        let format = format(&asked.format)?;
        let document = self
            .configuration
            .export(format, asked.include_runtime_state);
        let answer = api::ExportConfigResponse {
            document: document.await.map_err(refused)?,
        };
        fitting(answer, "include_runtime_state", "read the files themselves")
    }
}

/// What a reload did, which was done: of more changes than an answer holds the first are told, and that there are more.
fn told(reloaded: Reloaded) -> api::ReloadConfigResponse {
    let all = reloaded.changes.len();
    let (changes, cut) = page::cut(reloaded.changes, usize::MAX, |c| change(c.clone()));
    let (mut warnings, _) = page::cut(reloaded.warnings, usize::MAX, |w| warning(w.clone()));
    if cut.is_some() {
        warnings.push(api::ConfigWarning {
            reason: "CHANGES_CUT".to_owned(),
            message: format!("{} of {all} changes are told here", changes.len()),
            ..api::ConfigWarning::default()
        });
    }
    api::ReloadConfigResponse {
        revision: reloaded.revision,
        changes,
        warnings,
    }
}

fn format(word: &str) -> Result<Format, Status> {
    let format = if word.is_empty() {
        Ok(Format::Toml)
    } else {
        word.parse()
    };
    format.map_err(|fault| invalid_field("FORMAT_INVALID", "format", fault.to_string()))
}

fn side(field: &str, number: i32, default: Side) -> Result<Side, Status> {
    use api::diff_config_request::Side as S;
    match S::try_from(number) {
        Ok(S::Unspecified) => Ok(default),
        Ok(S::Running) => Ok(Side::Running),
        Ok(S::Files) => Ok(Side::Files),
        Ok(S::AfterRestart) => Ok(Side::AfterRestart),
        Err(_) => {
            let rule = format!("{number} is no value of this enum");
            Err(invalid_field("SIDE_INVALID", field, rule))
        }
    }
}

/// Whether a row was asked for; without a key every one is.
pub fn is_asked(row: &SettingRow, key: &str) -> bool {
    key.is_empty() || is_within(&row.key, key)
}

/// A row as the API shows it.
pub fn setting(row: SettingRow) -> api::ConfigSetting {
    let shadow = |shadow: Shadow| api::ConfigShadow {
        value_json: shadow.value.to_string(),
        origin: Some(origin(&shadow.origin)),
    };
    api::ConfigSetting {
        key: row.key,
        value_json: row.value.to_string(),
        origin: Some(origin(&row.origin)),
        shadows: row.shadows.into_iter().map(shadow).collect(),
        reload_scope: scope(row.scope).into(),
        drifted: row.drifted,
    }
}

fn change(change: Changing) -> api::ConfigChange {
    let json = |value: Option<serde_json::Value>| value.map(|v| v.to_string()).unwrap_or_default();
    api::ConfigChange {
        key: change.key,
        from_json: json(change.from),
        to_json: json(change.to),
        scope: scope(change.scope).into(),
        sessions_affected: u32::try_from(change.sessions).unwrap_or(u32::MAX),
    }
}

fn problem(problem: Problem) -> api::ConfigProblem {
    let origin = problem.origin.as_ref();
    api::ConfigProblem {
        source: origin
            .map(|origin| origin.source.to_string())
            .unwrap_or_default(),
        line: origin.and_then(|origin| origin.line).unwrap_or_default(),
        column: origin.and_then(|origin| origin.column).unwrap_or_default(),
        key: problem.key,
        reason: problem.reason.word().to_owned(),
        message: problem.message,
        suggestion: problem.suggestion.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::MAX_ANSWER;
    use super::*;
    use crate::config::Scope;

    #[test]
    fn a_reload_that_was_made_is_answered_however_much_it_changed() {
        let value = Some(serde_json::Value::from("x".repeat(1_000)));
        let changing = Changing {
            key: "listeners.a.display_name".into(),
            from: value.clone(),
            to: value,
            scope: Scope::Live,
            sessions: 0,
        };
        let reloaded = Reloaded {
            revision: "r".into(),
            changes: vec![changing; 5_000],
            warnings: Vec::new(),
        };
        let answer = told(reloaded);
        assert!(prost::Message::encoded_len(&answer) < MAX_ANSWER);
        assert!(!answer.changes.is_empty());
        assert_eq!(answer.warnings[0].reason, "CHANGES_CUT");
        let many = vec![answer.changes[0].clone(); 5_000];
        let refused = fitting(api::DiffConfigResponse { changes: many }, "to", "x").unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    }
}
