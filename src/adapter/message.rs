//! What a client sent, as rmcp's types.
//!
//! rmcp reads a request as the first of its types that fits, and the last of them, a method it does not know, fits all:
//! with wrong parameters `tools/call` is such a method. So the type is chosen by the method here, and what does not fit
//! it is told why.

#![expect(
    deprecated,
    reason = "rmcp marks logging and subscriptions deprecated; up to 2025-11-25 they are the protocol"
)]

use rmcp::model::{
    CallToolRequest, CallToolRequestMethod, CancelTaskMethod, CancelTaskRequest, CancelledNotification,
    CancelledNotificationMethod, ClientNotification, ClientRequest, ClientResult, CompleteRequest,
    CompleteRequestMethod, ConstString, CustomNotification, CustomRequest, DiscoverRequest,
    DiscoverRequestMethod, ErrorCode, ErrorData, GetPromptRequest, GetPromptRequestMethod, GetSkillRequest,
    GetSkillRequestMethod, GetTaskMethod, GetTaskRequest, InitializeRequest, InitializeResultMethod,
    InitializedNotification, InitializedNotificationMethod, ListPromptsRequest, ListPromptsRequestMethod,
    ListResourceTemplatesRequest, ListResourceTemplatesRequestMethod, ListResourcesRequest,
    ListResourcesRequestMethod, ListSkillsRequest, ListSkillsRequestMethod, ListToolsRequest,
    ListToolsRequestMethod, NumberOrString, PaginatedRequestParams, PingRequest, PingRequestMethod,
    ProgressNotification, ProgressNotificationMethod, ReadResourceDirectoryRequest,
    ReadResourceDirectoryRequestMethod, ReadResourceRequest, ReadResourceRequestMethod,
    RootsListChangedNotification, RootsListChangedNotificationMethod, SetLevelRequest, SetLevelRequestMethod,
    SubscribeRequest, SubscribeRequestMethod, SubscriptionsListenRequest, SubscriptionsListenRequestMethod,
    UnsubscribeRequest, UnsubscribeRequestMethod, UpdateTaskMethod, UpdateTaskRequest,
};
use serde::de::DeserializeOwned;
use serde_json::Error;

use crate::handler::{Inbound, Response};
use crate::protocol::{self, Message, Outcome, RequestId};

/// Reads a message as the type that belongs to its method.
macro_rules! read_as {
    ($inbound:expr, $Other:ty, $Custom:ty, $($Method:ident => $Type:ty,)+) => {
        match $inbound.method() {
            $(<$Method as ConstString>::VALUE => serde_json::from_slice::<$Type>($inbound.json()).map(Into::into),)+
            // A method that this rmcp does not know, or one that a later rmcp does. The last type says why it does not
            // fit.
            _ => serde_json::from_slice::<$Other>($inbound.json())
                .or_else(|_| serde_json::from_slice::<$Custom>($inbound.json()).map(Into::into)),
        }
    };
}

/// Reads a request.
///
/// # Errors
///
/// Its parameters are not those of its method; says what is wrong with them.
pub(super) fn request(inbound: &Inbound) -> Result<ClientRequest, Error> {
    let request = read_as!(inbound, ClientRequest, CustomRequest,
        CallToolRequestMethod => CallToolRequest,
        CancelTaskMethod => CancelTaskRequest,
        CompleteRequestMethod => CompleteRequest,
        DiscoverRequestMethod => DiscoverRequest,
        GetPromptRequestMethod => GetPromptRequest,
        GetSkillRequestMethod => GetSkillRequest,
        GetTaskMethod => GetTaskRequest,
        InitializeResultMethod => InitializeRequest,
        ListPromptsRequestMethod => ListPromptsRequest,
        ListResourceTemplatesRequestMethod => ListResourceTemplatesRequest,
        ListResourcesRequestMethod => ListResourcesRequest,
        ListSkillsRequestMethod => ListSkillsRequest,
        ListToolsRequestMethod => ListToolsRequest,
        PingRequestMethod => PingRequest,
        ReadResourceDirectoryRequestMethod => ReadResourceDirectoryRequest,
        ReadResourceRequestMethod => ReadResourceRequest,
        SetLevelRequestMethod => SetLevelRequest,
        SubscribeRequestMethod => SubscribeRequest,
        SubscriptionsListenRequestMethod => SubscriptionsListenRequest,
        UnsubscribeRequestMethod => UnsubscribeRequest,
        UpdateTaskMethod => UpdateTaskRequest,
    )?;
    match &request {
        // rmcp takes parameters that do not fit for none where there may be none.
        ClientRequest::ListPromptsRequest(_)
        | ClientRequest::ListResourceTemplatesRequest(_)
        | ClientRequest::ListResourcesRequest(_)
        | ClientRequest::ListSkillsRequest(_)
        | ClientRequest::ListToolsRequest(_) => check::<Option<PaginatedRequestParams>>(inbound)?,
        _ => {}
    }
    Ok(request)
}

fn check<T: DeserializeOwned>(inbound: &Inbound) -> Result<(), Error> {
    serde_json::from_str::<T>(inbound.params_json().unwrap_or("null")).map(drop)
}

/// Reads a notification.
///
/// # Errors
///
/// Its parameters are not those of its method.
pub(super) fn notification(inbound: &Inbound) -> Result<ClientNotification, Error> {
    read_as!(inbound, ClientNotification, CustomNotification,
        CancelledNotificationMethod => CancelledNotification,
        InitializedNotificationMethod => InitializedNotification,
        ProgressNotificationMethod => ProgressNotification,
        RootsListChangedNotificationMethod => RootsListChangedNotification,
    )
}

/// The request that a cancellation takes back.
pub(super) fn cancels(inbound: &Inbound) -> Option<RequestId> {
    protocol::cancelled_request_id(serde_json::from_str(inbound.params_json()?).ok())
}

/// Reads an answer, and which question it is for. `None` if it is none.
///
/// An answer that rmcp cannot read is an error to whoever asked, who would wait for ever else.
pub(super) fn answer(response: &Response) -> Option<(RequestId, Result<ClientResult, ErrorData>)> {
    let Ok(Message::Response { id, outcome }) = Message::parse(response.json()) else { return None };
    let answer = match outcome {
        Outcome::Result(result) => serde_json::from_str(result.get()),
        Outcome::Error(error) => match serde_json::from_str(error.get()) {
            Ok(error) => return Some((id, Err(error))),
            Err(error) => Err(error),
        },
    };
    let answer = answer.map_err(|error| {
        ErrorData::new(ErrorCode::INTERNAL_ERROR, format!("the client's answer does not read: {error}"), None)
    });
    Some((id, answer))
}

/// An ID of rmcp's as ours.
pub(super) fn our_id(id: &NumberOrString) -> RequestId {
    match id {
        NumberOrString::Number(number) => RequestId::Number(*number),
        NumberOrString::String(text) => RequestId::String(text.as_ref().into()),
    }
}

/// An ID of ours as rmcp's.
pub(super) fn their_id(id: &RequestId) -> NumberOrString {
    match id {
        RequestId::Number(number) => NumberOrString::Number(*number),
        RequestId::String(text) => NumberOrString::String(text.as_ref().into()),
    }
}
