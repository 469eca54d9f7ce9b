//! Hears what the raced services say: who runs, since when, and who has written all its lines.
//! Knows nothing of who started them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::Interrupt;

/// A service of the race; no two of one bench are the same.
pub type Id = u32;

/// How often a wait looks whether the bench was interrupted.
const LOOK: Duration = Duration::from_millis(100);

/// One run of a service. Times are nanoseconds of the monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    pub pid: i32,
    pub at: u64,
}

/// When a service began and ended to write its lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wrote {
    pub began: u64,
    pub ended: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Said {
    Run(Id, Run),
    Done(Id, Wrote),
}

#[derive(Debug)]
pub struct Ears {
    said: Receiver<Said>,
    runs: BTreeMap<Id, Run>,
    wrote: BTreeMap<Id, Wrote>,
    interrupt: Interrupt,
}

impl Ears {
    /// Listens at `path` on a thread of its own, so that no service waits to be heard.
    pub fn open(path: &Path, interrupt: Interrupt) -> Result<Self, String> {
        let socket = UnixDatagram::bind(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let (to, said) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 128];
            while let Ok(length) = socket.recv(&mut buffer) {
                let heard = buffer.get(..length).and_then(read);
                if heard.is_some_and(|heard| to.send(heard).is_err()) {
                    return;
                }
            }
        });
        Ok(Self { said, runs: BTreeMap::new(), wrote: BTreeMap::new(), interrupt })
    }

    /// The newest run of the service that was heard of.
    pub fn run(&mut self, id: Id) -> Option<Run> {
        while let Ok(said) = self.said.try_recv() {
            self.keep(&said);
        }
        self.runs.get(&id).copied()
    }

    /// Waits until each of them runs since later than `after`; the moment when the last one did.
    pub fn all_run(
        &mut self,
        ids: impl Iterator<Item = Id>,
        after: u64,
        within: Duration,
    ) -> Result<u64, String> {
        let end = Instant::now() + within;
        let mut last = after;
        for id in ids {
            let run = loop {
                match self.runs.get(&id) {
                    Some(run) if run.at > after => break *run,
                    Some(_) | None => self.hear(end, || format!("service {id} does not run"))?,
                }
            };
            last = last.max(run.at);
        }
        Ok(last)
    }

    /// Waits until all of them have written their lines.
    pub fn all_wrote(&mut self, ids: Range<Id>, within: Duration) -> Result<Vec<Wrote>, String> {
        let end = Instant::now() + within;
        let mut all = Vec::new();
        for id in ids {
            while !self.wrote.contains_key(&id) {
                self.hear(end, || format!("service {id} has not written its lines"))?;
            }
            all.extend(self.wrote.get(&id));
        }
        Ok(all)
    }

    fn hear(&mut self, end: Instant, missing: impl Fn() -> String) -> Result<(), String> {
        loop {
            self.interrupt.check()?;
            match self.said.recv_timeout(LOOK) {
                Ok(said) => {
                    self.keep(&said);
                    return Ok(());
                }
                Err(RecvTimeoutError::Timeout) if Instant::now() < end => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    return Err(missing());
                }
            }
        }
    }

    fn keep(&mut self, said: &Said) {
        match *said {
            Said::Run(id, run) => drop(self.runs.insert(id, run)),
            Said::Done(id, wrote) => drop(self.wrote.insert(id, wrote)),
        }
    }
}

fn read(datagram: &[u8]) -> Option<Said> {
    let text = std::str::from_utf8(datagram).ok()?;
    let mut words = text.split(' ');
    let what = words.next()?;
    let id = words.next()?.parse().ok()?;
    let pid = words.next()?.parse().ok()?;
    let at = words.next()?.parse().ok()?;
    match what {
        "run" => Some(Said::Run(id, Run { pid, at })),
        "done" => Some(Said::Done(id, Wrote { began: at, ended: words.next()?.parse().ok()? })),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_services_say_is_read_and_nothing_else() {
        assert_eq!(read(b"run 3 77 1000"), Some(Said::Run(3, Run { pid: 77, at: 1000 })));
        let wrote = Wrote { began: 5, ended: 9 };
        assert_eq!(read(b"done 3 77 5 9"), Some(Said::Done(3, wrote)));
        assert_eq!(read(b"done 3 77 5"), None);
        assert_eq!(read(b"run x 77 5"), None);
        assert_eq!(read(b"\xff"), None);
    }
}
