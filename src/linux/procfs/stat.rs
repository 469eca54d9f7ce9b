//! `/proc/PID/stat`. The program's name in it may hold spaces, brackets, newlines, anything.

use std::time::Duration;

use super::{read_optional, strange};
use crate::linux::error::Error;
use crate::units::Pid;

/// `proc_pid_stat(5)`, what is used of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// At most 15 bytes; what is no UTF-8 is replaced.
    pub name: String,
    pub state: ProcessState,
    pub parent: Pid,
    pub session: Pid,
    /// User and system time of all threads, also of those that ended.
    pub cpu: Duration,
    pub threads: u64,
    /// Clock ticks from boot to the start. Together with the pid it names a process for the life
    /// of the machine.
    pub start_time: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessState {
    Running,
    Sleeping,
    /// In uninterruptible sleep, where not even SIGKILL ends it.
    DiskSleep,
    /// By a signal or a debugger.
    Stopped,
    /// It ended and its parent has not collected it.
    Zombie,
    Other(char),
}

/// `None` when there is no such process.
pub fn stat(pid: Pid) -> Result<Option<Stat>, Error> {
    let file = format!("/proc/{pid}/stat");
    let Some(text) = read_optional(&file)? else { return Ok(None) };
    let parsed = parse(&text, rustix::param::clock_ticks_per_second());
    let strange = || strange(&file, "a stat line", &String::from_utf8_lossy(&text));
    parsed.ok_or_else(strange).map(Some)
}

/// The name ends at the last bracket: no later field can hold one.
fn parse(text: &[u8], ticks_per_second: u64) -> Option<Stat> {
    let open = text.iter().position(|byte| *byte == b'(')?;
    let close = text.iter().rposition(|byte| *byte == b')')?;
    let name = String::from_utf8_lossy(text.get(open + 1..close)?).into_owned();
    let rest = std::str::from_utf8(text.get(close + 1..)?).ok()?;
    // Counted from 3, the state, as the manual page does.
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).copied();
    let count = |number: usize| field(number)?.parse::<u64>().ok();
    let pid = |number: usize| field(number)?.parse().ok().map(Pid);
    let ticks = count(14)?.checked_add(count(15)?)?;
    Some(Stat {
        name,
        state: ProcessState::from_letter(field(3)?.chars().next()?),
        parent: pid(4)?,
        session: pid(6)?,
        cpu: ticks_to_time(ticks, ticks_per_second),
        threads: count(20)?,
        start_time: count(22)?,
    })
}

fn ticks_to_time(ticks: u64, per_second: u64) -> Duration {
    let per_second = per_second.max(1);
    let millis = (ticks % per_second).saturating_mul(1000) / per_second;
    Duration::from_secs(ticks / per_second).saturating_add(Duration::from_millis(millis))
}

impl ProcessState {
    fn from_letter(letter: char) -> Self {
        match letter {
            'R' => Self::Running,
            'S' => Self::Sleeping,
            'D' => Self::DiskSleep,
            'T' | 't' => Self::Stopped,
            'Z' => Self::Zombie,
            other => Self::Other(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::linux::process::own_pid;

    fn line(name: &[u8], fields: &str) -> Vec<u8> {
        [b"77 (", name, b") ", fields.as_bytes()].concat()
    }

    const FIELDS: &str = "S 1 77 76 0 -1 4194304 5 0 0 0 150 75 0 0 20 0 3 0 4242 1000000 250 18 \
                          1 1 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0\n";

    #[test]
    fn the_fields_are_those_of_the_manual_page() {
        let expected = Stat {
            name: "odd ) (name".to_owned(),
            state: ProcessState::Sleeping,
            parent: Pid(1),
            session: Pid(76),
            cpu: Duration::from_millis(2250),
            threads: 3,
            start_time: 4242,
        };
        assert_eq!(parse(&line(b"odd ) (name", FIELDS), 100), Some(expected));
    }

    #[test]
    fn our_own_line_agrees_with_the_system() {
        let stat = stat(own_pid()).unwrap().unwrap();
        let parent = rustix::process::getppid().map(|pid| Pid(pid.as_raw_nonzero().get()));
        assert_eq!(Some(stat.parent), parent);
        assert!(stat.start_time > 0 && stat.threads >= 1);
    }

    proptest! {
        #[test]
        fn no_name_can_shift_the_fields(name in prop::collection::vec(1_u8.., 0..16)) {
            let stat = parse(&line(&name, FIELDS), 100).unwrap();
            prop_assert_eq!(stat.name, String::from_utf8_lossy(&name).into_owned());
            prop_assert_eq!((stat.parent, stat.start_time), (Pid(1), 4242));
        }

        #[test]
        fn no_text_makes_it_panic(text in prop::collection::vec(any::<u8>(), 0..80)) {
            parse(&text, 0);
        }

        #[test]
        fn a_cut_line_is_refused(length in 0..60_usize) {
            let whole = line(b"name", FIELDS);
            prop_assert_eq!(parse(&whole[..length], 100), None);
        }
    }
}
