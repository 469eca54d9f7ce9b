//! Addresses of every kind, from a value to a typed one: ports, socket files, multiaddrs, URLs.
//! Knows no key.

use std::path::{Path, PathBuf};

use http::Uri;
use multiaddr::{Multiaddr, Protocol};

use super::form::Form;
use super::section::Section;
use super::tree::Value;
use super::values::{Reader, Wrong, absolute_path, text, whole};

/// `sun_path` of `sockaddr_un` holds 108 bytes, the last of which is NUL (unix(7)).
pub(super) const SOCKET_PATH_MAX: usize = 107;

/// Folders in which everybody may make files.
const SHARED_FOLDERS: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

const LISTEN_FORM: &str = "/ip4/ADDRESS/tcp/PORT or /ip4/ADDRESS/udp/PORT/quic-v1, or the same \
                           with ip6";
const PEER_FORM: &str = "a multiaddr such as /dnsaddr/HOST or /ip4/ADDRESS/tcp/PORT/p2p/ID";

/// A port that somebody has to find again: not 0.
pub(super) fn port() -> Reader<impl Fn(&Value) -> Result<u16, Wrong>> {
    whole(1..=u16::MAX)
}

/// A path for a Unix socket.
pub(super) fn socket_path() -> Reader<impl Fn(&Value) -> Result<PathBuf, Wrong>> {
    let path = absolute_path();
    Reader::new(Form::Path, move |value| {
        let read = path.read(value)?;
        let bytes = read.as_os_str().len();
        if bytes > SOCKET_PATH_MAX {
            let what = format!("the path has {bytes} bytes");
            return Err(Wrong::new(what, "at most 107 bytes: Linux takes no more for a socket"));
        }
        if read.file_name().is_none() || value.to_string().ends_with("/\"") {
            return Err(Wrong::new("the path names no file", "the path of a file"));
        }
        Ok(read)
    })
}

/// Whether everybody on the host may make files where this path is.
pub(super) fn is_in_shared_folder(path: &Path) -> bool {
    SHARED_FOLDERS.iter().any(|folder| path.starts_with(folder))
}

/// Which multiaddrs are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Where this node listens.
    Listen,
    /// Where another one is.
    Peer,
}

/// A list of multiaddrs, each of them once; what is wrong with one is told at its own place.
pub(super) fn multiaddrs(
    section: &mut Section<'_>,
    key: &'static str,
    meaning: Meaning,
) -> Vec<Multiaddr> {
    const ALLOWED: &str = "a list of multiaddrs, such as [\"/ip4/0.0.0.0/tcp/4001\"]";
    let form = Form::list(Form::text("^(/[^/\\s]+)+/?$", 1024));
    let Some(node) = section.node(key, form) else { return Vec::new() };
    let Value::List(items) = &node.value else {
        section.refuse(key, node, Wrong::kind(&node.value, ALLOWED));
        return Vec::new();
    };
    let mut read: Vec<Multiaddr> = Vec::new();
    for item in items {
        match multiaddr(&item.value, meaning) {
            Ok(address) if read.contains(&address) => {
                let wrong = Wrong::new("the address is named twice", "each address once");
                section.refuse(key, item, wrong);
            }
            Ok(address) => read.push(address),
            Err(wrong) => section.refuse(key, item, wrong),
        }
    }
    read
}

fn multiaddr(value: &Value, meaning: Meaning) -> Result<Multiaddr, Wrong> {
    let allowed = match meaning {
        Meaning::Listen => LISTEN_FORM,
        Meaning::Peer => PEER_FORM,
    };
    let text = text(value).map_err(|_| Wrong::kind(value, allowed))?;
    let fits = |address: &Multiaddr| match meaning {
        Meaning::Listen => can_listen(address),
        Meaning::Peer => !address.is_empty(),
    };
    let read = text.parse().ok().filter(|_| text.len() <= 1024);
    read.filter(fits).ok_or_else(|| {
        let what = match text.parse::<Multiaddr>() {
            Ok(_) => "nothing can listen on this multiaddr",
            Err(_) => "this is not a multiaddr",
        };
        let meant = with_quic_v1(&text).filter(|near| near.parse().is_ok_and(|a| fits(&a)));
        Wrong::new(what, allowed).meant(meant.map(|near| format!("{near:?}")))
    })
}

fn can_listen(address: &Multiaddr) -> bool {
    let mut parts = address.iter();
    let host = matches!(parts.next(), Some(Protocol::Ip4(_) | Protocol::Ip6(_)));
    let transport = match (parts.next(), parts.next()) {
        (Some(Protocol::Tcp(_)), None) | (Some(Protocol::Udp(_)), Some(Protocol::QuicV1)) => true,
        (_, _) => false,
    };
    host && transport && parts.next().is_none()
}

/// QUIC runs over UDP and has a version: what older texts mean by `/quic/4001` or
/// `/udp/4001/quic`.
fn with_quic_v1(text: &str) -> Option<String> {
    let parts: Vec<&str> = text.split('/').collect();
    match parts.as_slice() {
        ["", family, host, "quic" | "quic-v1", port]
        | ["", family, host, "udp", port]
        | ["", family, host, "udp", port, "quic"] => {
            Some(format!("/{family}/{host}/udp/{port}/quic-v1"))
        }
        _ => None,
    }
}

/// The URL of something that is sent to: `http` or `https`, a host, no user and no fragment.
pub(super) fn endpoint() -> Reader<impl Fn(&Value) -> Result<String, Wrong>> {
    Reader::new(Form::text("^https?://[^/?#@\\s]+(/[^?#\\s]*)?$", 1024), |value| {
        let allowed = "a URL such as \"http://collector:4318\"";
        let text = text(value).map_err(|_| Wrong::kind(value, allowed))?;
        let uri: Option<Uri> = text.parse().ok().filter(|_| text.len() <= 1024);
        let fits = uri.is_some_and(|uri| {
            let host = uri.authority().is_some_and(|authority| {
                !authority.host().is_empty() && !authority.as_str().contains('@')
            });
            matches!(uri.scheme_str(), Some("http" | "https")) && host && uri.query().is_none()
        });
        let plain = !text.contains('#') && text.starts_with("http");
        let fits = fits && plain;
        fits.then_some(text).ok_or_else(|| Wrong::new("nothing can be sent there", allowed))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn t(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn a_node_listens_on_tcp_and_on_quic_of_version_1() {
        let listen = |text: &str| multiaddr(&t(text), Meaning::Listen);
        for right in [
            "/ip4/0.0.0.0/tcp/4001",
            "/ip6/::/tcp/0",
            "/ip4/127.0.0.1/udp/4001/quic-v1",
            "/ip6/::1/udp/4001/quic-v1",
        ] {
            assert_eq!(listen(right).unwrap().to_string(), right);
        }
        for wrong in [
            "",
            "/",
            "4001",
            "/ip4/0.0.0.0",
            "/ip4/0.0.0.0/tcp/70000",
            "/ip4/300.0.0.1/tcp/1",
            "/dns4/example.org/tcp/1",
            "/ip4/0.0.0.0/udp/4001/quic",
            "/ip4/0.0.0.0/quic/4001",
            "/ip4/0.0.0.0/tcp/1/ws/x",
        ] {
            assert!(listen(wrong).is_err(), "{wrong:?}");
        }
        assert!(multiaddr(&t("/dnsaddr/bootstrap.example"), Meaning::Peer).is_ok());
        assert!(multiaddr(&t("/dnsaddr"), Meaning::Peer).is_err());
        assert!(multiaddr(&t(""), Meaning::Peer).is_err());
    }

    #[test]
    fn an_endpoint_is_a_plain_url() {
        for right in ["http://jaeger:14268", "https://[::1]:4318/v1/traces", "http://a.b/"] {
            assert_eq!(endpoint().read(&t(right)).unwrap(), right);
        }
        for wrong in
            ["", "jaeger:14268", "ftp://a", "http://", "http://u:p@a/", "http://a b", "http://a?x"]
        {
            assert!(endpoint().read(&t(wrong)).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_socket_has_a_path_that_linux_takes() {
        let path = |text: &str| socket_path().read(&t(text));
        assert_eq!(path("/tmp/x.sock").unwrap(), Path::new("/tmp/x.sock"));
        assert!(path(&format!("/{}", "x".repeat(106))).is_ok());
        for wrong in ["", "x.sock", "/", "/tmp/", "/a/../b", &format!("/{}", "x".repeat(107))] {
            assert!(path(wrong).is_err(), "{wrong}");
        }
        assert!(is_in_shared_folder(Path::new("/dev/shm/a/b")));
        assert!(!is_in_shared_folder(Path::new("/tmpfs/b")));
    }
}
