//! Who has a port, for the message when it is taken. Source: `proc_pid_net(5)`.

use std::fs;

use super::{numbered_entries, processes, read_optional, stat};
use crate::linux::error::Error;
use crate::units::Pid;

/// Whose ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Udp,
}

impl Transport {
    /// `TCP_LISTEN`, or what a UDP socket is that is connected to nobody (`TCP_CLOSE`), in
    /// hexadecimal.
    fn listening(self) -> &'static str {
        match self {
            Self::Tcp => "0A",
            Self::Udp => "07",
        }
    }

    fn tables(self) -> [&'static str; 2] {
        match self {
            Self::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
            Self::Udp => ["/proc/net/udp", "/proc/net/udp6"],
        }
    }
}

/// A process that listens on this port at any address, and its name. `None` when nobody does or
/// when we may not look into the process that does.
pub fn port_holder(transport: Transport, port: u16) -> Result<Option<(Pid, String)>, Error> {
    let mut sockets = Vec::new();
    for file in transport.tables() {
        let table = read_optional(file)?.unwrap_or_default();
        let table = String::from_utf8_lossy(&table);
        sockets.extend(listening_inodes(&table, transport.listening(), port));
    }
    if sockets.is_empty() {
        return Ok(None);
    }
    let links: Vec<String> = sockets.iter().map(|inode| format!("socket:[{inode}]")).collect();
    for pid in processes()? {
        if has_open(pid, &links)
            && let Some(stat) = stat(pid)?
        {
            return Ok(Some((pid, stat.name)));
        }
    }
    Ok(None)
}

/// `sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode ...`
fn listening_inodes(table: &str, listening: &str, port: u16) -> Vec<u64> {
    let inode = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, local_port) = fields.get(1)?.rsplit_once(':')?;
        let is_ours = u16::from_str_radix(local_port, 16).ok()? == port;
        let listens = *fields.get(3)? == listening;
        let inode = fields.get(9)?.parse().ok()?;
        (is_ours && listens).then_some(inode)
    };
    table.lines().skip(1).filter_map(inode).collect()
}

/// What may not be looked into is passed over: another user's process, or one that has just ended.
fn has_open(pid: Pid, links: &[String]) -> bool {
    let folder = format!("/proc/{pid}/fd");
    let fds = numbered_entries(&folder).ok().flatten().unwrap_or_default();
    fds.iter()
        .filter_map(|fd| fs::read_link(format!("{folder}/{fd}")).ok())
        .any(|target| links.iter().any(|link| target.as_os_str() == link.as_str()))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;
    use crate::linux::process::own_pid;

    #[test]
    fn a_listener_is_found_with_the_name_of_its_process() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (pid, name) = port_holder(Transport::Tcp, port).unwrap().unwrap();
        assert_eq!(pid, own_pid());
        assert_eq!(name, stat(pid).unwrap().unwrap().name);
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr();
        assert_eq!(port_holder(Transport::Udp, udp.unwrap().port()).unwrap(), None);
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = udp.local_addr().unwrap().port();
        assert_eq!(port_holder(Transport::Udp, port).unwrap().unwrap().0, own_pid());
    }

    #[test]
    fn a_connection_from_a_port_does_not_hold_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(port_holder(Transport::Tcp, client.local_addr().unwrap().port()).unwrap(), None);
    }

    #[test]
    fn only_listening_sockets_of_the_port_are_taken_from_the_table() {
        let table = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0
   1: 0100007F:1F90 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 222 1 0
   2: 00000000:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 333 1 0
";
        assert_eq!(listening_inodes(table, Transport::Tcp.listening(), 8080), [111]);
    }
}
