//! `AttachDesk`: a seat, from the first input to the last answer.

use std::future::pending;
use std::time::Duration;

use futures_util::stream::{self, TryStreamExt};
use tokio::time::{Instant, sleep_until, timeout};
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use super::super::listeners::caller;
use super::super::status::invalid_field;
use super::super::watch::{Method, Place};
use super::super::{Caller, Control, api};
use super::Event;
use super::inputs::{Doing, Operator};
use super::telling::Telling;
use api::attach_desk_request::Input;

type Inputs = Streaming<api::AttachDeskRequest>;

/// Nothing was said for so long: a sign of life is due. Proxies cut what is silent for a minute.
const QUIET: Duration = Duration::from_secs(15);

/// How long a client may take to say who it is.
const START_WITHIN: Duration = Duration::from_secs(30);

/// An operator's seat.
struct Seat {
    operator: Operator,
    place: Place,
    /// None once the operator has said all.
    inputs: Option<Inputs>,
    /// The one input that is being obeyed; the next one waits until it is answered.
    doing: Option<Doing>,
    /// What is to be answered, and the event that it comes behind.
    answer: Option<(u64, Event)>,
    telling: Telling,
    said_at: Instant,
}

/// What a seat woke up for.
enum Woken {
    Done(Event),
    Asked(Option<Result<api::AttachDeskRequest, Status>>),
    Told,
    Quiet,
}

pub(in super::super) fn attach(
    control: &Control,
    request: Request<Inputs>,
) -> Result<Response<BoxStream<api::AttachDeskResponse>>, Status> {
    let place = control.watches.place(&request, Method::AttachDesk)?;
    let caller = caller(&request, "AttachDesk", "");
    // The answer begins before the first input has come: some clients wait for that.
    let begun = begin(control.clone(), caller, place, request.into_inner());
    let events = stream::once(begun).map_ok(Seat::events).try_flatten();
    Ok(Response::new(Box::pin(events)))
}

async fn begin(
    control: Control,
    caller: Caller,
    place: Place,
    mut inputs: Inputs,
) -> Result<Seat, Status> {
    let first = timeout(START_WITHIN, inputs.message()).await;
    let first = first.unwrap_or(Ok(None))?;
    let Some(Input::Start(start)) = first.and_then(|first| first.input) else {
        let rule = "the first input is `start`, and says at which desk who sits down";
        return Err(invalid_field("START_REQUIRED", "start", rule));
    };
    let (operator, replay) = Operator::sits_down(&control, caller, start)?;
    Ok(Seat {
        telling: Telling::new(&control.supervisor, operator.of.clone(), replay),
        operator,
        place,
        inputs: Some(inputs),
        doing: None,
        answer: None,
        said_at: Instant::now(),
    })
}

impl Seat {
    fn events(self) -> BoxStream<api::AttachDeskResponse> {
        Box::pin(stream::try_unfold(self, |mut seat| async move {
            let event = seat.next().await?;
            seat.said_at = Instant::now();
            let told = |event| (api::AttachDeskResponse { event: Some(event) }, seat);
            Ok(event.map(told))
        }))
    }

    /// The next event; none when the operator has left and all is answered.
    async fn next(&mut self) -> Result<Option<Event>, Status> {
        loop {
            if let Some(event) = self.telling.ready() {
                if let Event::Gap(gap) = &event {
                    self.place.missed(gap.missed);
                }
                return Ok(Some(event));
            }
            if let Some(answer) = self.due() {
                return Ok(Some(answer));
            }
            let is_idle = self.doing.is_none() && self.answer.is_none();
            if is_idle && self.inputs.is_none() && self.telling.is_synced() {
                return Ok(None);
            }
            match self.woken(is_idle).await {
                Woken::Done(answer) => self.answer = Some((self.telling.coming(), answer)),
                Woken::Asked(Some(asked)) => self.doing = self.operator.obey(asked?),
                Woken::Asked(None) => self.inputs = None,
                Woken::Told => self.telling.go_on().await?,
                Woken::Quiet => return Ok(Some(Event::Heartbeat(api::Heartbeat {}))),
            }
            // Inputs and events may come without end that leave nothing to be sent.
            tokio::task::coop::consume_budget().await;
        }
    }

    /// The answer, once all is told that its input caused.
    fn due(&mut self) -> Option<Event> {
        let telling = &self.telling;
        let is_due =
            |(behind, _): &mut (u64, Event)| !telling.is_synced() || telling.next() >= *behind;
        self.answer.take_if(is_due).map(|(_, answer)| answer)
    }

    async fn woken(&mut self, is_idle: bool) -> Woken {
        let quiet = self.said_at + QUIET;
        let (doing, inputs) = (&mut self.doing, &mut self.inputs);
        let done = async {
            match doing {
                Some(doing) => doing.await,
                None => pending().await,
            }
        };
        let asked = async {
            match inputs.as_mut().filter(|_| is_idle) {
                Some(inputs) => inputs.message().await.transpose(),
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            done = done => {
                self.doing = None;
                Woken::Done(done)
            }
            asked = asked => Woken::Asked(asked),
            () = self.telling.can_go_on() => Woken::Told,
            () = sleep_until(quiet) => Woken::Quiet,
        }
    }
}
