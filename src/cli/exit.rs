//! What the exit code of every verb means. The numbers above 63 are those of `sysexits.h`, 3 and 4
//! those of the LSB's `status` action.

use std::process;

/// How a verb ended, for the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    Ok = 0,
    Failed = 1,
    Usage = 2,
    NotReady = 3,
    NoSuchService = 4,
    NotRunning = 69,
    AlreadyRunning = 75,
    NoPermission = 77,
    Configuration = 78,
}

impl ExitCode {
    pub const ALL: [Self; 9] = [
        Self::Ok,
        Self::Failed,
        Self::Usage,
        Self::NotReady,
        Self::NoSuchService,
        Self::NotRunning,
        Self::AlreadyRunning,
        Self::NoPermission,
        Self::Configuration,
    ];

    pub const fn number(self) -> u8 {
        self as u8
    }

    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Ok => "it was done",
            Self::Failed => "it was tried and failed, or a service ended failed",
            Self::Usage => "the command line is wrong",
            Self::NotReady => "status NAME: the service is not ready",
            Self::NoSuchService => "no such service",
            Self::NotRunning => "no node is running there",
            Self::AlreadyRunning => "run: another node is running there",
            Self::NoPermission => "no permission for the control socket, or to install",
            Self::Configuration => "the configuration is wrong, or more than this host can keep",
        }
    }
}

impl From<ExitCode> for process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code.number())
    }
}

/// The table under `--help` and in the manual page.
pub fn table() -> String {
    let rows = ExitCode::ALL.map(|code| format!("  {:>2}  {}", code.number(), code.meaning()));
    format!("Exit codes:\n{}", rows.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_every_code_once() {
        let numbers = ExitCode::ALL.map(ExitCode::number);
        assert_eq!(numbers, [0, 1, 2, 3, 4, 69, 75, 77, 78]);
        for code in ExitCode::ALL {
            assert_eq!(table().matches(code.meaning()).count(), 1, "{code:?}");
        }
    }
}
