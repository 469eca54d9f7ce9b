//! How a process ended, as `wait(2)` reports it.

use std::fmt;

/// The two ways to end. They are kept apart: 137 is an exit code, SIGKILL is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExitStatus {
    Code(i32),
    Signal {
        number: Signal,
        core: Core,
    },
    /// Unknown: it was not our child, and only a parent learns the status.
    Unseen,
}

/// Whether the kernel wrote a core file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Core {
    Dumped,
    None,
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal { number, core: Core::None } => write!(f, "{number}"),
            Self::Signal { number, core: Core::Dumped } => write!(f, "{number} (core dumped)"),
            Self::Unseen => f.write_str("ended unseen"),
        }
    }
}

/// A signal number of this machine, 1..=64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Signal(pub i32);

impl Signal {
    pub const HUP: Self = Self(1);
    pub const INT: Self = Self(2);
    pub const ABRT: Self = Self(6);
    pub const KILL: Self = Self(9);
    pub const TERM: Self = Self(15);
    pub const XCPU: Self = Self(24);
}

/// In the order of their numbers on Linux, from 1 (`signal(7)`, x86 and arm).
const NAMES: [&str; 31] = [
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGILL",
    "SIGTRAP",
    "SIGABRT",
    "SIGBUS",
    "SIGFPE",
    "SIGKILL",
    "SIGUSR1",
    "SIGSEGV",
    "SIGUSR2",
    "SIGPIPE",
    "SIGALRM",
    "SIGTERM",
    "SIGSTKFLT",
    "SIGCHLD",
    "SIGCONT",
    "SIGSTOP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGVTALRM",
    "SIGPROF",
    "SIGWINCH",
    "SIGIO",
    "SIGPWR",
    "SIGSYS",
];

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let index = usize::try_from(self.0 - 1).ok();
        match index.and_then(|index| NAMES.get(index)) {
            Some(name) => f.pad(name),
            None => write!(f, "signal {}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_and_an_exit_code_read_differently() {
        let killed = ExitStatus::Signal { number: Signal::KILL, core: Core::None };
        assert_eq!(killed.to_string(), "SIGKILL");
        assert_eq!(ExitStatus::Code(137).to_string(), "exit code 137");
        let dumped = ExitStatus::Signal { number: Signal(11), core: Core::Dumped };
        assert_eq!(dumped.to_string(), "SIGSEGV (core dumped)");
        assert_eq!(Signal(34).to_string(), "signal 34");
        assert_eq!(Signal(31).to_string(), "SIGSYS");
    }
}
