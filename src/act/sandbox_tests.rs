//! What a profile gives and what it keeps: rules alone, and tried from inside.

use std::fs::{self, File};
use std::io::Read;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixListener;

use rustix::net::{AddressFamily, SocketType, socket};

use super::*;
use crate::config::{HostDefaults, Sources, load};
use crate::linux::fds;
use crate::linux::spawn::{Launch, Program as Executed, spawn};
use crate::units::ExitStatus;

#[test]
fn what_a_service_can_replace_by_a_link_gives_it_nothing_more() {
    let writable = ["/data/web", "/srv/web"].map(Path::new);
    for path in ["/data/web/script", "/srv/web/a/b"] {
        assert!(is_in_its_hands(Path::new(path), &writable), "{path}");
    }
    for path in ["/data/web", "/srv/web", "/srv", "/data/web-2", "/usr/bin/python3"] {
        assert!(!is_in_its_hands(Path::new(path), &writable), "{path}");
    }
}

/// Of storage, below this folder, confined by `profile`.
fn launch_plan(folder: &Path, profile: Profile) -> LaunchPlan {
    let host = HostDefaults {
        node_name: "host-1".to_owned(),
        data_dir: folder.join("data"),
        runtime_dir: folder.join("run"),
        memory: None,
        processors: None,
    };
    let config = load(&Sources::default(), &host).unwrap().config;
    let plan = Plan::of(&config);
    let mut launch = plan.instances[&"storage-0".parse().unwrap()].launch.clone();
    launch.sandbox.profile = profile;
    for folder in [&launch.data_dir, &launch.sandbox.runtime_folder] {
        fs::create_dir_all(folder).unwrap();
    }
    launch
}

/// What becomes of each attempt inside `profile`, in the order in which `a_child` makes them.
async fn tried(profile: Profile) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let launch = launch_plan(folder.path(), profile);
    let prepared = Sandboxes::of_this_host().prepare(&launch, None).unwrap();
    let this = std::env::current_exe().unwrap();
    let words = [
        this.to_str().unwrap(),
        "--exact",
        "act::sandbox::tests::a_child",
        "--ignored",
        "--nocapture",
    ];
    let text = |text: &str| std::ffi::CString::new(text).unwrap();
    let (ours, theirs) = fds::pipe().unwrap();
    let child = spawn(&Launch {
        program: Executed::Path(text(words[0])),
        arguments: words.map(text).to_vec(),
        environment: Vec::new(),
        pid_variables: Vec::new(),
        working_directory: Some(text(launch.data_dir.to_str().unwrap())),
        stdout: std::os::fd::AsFd::as_fd(&theirs),
        stderr: std::os::fd::AsFd::as_fd(&theirs),
        passed: Vec::new(),
        limits: Vec::new(),
        group: None,
        sandbox: prepared.sandbox(),
    })
    .unwrap();
    drop(theirs);
    let mut said = String::new();
    File::from(ours).read_to_string(&mut said).unwrap();
    child.pidfd.exited().await.unwrap();
    let crate::linux::pidfd::Reaped::Ended(status) = child.pidfd.reap().unwrap() else {
        panic!("{said}")
    };
    assert_eq!(status, ExitStatus::Code(0), "{said}");
    said.lines().filter_map(|line| line.strip_prefix("tried ")).map(str::to_owned).collect()
}

fn told<T>(what: &str, outcome: std::io::Result<T>) {
    let code = match outcome {
        Ok(_) => "done".to_owned(),
        Err(error) => match error.raw_os_error() {
            Some(libc::EACCES) => "EACCES".to_owned(),
            Some(libc::EAFNOSUPPORT) => "EAFNOSUPPORT".to_owned(),
            _ => error.to_string(),
        },
    };
    // On a line of its own: the test harness writes too.
    println!("\ntried {what}: {code}");
}

/// What the child processes of the tests below run.
#[test]
#[ignore = "run by the tests below, as a process of its own"]
fn a_child() {
    let make = |family, kind| Ok(socket(family, kind, None)?);
    told("ipv4", TcpListener::bind("127.0.0.1:0"));
    told("udp", UdpSocket::bind("127.0.0.1:0"));
    told("ipv6", make(AddressFamily::INET6, SocketType::DGRAM));
    told("unix", UnixListener::bind("own.sock"));
    told("netlink", make(AddressFamily::NETLINK, SocketType::RAW));
    told("packet", make(AddressFamily::PACKET, SocketType::RAW));
    told("names", fs::read("/etc/hosts"));
    told("change names", File::options().append(true).open("/etc/hosts"));
    told("users", fs::read("/etc/passwd"));
    told("programs", fs::read("/usr/bin/env"));
}

#[tokio::test]
async fn a_service_of_the_internet_has_its_sockets_and_names_and_nothing_more() {
    if Support::find().landlock == 0 {
        println!("skipped: this kernel has no Landlock");
        return;
    }
    let common = [
        "unix: done",
        "packet: EAFNOSUPPORT",
        "change names: EACCES",
        "users: EACCES",
        "programs: EACCES",
    ];
    let both = |more: [&str; 5]| {
        let mut all: Vec<String> = common.iter().chain(&more).map(ToString::to_string).collect();
        all.sort();
        all
    };
    let mut internet = tried(Profile::Internet).await;
    internet.sort();
    let more = ["ipv4: done", "udp: done", "ipv6: done", "netlink: EAFNOSUPPORT", "names: done"];
    assert_eq!(internet, both(more));
    let mut own = tried(Profile::Own).await;
    own.sort();
    let less = [
        "ipv4: EAFNOSUPPORT",
        "udp: EAFNOSUPPORT",
        "ipv6: EAFNOSUPPORT",
        "netlink: EAFNOSUPPORT",
        "names: EACCES",
    ];
    assert_eq!(own, both(less));
}

#[test]
fn certificates_can_be_read_where_their_keys_cannot() {
    let rules: Vec<_> = internet_rules().collect();
    for (path, access, _) in &rules {
        assert_eq!(*access, Access::Read, "{}", path.display());
        assert!(!Path::new("/etc/ssl/private").starts_with(path), "{}", path.display());
    }
    assert!(rules.iter().any(|(path, ..)| *path == Path::new("/etc/ssl/certs")));
}
