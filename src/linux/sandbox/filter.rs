//! The seccomp filter of system calls: a BPF program, made once for all processes that are confined
//! alike. See `docs/decisions/0013-sandbox.md`.

use std::collections::BTreeSet;

use super::calls::{ARCHITECTURE, KNOWN, number};
use crate::units::SystemCall;

/// Exceptions from what a filter refuses.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FilterRules {
    pub families: Families,
    pub allowed: BTreeSet<SystemCall>,
}

/// Which sockets a process may make. It may use any that it was handed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Families {
    Unix,
    /// Unix, IPv4 and IPv6.
    Internet,
    /// Unix, IPv4, IPv6 and netlink.
    Common,
}

/// A BPF program that the kernel runs before each system call of a process (seccomp(2)).
///
/// What is refused answers EPERM, families of sockets EAFNOSUPPORT, what Linux got after this was
/// written ENOSYS, as from an older kernel; `clone3` too, so that programs fall back to `clone`,
/// whose flags can be seen. A system call of another architecture ends the process.
#[derive(Debug)]
pub struct Filter {
    program: Vec<libc::sock_filter>,
}

/// What becomes of a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Allow,
    Refuse(i32),
    /// Refused with flags that make a name space.
    Clone,
    /// Refused with other families than these.
    Socket(Families),
}

/// `linux/sched.h`: the flags of `clone` that begin with CLONE_NEW.
const NAME_SPACES: u32 = 0x7e02_0000;
/// `struct seccomp_data` (seccomp(2)).
const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
/// The lower half of the first argument; both architectures have it first.
const FIRST_ARGUMENT_AT: u32 = 16;

impl Filter {
    pub fn new(rules: &FilterRules) -> Self {
        let foreign = jump(libc::BPF_JEQ, ARCHITECTURE, 1, 0);
        let mut program =
            vec![load(ARCHITECTURE_AT), foreign, give(libc::SECCOMP_RET_KILL_PROCESS)];
        program.push(load(NUMBER_AT));
        program.extend(search(&stretches(rules)));
        Self { program }
    }

    pub(in crate::linux) fn program(&self) -> &[libc::sock_filter] {
        &self.program
    }
}

impl FilterRules {
    fn verdict(&self, call: u32) -> Verdict {
        if !KNOWN.iter().any(|known| known.contains(&call)) {
            return Verdict::Refuse(libc::ENOSYS);
        }
        match SystemCall::all().find(|refused| number(*refused) == Some(call)) {
            None => Verdict::Allow,
            Some(given_back) if self.allowed.contains(&given_back) => Verdict::Allow,
            Some(SystemCall::CLONE) => Verdict::Clone,
            Some(SystemCall::CLONE3) => Verdict::Refuse(libc::ENOSYS),
            Some(SystemCall::SOCKET) => Verdict::Socket(self.families),
            Some(_) => Verdict::Refuse(libc::EPERM),
        }
    }
}

impl Families {
    fn numbers(self) -> &'static [i32] {
        match self {
            Self::Unix => &[libc::AF_UNIX],
            Self::Internet => &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6],
            Self::Common => &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK],
        }
    }
}

/// The first number of each stretch of calls with the same verdict, in order; the first is 0.
fn stretches(rules: &FilterRules) -> Vec<(u32, Verdict)> {
    let end = KNOWN.iter().map(|known| *known.end()).max().unwrap_or_default();
    let mut all: Vec<(u32, Verdict)> = Vec::new();
    for call in 0..=end + 1 {
        let verdict = rules.verdict(call);
        if all.last().is_none_or(|(_, before)| *before != verdict) {
            all.push((call, verdict));
        }
    }
    all
}

/// A binary search: the kernel walks it for every number when it takes the filter, and an ordinary
/// list of some hundred comparisons would cost more than the rest of a start.
fn search(stretches: &[(u32, Verdict)]) -> Vec<libc::sock_filter> {
    let (below, rest) = match stretches {
        [] => return Vec::new(),
        [(_, verdict)] => return leaf(*verdict),
        many => many.split_at(many.len() / 2),
    };
    let first = rest.first().map(|(first, _)| *first).unwrap_or_default();
    let (below, rest) = (search(below), search(rest));
    let mut program = match u8::try_from(below.len()) {
        Ok(length) => vec![jump(libc::BPF_JGE, first, length, 0)],
        Err(_) => {
            let length = u32::try_from(below.len()).unwrap_or(u32::MAX);
            vec![jump(libc::BPF_JGE, first, 0, 1), jump(libc::BPF_JA, length, 0, 0)]
        }
    };
    program.extend(below);
    program.extend(rest);
    program
}

fn leaf(verdict: Verdict) -> Vec<libc::sock_filter> {
    match verdict {
        Verdict::Allow => vec![give(libc::SECCOMP_RET_ALLOW)],
        Verdict::Refuse(errno) => vec![refuse(errno)],
        Verdict::Clone => vec![
            load(FIRST_ARGUMENT_AT),
            jump(libc::BPF_JSET, NAME_SPACES, 0, 1),
            refuse(libc::EPERM),
            give(libc::SECCOMP_RET_ALLOW),
        ],
        Verdict::Socket(families) => {
            let mut program = vec![load(FIRST_ARGUMENT_AT)];
            for family in families.numbers() {
                program.push(jump(libc::BPF_JEQ, family.unsigned_abs(), 0, 1));
                program.push(give(libc::SECCOMP_RET_ALLOW));
            }
            program.push(refuse(libc::EAFNOSUPPORT));
            program
        }
    }
}

fn load(offset: u32) -> libc::sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0)
}

/// How many instructions are skipped where `what` holds of the loaded value and `value`, and where
/// it does not.
fn jump(what: u32, value: u32, holds: u8, holds_not: u8) -> libc::sock_filter {
    instruction(libc::BPF_JMP | what | libc::BPF_K, value, holds, holds_not)
}

fn refuse(errno: i32) -> libc::sock_filter {
    give(libc::SECCOMP_RET_ERRNO | errno.unsigned_abs())
}

fn give(answer: u32) -> libc::sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, answer, 0, 0)
}

fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: u16::try_from(code).unwrap_or(u16::MAX), jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ERRNO: u32 = libc::SECCOMP_RET_ERRNO;
    const EPERM: u32 = ERRNO | libc::EPERM.unsigned_abs();
    const ENOSYS: u32 = ERRNO | libc::ENOSYS.unsigned_abs();
    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

    fn rules(allowed: &[SystemCall]) -> FilterRules {
        FilterRules { families: Families::Common, allowed: allowed.iter().copied().collect() }
    }

    /// Runs the program as the kernel does.
    fn answer(filter: &Filter, architecture: u32, call: i64, first_argument: u32) -> u32 {
        let call = u32::try_from(call).unwrap();
        let (mut at, mut loaded) = (0, 0);
        loop {
            let step = filter.program[at];
            at += 1;
            let is = |code: u32| u32::from(step.code) == code;
            if is(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) {
                let data = [call, architecture, 0, 0, first_argument];
                loaded = data[usize::try_from(step.k).unwrap() / 4];
            } else if is(libc::BPF_RET | libc::BPF_K) {
                return step.k;
            } else if is(libc::BPF_JMP | libc::BPF_JA) {
                at += usize::try_from(step.k).unwrap();
            } else {
                let holds = match u32::from(step.code) & !libc::BPF_JMP {
                    libc::BPF_JEQ => loaded == step.k,
                    libc::BPF_JGE => loaded >= step.k,
                    libc::BPF_JSET => loaded & step.k != 0,
                    other => panic!("{other:x}"),
                };
                at += usize::from(if holds { step.jt } else { step.jf });
            }
        }
    }

    #[test]
    fn every_number_gets_its_verdict() {
        let rules = rules(&[SystemCall::CLONE, SystemCall::SOCKET]);
        let filter = Filter::new(&rules);
        let strange = [0x4000_0000, 0x4000_0101, 0x7fff_ffff, u32::MAX];
        for call in (0..1000).chain(strange) {
            let expected = match rules.verdict(call) {
                Verdict::Allow => ALLOW,
                Verdict::Refuse(errno) => ERRNO | errno.unsigned_abs(),
                other @ (Verdict::Clone | Verdict::Socket(_)) => panic!("{call}: {other:?}"),
            };
            assert_eq!(answer(&filter, ARCHITECTURE, call.into(), 0), expected, "{call}");
        }
        assert_eq!(answer(&filter, ARCHITECTURE, libc::SYS_ptrace, 0), EPERM);
        assert_eq!(answer(&filter, ARCHITECTURE, libc::SYS_clone3, 0), ENOSYS);
        assert_eq!(answer(&filter, ARCHITECTURE, 463, 0), ENOSYS);
        // Those of an x32 program, and what a program tries that wants to see ENOSYS.
        assert!(
            strange.iter().all(|call| answer(&filter, ARCHITECTURE, i64::from(*call), 0) == ENOSYS)
        );
    }

    #[test]
    fn what_every_program_needs_passes() {
        let filter = Filter::new(&rules(&[]));
        let needed = [
            libc::SYS_read,
            libc::SYS_write,
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_mmap,
            libc::SYS_mprotect,
            libc::SYS_futex,
            libc::SYS_epoll_pwait,
            libc::SYS_accept4,
            libc::SYS_rseq,
            libc::SYS_seccomp,
            libc::SYS_landlock_restrict_self,
            libc::SYS_exit_group,
        ];
        for call in needed {
            assert_eq!(answer(&filter, ARCHITECTURE, call, 0), ALLOW, "{call}");
        }
    }

    #[test]
    fn name_spaces_and_unusual_sockets_are_seen_by_their_arguments() {
        let filter = Filter::new(&rules(&[]));
        let clone = |flags| answer(&filter, ARCHITECTURE, libc::SYS_clone, flags);
        // As fork and as pthread_create call it.
        assert_eq!((clone(17), clone(0x003d_0f00)), (ALLOW, ALLOW));
        for name_space in [0x0002_0000, 0x0200_0000, 0x1000_0000, 0x4000_0000] {
            assert_eq!(clone(name_space | 17), EPERM, "{name_space:x}");
        }
        let socket = |filter, family: i32| {
            answer(filter, ARCHITECTURE, libc::SYS_socket, family.unsigned_abs())
        };
        let refused = ERRNO | libc::EAFNOSUPPORT.unsigned_abs();
        for family in [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK] {
            assert_eq!(socket(&filter, family), ALLOW, "{family}");
        }
        assert_eq!(socket(&filter, libc::AF_PACKET), refused);
        let local = Filter::new(&FilterRules { families: Families::Unix, ..rules(&[]) });
        assert_eq!(socket(&local, libc::AF_UNIX), ALLOW);
        assert_eq!(socket(&local, libc::AF_INET), refused);
    }

    #[test]
    fn another_architecture_is_death_and_the_program_is_short() {
        let filter = Filter::new(&rules(&[]));
        let i386 = 0x4000_0003;
        assert_eq!(answer(&filter, i386, 0, 0), libc::SECCOMP_RET_KILL_PROCESS);
        assert!(filter.program.len() < 256, "{}", filter.program.len());
    }
}
