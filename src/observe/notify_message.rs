//! Parses the datagrams of the sd_notify protocol (sd_notify(3)).

use std::time::Duration;

use crate::decide::Notice;

/// The most bytes of a `STATUS=` that are kept; the rest is cut off between two characters.
const STATUS_MAX: usize = 512;
/// The longest time that one `EXTEND_TIMEOUT_USEC=` is taken for.
const EXTEND_MAX: Duration = Duration::from_secs(3600);
/// The longest `FDNAME=`, in characters (sd_pid_notify_with_fds(3)).
const FDNAME_MAX: usize = 255;

/// The content of a datagram.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Message {
    pub notices: Vec<Notice>,
    pub fd_store: Option<FdStoreRequest>,
    /// Lines that are not part of the protocol, or whose value is invalid.
    pub not_understood: Vec<String>,
}

/// What a service asks to do with descriptors.
#[derive(Debug, PartialEq, Eq)]
pub enum FdStoreRequest {
    /// `FDSTORE=1`: keep the descriptors that came with the datagram under this name.
    Keep { name: String },
    /// `FDSTOREREMOVE=1`: drop the stored descriptors of this name.
    Remove { name: String },
}

/// Parses a datagram. Lines that are not understood are listed and have no effect.
pub fn read(datagram: &[u8]) -> Message {
    let text = String::from_utf8_lossy(datagram);
    let mut message = Message::default();
    let mut keep = None;
    let mut name = None;
    for line in text.split('\n').filter(|line| !line.is_empty()) {
        match line.split_once('=') {
            Some(("FDSTORE", "1")) => keep = Some(Keep::Yes),
            Some(("FDSTOREREMOVE", "1")) => keep = Some(Keep::No),
            Some(("FDNAME", given)) if is_fd_name(given) => name = Some(given.to_owned()),
            // BARRIER: its descriptor is closed after the datagram was handled.
            // The kernel tells the others more reliably.
            Some((
                "BARRIER" | "MAINPID" | "ERRNO" | "BUSERROR" | "EXIT_STATUS" | "FDPOLL"
                | "RELOADING" | "MONOTONIC_USEC" | "NOTIFYACCESS" | "VARLINKERROR",
                _,
            )) => {}
            Some((key, value)) => match notice(key, value) {
                Some(notice) => message.notices.push(notice),
                None => message.not_understood.push(shown(line)),
            },
            None => message.not_understood.push(shown(line)),
        }
    }
    message.fd_store = keep.map(|keep| match (keep, name) {
        (Keep::Yes, name) => {
            FdStoreRequest::Keep { name: name.unwrap_or_else(|| "stored".to_owned()) }
        }
        (Keep::No, name) => {
            FdStoreRequest::Remove { name: name.unwrap_or_else(|| "stored".to_owned()) }
        }
    });
    message
}

enum Keep {
    Yes,
    No,
}

fn notice(key: &str, value: &str) -> Option<Notice> {
    match (key, value) {
        ("READY", "1") => Some(Notice::Ready),
        ("STOPPING", "1") => Some(Notice::Stopping),
        ("WATCHDOG", "1") => Some(Notice::Watchdog),
        ("WATCHDOG", "trigger") => Some(Notice::WatchdogTrigger),
        ("STATUS", text) => Some(Notice::Status(cut(text, STATUS_MAX))),
        ("EXTEND_TIMEOUT_USEC", micros) => {
            let by = Duration::from_micros(micros.parse().ok()?);
            Some(Notice::ExtendTimeout(by.min(EXTEND_MAX)))
        }
        _ => None,
    }
}

/// What sd_notify(3) asks of a name: ASCII, no control characters, no ':'.
fn is_fd_name(name: &str) -> bool {
    let allowed = |b: u8| (b' '..0x7f).contains(&b) && b != b':';
    !name.is_empty() && name.len() <= FDNAME_MAX && name.bytes().all(allowed)
}

fn shown(line: &str) -> String {
    cut(line, 80).escape_debug().to_string()
}

fn cut(text: &str, max: usize) -> String {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_notices_of_one_datagram_come_in_their_order() {
        let message = read(b"READY=1\nSTATUS=serving \xf0\x9f\x8c\x8a\nWATCHDOG=1\n");
        let status = Notice::Status("serving \u{1f30a}".to_owned());
        assert_eq!(message.notices, [Notice::Ready, status, Notice::Watchdog]);
        assert!(message.not_understood.is_empty());
    }

    #[test]
    fn a_timeout_is_extended_within_bounds_and_only_by_numbers() {
        let extend = |text: &str| read(format!("EXTEND_TIMEOUT_USEC={text}").as_bytes()).notices;
        assert_eq!(extend("5000000"), [Notice::ExtendTimeout(Duration::from_secs(5))]);
        assert_eq!(extend("18446744073709551615"), [Notice::ExtendTimeout(EXTEND_MAX)]);
        assert_eq!(extend("-1"), []);
        assert_eq!(extend("soon"), []);
    }

    #[test]
    fn descriptors_are_kept_and_dropped_by_name() {
        let keep = read(b"FDSTORE=1\nFDNAME=listener").fd_store;
        assert_eq!(keep, Some(FdStoreRequest::Keep { name: "listener".to_owned() }));
        let nameless = read(b"FDSTORE=1").fd_store;
        assert_eq!(nameless, Some(FdStoreRequest::Keep { name: "stored".to_owned() }));
        let remove = read(b"FDSTOREREMOVE=1\nFDNAME=listener").fd_store;
        assert_eq!(remove, Some(FdStoreRequest::Remove { name: "listener".to_owned() }));
        assert_eq!(read(b"FDNAME=alone").fd_store, None);
    }

    #[test]
    fn a_name_with_a_colon_would_break_listen_fdnames_and_is_not_taken() {
        let message = read(b"FDSTORE=1\nFDNAME=a:b");
        assert_eq!(message.fd_store, Some(FdStoreRequest::Keep { name: "stored".to_owned() }));
        assert_eq!(message.not_understood, ["FDNAME=a:b"]);
    }

    #[test]
    fn nonsense_is_named_and_harmless() {
        let message = read(b"READY=2\n\x00\xff\nhello\n=\nREADY=1=1");
        assert_eq!(message.notices, []);
        assert_eq!(message.not_understood.len(), 5);
        let long = read(&[b'x'; 64 * 1024]);
        assert_eq!((long.notices.len(), long.not_understood.len()), (0, 1));
    }

    #[test]
    fn what_the_kernel_tells_better_is_passed_over_in_silence() {
        let message = read(b"MAINPID=1\nBARRIER=1\nERRNO=2");
        assert_eq!(message, Message::default());
    }
}
