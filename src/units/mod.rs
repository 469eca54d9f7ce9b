//! Values that cannot be wrong: once one of these exists, nobody has to check it again.
//! Knows no file, no clock and no other room.

mod exit;
mod level;
mod name;
mod run;
mod size;
mod tick;

pub use exit::{Core, ExitStatus, Signal};
pub use level::Level;
pub use name::{InstanceId, NAME_MAX, NameError, RESERVED, ServiceName};
pub use run::{Pid, RunId};
pub use size::{ByteSize, CpuShare, SizeError};
pub use tick::{DurationError, Tick, human_duration, parse_duration};
