//! The floor of the race: a supervisor that does nothing but spawn, wait on pidfds and spawn
//! again. No logs, no groups, no limits, no decisions.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};

use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};

struct Floor<'a> {
    service: &'a str,
    ears: &'a str,
    first: u64,
    epoll: OwnedFd,
    /// By the service's place.
    running: Vec<Option<OwnedFd>>,
}

/// Supervises `count` services for ever.
pub fn run(service: &str, ears: &str, first: u64, count: usize) -> io::Result<()> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let running = (0..count).map(|_| None).collect();
    let mut floor = Floor { service, ears, first, epoll, running };
    for place in 0..count {
        floor.spawn(place)?;
    }
    let mut ended = Vec::with_capacity(64);
    loop {
        ended.clear();
        epoll::wait(&floor.epoll, spare_capacity(&mut ended), None)?;
        for event in &ended {
            let place = usize::try_from(event.data.u64()).map_err(io::Error::other)?;
            floor.restart(place)?;
        }
    }
}

impl Floor<'_> {
    fn restart(&mut self, place: usize) -> io::Result<()> {
        if let Some(pidfd) = self.running.get_mut(place).and_then(Option::take) {
            waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)?;
        }
        self.spawn(place)
    }

    fn spawn(&mut self, place: usize) -> io::Result<()> {
        let id = self.first + place as u64;
        let mut command = Command::new(self.service);
        command.arg(self.ears).arg(id.to_string()).stdin(Stdio::null());
        let child = command.spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("a process without a number"))?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        let data = epoll::EventData::new_u64(place as u64);
        epoll::add(&self.epoll, &pidfd, data, epoll::EventFlags::IN)?;
        if let Some(slot) = self.running.get_mut(place) {
            *slot = Some(pidfd);
        }
        Ok(())
    }
}
