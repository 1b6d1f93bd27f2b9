//! The controller's state: the membership machine, what it says carried out, and who leads.
//!
//! Invariants: what a step changed is durable before anyone is told of it; a step whose change could not be stored, or
//! may not have been, ends this controller's lead: the next leader (often this one again) loads what is stored.

use std::sync::Arc;
use std::time::Duration;

use base::{Clock, Entropy};
use catalog::{Facts, FactsError, Leadership, Writer};
use membership::{Event, Input, Membership, Output, Reason, Severity};
use tokio::sync::{Mutex, Notify, watch};
use tokio::time::sleep;
use wire::Fault;

use crate::rows::{Rows, RowsError};

/// Between ticks: how late a silent node may be noticed.
const TICK_EVERY: Duration = Duration::from_millis(500);
/// Between tries to lead.
const LEAD_EVERY: Duration = Duration::from_secs(1);
/// Name of the lead.
const LEAD: &str = "controller";

/// A map as it is handed out.
#[derive(Debug, Default)]
pub(crate) struct MapBytes {
    pub(crate) epoch: u64,
    pub(crate) bytes: bytes::Bytes,
}

struct Led {
    rows: Rows,
    membership: Membership,
}

/// See the file's header.
pub(crate) struct State {
    pub(crate) facts: Arc<dyn Facts>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    /// What this controller is called.
    pub(crate) name: String,
    led: Mutex<Option<Led>>,
    /// A step could not be stored.
    broken: Notify,
    map: watch::Sender<Arc<MapBytes>>,
    leads: watch::Sender<bool>,
}

/// A controller that does not lead; another one does, or soon will.
pub(crate) fn not_leading() -> Fault {
    Fault::Unreachable("this controller does not lead".into())
}

impl State {
    pub(crate) fn new(
        facts: Arc<dyn Facts>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        name: String,
    ) -> Arc<Self> {
        Arc::new(Self {
            facts,
            clock,
            entropy,
            name,
            led: Mutex::default(),
            broken: Notify::new(),
            map: watch::Sender::default(),
            leads: watch::Sender::new(false),
        })
    }

    /// The map from now on.
    pub(crate) fn map(&self) -> watch::Receiver<Arc<MapBytes>> {
        self.map.subscribe()
    }

    /// Whether this controller leads, from now on.
    pub(crate) fn leads(&self) -> watch::Receiver<bool> {
        self.leads.subscribe()
    }

    /// Looks at the state.
    pub(crate) async fn look<T>(&self, look: impl FnOnce(&Membership) -> T) -> Result<T, Fault> {
        let led = self.led.lock().await;
        Ok(look(&led.as_ref().ok_or_else(not_leading)?.membership))
    }

    /// Takes an input; what it changed is durable on return. Gives what else the machine said.
    ///
    /// A task of its own: a caller that goes away must not leave a change in memory that was not stored.
    pub(crate) async fn step(self: &Arc<Self>, input: Input) -> Result<Vec<Output>, Fault> {
        let state = Arc::clone(self);
        let step = tokio::spawn(async move { state.step_to_the_end(input).await });
        step.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a step ended early");
            self.broken.notify_one();
            Err(Fault::Busy("the controller failed on this request".into()))
        })
    }

    async fn step_to_the_end(&self, input: Input) -> Result<Vec<Output>, Fault> {
        let mut guard = self.led.lock().await;
        let led = guard.as_mut().ok_or_else(not_leading)?;
        let (mut said, mut changed) = (Vec::new(), Vec::new());
        for output in led.membership.step(self.clock.unix_ms(), input) {
            match output {
                Output::RowsChanged { rows, .. } => changed.extend(rows),
                other => said.push(other),
            }
        }
        if !changed.is_empty()
            && let Err(error) = led.rows.store(changed).await
        {
            tracing::error!(%error, "the rack's state could not be stored; it is loaded again");
            *guard = None;
            self.broken.notify_one();
            return Err(Fault::Busy("the controller's store does not take changes now".into()));
        }
        for output in &said {
            match output {
                Output::MapChanged(_) => self.publish(&led.membership),
                Output::Event(event) => tell(event),
                _ => {}
            }
        }
        Ok(said)
    }

    /// As [`Self::step`], where a refusal is the caller's.
    pub(crate) async fn ask(self: &Arc<Self>, input: Input) -> Result<Vec<Output>, Fault> {
        let said = self.step(input).await?;
        let refused = said.iter().find_map(|output| match output {
            Output::Refused(reason) => Some(refusal(reason)),
            _ => None,
        });
        refused.map_or(Ok(said), Err)
    }

    fn publish(&self, membership: &Membership) {
        if let Some(map) = membership.map() {
            self.map.send_replace(Arc::new(MapBytes { epoch: map.epoch, bytes: map.encode().into() }));
        }
    }

    /// Leads whenever it may, until dropped.
    pub(crate) async fn lead(self: &Arc<Self>) {
        loop {
            match self.facts.lead(LEAD, &self.name).await {
                Ok(leadership) => {
                    if let Err(error) = self.serve(&leadership).await {
                        tracing::error!(%error, "the rack's state cannot be loaded");
                    }
                    self.leads.send_replace(false);
                    *self.led.lock().await = None;
                    if let Err(error) = leadership.resign().await {
                        tracing::warn!(%error, "the lead could not be given back; it runs out by itself");
                    }
                }
                Err(FactsError::Led { .. }) => {}
                Err(error) => tracing::warn!(%error, "this controller cannot lead now"),
            }
            sleep(LEAD_EVERY).await;
        }
    }

    async fn serve(self: &Arc<Self>, leadership: &Leadership) -> Result<(), RowsError> {
        let writer = Writer::claim(Arc::clone(&self.facts), &*self.entropy, &self.name).await?;
        let mut rows = Rows::new(Arc::clone(&self.facts), writer, leadership.fence().clone());
        let membership = rows.load(self.clock.unix_ms()).await?;
        self.publish(&membership);
        *self.led.lock().await = Some(Led { rows, membership });
        self.leads.send_replace(true);
        tracing::info!(name = self.name, "this controller leads");
        loop {
            tokio::select! {
                () = leadership.lost() => {
                    tracing::warn!("the lead is lost");
                    return Ok(());
                }
                () = self.broken.notified() => return Ok(()),
                () = sleep(TICK_EVERY) => {
                    // What it may refuse is said where it is asked; the store's calls are bounded by themselves.
                    let _ = self.step(Input::Tick).await;
                }
            }
        }
    }
}

fn tell(event: &Event) {
    let (kind, text) = (event.kind, &event.text);
    match event.severity {
        Severity::Info => tracing::info!(kind, "{text}"),
        Severity::Warning => tracing::warn!(kind, "{text}"),
        Severity::Critical => tracing::error!(kind, "{text}"),
    }
}

/// How a refusal travels.
pub(crate) fn refusal(reason: &Reason) -> Fault {
    match reason {
        Reason::NodeRemoved(_) | Reason::CopiedIdentity { .. } => Fault::NotAllowed(reason.to_string()),
        _ => Fault::Invalid(reason.to_string()),
    }
}
