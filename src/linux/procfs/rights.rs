//! Credentials, capabilities and seccomp mode of a process, from `/proc/PID/status`.

use super::{read_optional, strange};
use crate::linux::error::Error;
use crate::units::Pid;

/// `proc_pid_status(5)`, what is used of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rights {
    /// The effective user and group.
    pub uid: u32,
    pub gid: u32,
    pub no_new_privileges: bool,
    /// The effective and the permitted capabilities, as a bit mask.
    pub capabilities: u64,
    /// The capabilities that programs it executes can gain at most, as a bit mask.
    pub bounding_set: u64,
    pub system_calls: SystemCalls,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SystemCalls {
    All,
    /// Only read, write, exit and the return from a signal.
    Strict,
    Filtered,
}

/// `None` when there is no such process.
pub fn rights(pid: Pid) -> Result<Option<Rights>, Error> {
    let file = format!("/proc/{pid}/status");
    let Some(text) = read_optional(&file)? else { return Ok(None) };
    let text = String::from_utf8_lossy(&text);
    parse(&text).ok_or_else(|| strange(&file, "what a process may do", &text)).map(Some)
}

fn parse(text: &str) -> Option<Rights> {
    // The program's name, which may be anything, is escaped there.
    let field = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    };
    let effective = |name: &str| field(name)?.split_whitespace().nth(1)?.parse().ok();
    let set = |name: &str| u64::from_str_radix(field(name)?, 16).ok();
    Some(Rights {
        uid: effective("Uid")?,
        gid: effective("Gid")?,
        no_new_privileges: field("NoNewPrivs")? == "1",
        capabilities: set("CapPrm")? | set("CapEff")?,
        bounding_set: set("CapBnd")?,
        // A kernel without seccomp has no such line.
        system_calls: match field("Seccomp").unwrap_or("0") {
            "0" => SystemCalls::All,
            "1" => SystemCalls::Strict,
            "2" => SystemCalls::Filtered,
            _ => return None,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::process::{own_pid, own_uid};

    #[test]
    fn this_process_may_do_what_it_may() {
        let own = rights(own_pid()).unwrap().unwrap();
        assert_eq!(own.uid, own_uid());
        assert_eq!(rights(Pid(i32::MAX)).unwrap(), None);
    }

    #[test]
    fn the_fields_are_those_of_the_kernel() {
        let text = "Name:\tUid: 7\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nCapInh:\t0000000000000000\n\
                    CapPrm:\t0000000000000001\nCapEff:\t0000000000000400\n\
                    CapBnd:\t000001ffffffffff\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t3\n";
        let expected = Rights {
            uid: 2,
            gid: 6,
            no_new_privileges: true,
            capabilities: 0x401,
            bounding_set: 0x1ff_ffff_ffff,
            system_calls: SystemCalls::Filtered,
        };
        assert_eq!(parse(text), Some(expected));
        let without = parse(&text.replace("Seccomp:\t2\n", "")).unwrap();
        assert_eq!(without.system_calls, SystemCalls::All);
        assert_eq!(parse(&text.replace("Uid:\t1", "Uid:\tx y")).map(|rights| rights.uid), None);
        assert_eq!(parse(""), None);
    }
}
