//! Values that cannot be wrong: once one of these exists, nobody has to check it again.
//! Knows no file, no clock and no other room.

mod capability;
mod exit;
mod level;
mod name;
mod run;
mod size;
mod system_call;
mod tick;

pub use capability::{Capability, capability_bits, capability_names};
pub use exit::{Core, ExitStatus, Signal};
pub use level::Level;
pub use name::{InstanceId, NAME_MAX, NameError, RESERVED, ServiceName};
pub use run::{Pid, RunId};
pub use size::{ByteSize, CpuShare, SizeError};
pub use system_call::SystemCall;
pub use tick::{DurationError, Tick, human_duration, parse_duration};
