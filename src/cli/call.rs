//! Which request is asked of which method, and what it is answered with.
//!
//! A command makes a request and no more than that: where it goes follows from its type, so that one place sends every
//! call, and prints one instead when that was asked for.

use prost::Name;

use crate::grpc::api;

/// A request of the control plane.
pub(super) trait Call: Name + 'static {
    /// What it is answered with; of a stream, each message.
    type Answer: Name + Default + 'static;
    /// The way to the method, `/switchboard.v1.ListenerService/GetListener`.
    const PATH: &'static str;
}

macro_rules! calls {
    ($($service:ident { $($method:ident($request:ident) -> $answer:ident;)+ })+) => {
        $($(impl Call for api::$request {
            type Answer = api::$answer;
            const PATH: &'static str =
                concat!("/switchboard.v1.", stringify!($service), "/", stringify!($method));
        })+)+

        /// The way, the request and the answer of each.
        #[cfg(test)]
        const CALLS: &[(&str, &str, &str)] = &[
            $($((<api::$request as Call>::PATH, stringify!($request), stringify!($answer)),)+)+
        ];
    };
}

calls! {
    ListenerService {
        CreateListener(CreateListenerRequest) -> CreateListenerResponse;
        GetListener(GetListenerRequest) -> GetListenerResponse;
        ListListeners(ListListenersRequest) -> ListListenersResponse;
        UpdateListener(UpdateListenerRequest) -> UpdateListenerResponse;
        DeleteListener(DeleteListenerRequest) -> DeleteListenerResponse;
        StartListener(StartListenerRequest) -> StartListenerResponse;
        StopListener(StopListenerRequest) -> StopListenerResponse;
        PauseListener(PauseListenerRequest) -> PauseListenerResponse;
        ResumeListener(ResumeListenerRequest) -> ResumeListenerResponse;
        DrainListener(DrainListenerRequest) -> DrainListenerResponse;
        WaitListener(WaitListenerRequest) -> WaitListenerResponse;
        WatchListeners(WatchListenersRequest) -> WatchListenersResponse;
    }
    SessionService {
        GetSession(GetSessionRequest) -> GetSessionResponse;
        ListSessions(ListSessionsRequest) -> ListSessionsResponse;
        CloseSession(CloseSessionRequest) -> CloseSessionResponse;
        CloseSessions(CloseSessionsRequest) -> CloseSessionsResponse;
        WatchSessions(WatchSessionsRequest) -> WatchSessionsResponse;
        TapSession(TapSessionRequest) -> TapSessionResponse;
        BanSource(BanSourceRequest) -> BanSourceResponse;
        UnbanSource(UnbanSourceRequest) -> UnbanSourceResponse;
        ListBans(ListBansRequest) -> ListBansResponse;
    }
    ChatService {
        ListConversations(ListConversationsRequest) -> ListConversationsResponse;
        WatchConversations(WatchConversationsRequest) -> WatchConversationsResponse;
        ClaimConversation(ClaimConversationRequest) -> ClaimConversationResponse;
        ReleaseConversation(ReleaseConversationRequest) -> ReleaseConversationResponse;
        ReplyConversation(ReplyConversationRequest) -> ReplyConversationResponse;
        MuteConversation(MuteConversationRequest) -> MuteConversationResponse;
        Broadcast(BroadcastRequest) -> BroadcastResponse;
        ListMessages(ListMessagesRequest) -> ListMessagesResponse;
        AttachDesk(AttachDeskRequest) -> AttachDeskResponse;
    }
    ConfigService {
        GetEffectiveConfig(GetEffectiveConfigRequest) -> GetEffectiveConfigResponse;
        ValidateConfig(ValidateConfigRequest) -> ValidateConfigResponse;
        DiffConfig(DiffConfigRequest) -> DiffConfigResponse;
        ReloadConfig(ReloadConfigRequest) -> ReloadConfigResponse;
        ExportConfig(ExportConfigRequest) -> ExportConfigResponse;
    }
    MetricService {
        GetMetricSnapshot(GetMetricSnapshotRequest) -> GetMetricSnapshotResponse;
        StreamMetricSnapshots(StreamMetricSnapshotsRequest) -> StreamMetricSnapshotsResponse;
    }
    ServerService {
        GetServerInfo(GetServerInfoRequest) -> GetServerInfoResponse;
        SetLogFilter(SetLogFilterRequest) -> SetLogFilterResponse;
        ShutdownServer(ShutdownServerRequest) -> ShutdownServerResponse;
        ListAuditEvents(ListAuditEventsRequest) -> ListAuditEventsResponse;
        ListCommands(ListCommandsRequest) -> ListCommandsResponse;
    }
}

#[cfg(test)]
mod tests {
    use super::super::document::descriptor;
    use super::*;

    #[test]
    fn every_way_leads_where_the_protos_say() {
        let pool = descriptor("Listener").unwrap().parent_pool().clone();
        for (path, request, answer) in CALLS {
            let (service, method) = path[1..].split_once('/').unwrap();
            let service = pool.get_service_by_name(service).unwrap();
            let method = service.methods().find(|one| one.name() == method).unwrap();
            assert_eq!(method.input().name(), *request, "{path}");
            assert_eq!(method.output().name(), *answer, "{path}");
        }
    }
}
