//! Writes rendered lines to the console, that is to standard output. Knows nothing of their
//! content.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::render::{Form, Style};
use super::sink::{Receipt, Sink, SinkError, Unwritten, Waits, Writer};

#[derive(Debug)]
struct Console {
    fd: OwnedFd,
    /// Whether the last write ended in the middle of a line.
    torn: bool,
}

/// Starts the thread that owns `fd`. At most `limit` bytes wait, or one chunk that is larger.
pub fn start(fd: OwnedFd, style: Style, limit: usize) -> Result<Sink, SinkError> {
    Sink::start(Console { fd, torn: false }, Form::Console(style), limit)
}

impl Writer for Console {
    /// A full disk costs the lines that did not fit, and later ones are written again. Any other
    /// error ends the console.
    fn write(
        &mut self,
        lines: &[u8],
        _: BorrowedFd<'_>,
        receipt: Option<&mut Receipt>,
    ) -> Result<(), Unwritten> {
        if self.torn && self.write_all(b"\n").is_ok() {
            self.torn = false;
        }
        let Err((rest, reason)) = self.write_all(lines) else {
            return Ok(());
        };
        if !matches!(reason, Errno::NOSPC | Errno::DQUOT) {
            return Err(Unwritten::Gone(reason));
        }
        let written = lines.len() - rest.len();
        self.torn |= written > 0 && lines[written - 1] != b'\n';
        let lost = memchr::memchr_iter(b'\n', rest).count();
        if let Some(receipt) = receipt {
            let all = memchr::memchr_iter(b'\n', lines).count();
            (lost..all).for_each(|_| receipt.delivered());
            (0..lost).for_each(|_| receipt.lost());
        }
        Err(Unwritten::Lines(lost as u64))
    }

    /// A blocking write larger than the room in a pipe cannot be interrupted.
    fn waits(&self) -> Waits {
        Waits::ForEver
    }
}

impl Console {
    /// The bytes that were not written, and why.
    fn write_all<'a>(&self, mut bytes: &'a [u8]) -> Result<(), (&'a [u8], Errno)> {
        while !bytes.is_empty() {
            match rustix::io::write(&self.fd, bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait_writable().map_err(|errno| (bytes, errno))?,
                Err(errno) => return Err((bytes, errno)),
            }
        }
        Ok(())
    }

    /// Another process that shares the console has made it non-blocking.
    fn wait_writable(&self) -> Result<(), Errno> {
        match poll(&mut [PollFd::new(&self.fd, PollFlags::OUT)], None) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::render::Colour;
    use super::super::sink::{Account, Chunk, Flushed, QUEUE_MAX, Sent};
    use super::*;
    use rustix::fs::{Mode, OFlags};
    use rustix::pipe::{PipeFlags, pipe, pipe_with};
    use std::fs::File;
    use std::io::{self, Read, Write};
    use std::sync::Arc;
    use std::time::Duration;

    const LONG: Duration = Duration::from_secs(60);
    const PLAIN: Style = Style::Pretty(Colour::Never);

    fn account() -> Arc<Account> {
        Arc::new(Account::new(|out, lines| writeln!(out, "lost {lines}").unwrap()))
    }

    fn chunk(account: &Arc<Account>, lines: u64, length: usize) -> Chunk {
        let line = "x".repeat(length - 1) + "\n";
        let bytes = line.repeat(usize::try_from(lines).unwrap()).into_bytes();
        Chunk { bytes, lines, account: Arc::clone(account), receipt: None }
    }

    fn text(text: &str) -> Chunk {
        Chunk { bytes: text.into(), lines: 1, account: account(), receipt: None }
    }

    fn read_all(fd: OwnedFd) -> std::thread::JoinHandle<String> {
        std::thread::spawn(move || {
            let mut text = String::new();
            File::from(fd).read_to_string(&mut text).unwrap();
            text
        })
    }

    #[tokio::test]
    async fn what_is_sent_is_written_in_order_and_the_thread_ends() {
        let (read, write) = pipe().unwrap();
        let sink = start(write, PLAIN, QUEUE_MAX).unwrap();
        for line in ["a\n", "b\n", "c\n"] {
            assert_eq!(sink.send(text(line)).await, Sent::Queued);
        }
        assert_eq!(sink.close(LONG).await, Flushed::Everything);
        assert_eq!(sink.send(text("d\n")).await, Sent::Gone);
        assert_eq!(read_all(read).join().unwrap(), "a\nb\nc\n");
    }

    #[tokio::test]
    async fn a_console_that_does_not_read_stalls_loses_an_exact_count_and_recovers() {
        let (read, write) = pipe().unwrap();
        let sink = start(write, PLAIN, 100_000).unwrap();
        let lost = account();
        let mut sent = 0;
        while sink.send(chunk(&lost, 500, 100)).await == Sent::Queued {
            sent += 500;
        }
        assert!(sink.is_stalled());
        assert_eq!(sink.send(chunk(&lost, 7, 10_000)).await, Sent::Dropped);
        assert_eq!(lost.lost(), 507);
        assert_eq!(sink.flush(Duration::ZERO).await, Flushed::Unfinished);
        let reader = read_all(read);
        assert_eq!(sink.flush(LONG).await, Flushed::Everything);
        assert!(!sink.is_stalled());
        assert_eq!(sink.send(chunk(&lost, 1, 10)).await, Sent::Queued);
        assert_eq!(sink.close(LONG).await, Flushed::Everything);
        let shown = reader.join().unwrap();
        assert_eq!(shown.lines().count(), sent + 2);
        assert!(shown.ends_with("x\nlost 507\nxxxxxxxxx\n"));
        assert_eq!(lost.lost(), 507);
    }

    #[tokio::test]
    async fn every_account_is_told_of_where_lines_pass_again() {
        let (read, write) = pipe().unwrap();
        let sink = start(write, PLAIN, 100_000).unwrap();
        let (loud, quiet) = (account(), account());
        let mut sent = 0;
        while sink.send(chunk(&loud, 500, 100)).await == Sent::Queued {
            sent += 500;
        }
        sink.send(chunk(&quiet, 3, 10_000)).await;
        sink.send(chunk(&loud, 2, 10_000)).await;
        // There is room for the node's own line, and so the losses come before it.
        assert_eq!(sink.offer(text("own\n")), Sent::Queued);
        let reader = read_all(read);
        assert_eq!(sink.close(LONG).await, Flushed::Everything);
        let shown = reader.join().unwrap();
        assert_eq!(shown.lines().count(), sent + 3);
        assert!(shown.ends_with("x\nlost 502\nlost 3\nown\n"));
    }

    #[tokio::test]
    async fn the_nodes_own_lines_find_room_in_a_full_queue() {
        let (_read, write) = pipe().unwrap();
        let sink = start(write, PLAIN, 100_000).unwrap();
        let lost = account();
        while sink.send(chunk(&lost, 500, 100)).await == Sent::Queued {}
        let own = account();
        assert_eq!(sink.offer(chunk(&own, 1, 100)), Sent::Queued);
        while sink.offer(chunk(&own, 1, 10_000)) == Sent::Queued {}
        assert_eq!(own.lost(), 1);
    }

    #[tokio::test]
    async fn a_closed_console_is_given_up_and_says_so_once() {
        let (read, write) = pipe().unwrap();
        drop(read);
        let sink = start(write, PLAIN, QUEUE_MAX).unwrap();
        let lost = account();
        while sink.send(chunk(&lost, 1, 10)).await != Sent::Gone {
            sink.flush(LONG).await;
        }
        let reason = sink.take_gone().unwrap();
        assert_eq!(reason.kind(), io::ErrorKind::BrokenPipe);
        assert!(sink.take_gone().is_none());
        assert_eq!(sink.close(LONG).await, Flushed::Unfinished);
    }

    #[tokio::test]
    async fn a_full_disk_costs_lines_but_not_the_console() {
        let full = rustix::fs::open("/dev/full", OFlags::WRONLY, Mode::empty()).unwrap();
        let sink = start(full, PLAIN, QUEUE_MAX).unwrap();
        let lost = account();
        for _ in 0..3 {
            assert_eq!(sink.send(chunk(&lost, 5, 10)).await, Sent::Queued);
        }
        assert_eq!(sink.close(LONG).await, Flushed::Everything);
        assert_eq!(lost.lost(), 15);
        assert!(sink.take_gone().is_none());
    }

    #[tokio::test]
    async fn a_console_made_non_blocking_by_others_is_waited_for() {
        let (read, write) = pipe_with(PipeFlags::NONBLOCK).unwrap();
        rustix::fs::fcntl_setfl(&read, OFlags::empty()).unwrap();
        let sink = start(write, PLAIN, QUEUE_MAX).unwrap();
        let lost = account();
        assert_eq!(sink.send(chunk(&lost, 10_000, 100)).await, Sent::Queued);
        let reader = read_all(read);
        assert_eq!(sink.close(LONG).await, Flushed::Everything);
        assert_eq!(reader.join().unwrap().lines().count(), 10_000);
    }
}
