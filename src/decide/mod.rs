//! The pure core: `step` takes the state, the time and one event, and answers with effects.
//!
//! No I/O, no clock, no randomness of its own, no locks, no outside crate. The same function runs
//! in production, in the simulator (`tests/sim.rs`) and in the transition table
//! (`docs/lifecycle.md`). Every piece of news names the run it is about; news about a run that has
//! ended is dropped in exactly one place, [`step`].
//!
//! ```text
//!            needs met          ready             exit, group empty
//!  Waiting ------------> Starting -----> Ready ---------------------> (settle)
//!     ^                     |  exit        | stop, unhealthy             |
//!     |                     v              v                             |
//!     |                 (settle) <--- Stopping: drain, term, kill        |
//!     |                     |              | exit, group not empty       |
//!     |                     |              v                             |
//!     |                     |          Clearing --- group empty -------->|
//!     +----- Backoff <------+--------------------------------------------+
//!                           +--> Stopped | Failed(why)
//! ```

mod effect;
mod event;
mod instance;
mod instance_limits;
mod instances;
mod invariants;
mod limits;
#[cfg(test)]
mod limits_tests;
mod node;
mod order;
mod phase;
mod replan;
mod restart;
mod resume;
mod rng;
#[cfg(test)]
mod samples;
mod settle;
mod step;
#[cfg(test)]
mod step_tests;
mod stop;
mod view;
mod wanted;
#[cfg(test)]
mod words_tests;

pub use effect::{Announcement, Effect, Remark, RemarkKind};
pub use event::{
    ChangeId, Check, Command, Event, ExitFacts, GroupState, LimitsRefusal, Memory, News, Notice,
    Replan, SpawnFailure, Urgency, Usage,
};
pub use instance_limits::InstanceLimits;
pub use invariants::broken_invariant;
pub use node::{Goal, Instance, Membership, Node, Planned, Wanted};
pub use phase::{Blame, Ended, Ending, GiveUpReason, Phase, StopReason, StopStep};
pub use resume::{AdoptedRun, Recency, SavedInstance, SavedNode, resume};
pub use rng::Rng;
pub use step::step;
pub use view::{Hold, NodePhase};
