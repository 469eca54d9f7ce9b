//! Where the cgroup2 hierarchy is mounted and where in it we are.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::linux::error::{Error, failed};

/// The cgroup2 hierarchy as this process sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` on hosts that use version 1 beside it.
    pub mount: PathBuf,
    /// Our own group, as `/proc/self/cgroup` names it: `/system.slice/blackhole.service`.
    pub own_name: String,
    /// The folder of our own group.
    pub own_path: PathBuf,
    /// What our own group may enable for its children; on hybrid hosts often nothing useful.
    pub controllers: BTreeSet<String>,
}

/// One line of mountinfo that is a cgroup2 mount.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    /// The group that is mounted there: `/`, or another in some containers.
    root: String,
    point: PathBuf,
}

impl Hierarchy {
    /// `None` where there is no cgroup2 mount that shows our own group.
    pub fn find() -> Result<Option<Self>, Error> {
        let mounts = read("/proc/self/mountinfo")?;
        let Some(own_name) = own_group_name(&read("/proc/self/cgroup")?) else { return Ok(None) };
        let place = cgroup2_mounts(&mounts).into_iter().find_map(|mount| {
            let own_path = mount.folder_of(&own_name)?;
            own_path.is_dir().then_some((mount, own_path))
        });
        let Some((mount, own_path)) = place else { return Ok(None) };
        let file = own_path.join("cgroup.controllers");
        let controllers = fs::read_to_string(&file).map_err(failed("read", file.display()))?;
        let controllers = controllers.split_whitespace().map(str::to_owned).collect();
        Ok(Some(Self { mount: mount.point, own_name, own_path, controllers }))
    }
}

fn read(path: &str) -> Result<String, Error> {
    let bytes: io::Result<Vec<u8>> = fs::read(path);
    Ok(String::from_utf8_lossy(&bytes.map_err(failed("read", path))?).into_owned())
}

/// `proc_pid_cgroup(5)`: version 2 is the line with hierarchy 0 and no controllers.
pub(super) fn own_group_name(text: &str) -> Option<String> {
    text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

/// `proc_pid_mountinfo(5)`: `36 35 98:0 /root /point options tags... - type source options`.
fn cgroup2_mounts(text: &str) -> Vec<Mount> {
    let mount = |line: &str| {
        let (place, kind) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (root, point) = (place.next()?, place.next()?);
        let is_cgroup2 = kind.split(' ').next() == Some("cgroup2");
        is_cgroup2.then(|| Mount { root: unescape(root), point: unescape(point).into() })
    };
    text.lines().filter_map(mount).collect()
}

/// Mountinfo writes space, tab, newline and backslash as `\040` and so on.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (code, plain)| text.replace(code, plain))
}

impl Mount {
    /// The folder of a group, when this mount shows it. A group outside our cgroup namespace is
    /// named with `..` (`cgroup_namespaces(7)`) and is not shown.
    fn folder_of(&self, group: &str) -> Option<PathBuf> {
        if group.split('/').any(|part| part == "..") {
            return None;
        }
        let below = Path::new(group).strip_prefix(&self.root).ok()?;
        Some(if below.as_os_str().is_empty() { self.point.clone() } else { self.point.join(below) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw
";

    #[test]
    fn the_version_2_mount_is_found_beside_version_1() {
        let mounts = cgroup2_mounts(HYBRID);
        let point = PathBuf::from("/sys/fs/cgroup/unified");
        assert_eq!(mounts, [Mount { root: "/".into(), point: point.clone() }]);
        assert_eq!(mounts[0].folder_of("/"), Some(point.clone()));
        assert_eq!(mounts[0].folder_of("/a/b.service"), Some(point.join("a/b.service")));
        let name = own_group_name("9:name=systemd:/x\n8:pids:/\n0::/a/b.service\n");
        assert_eq!(name.as_deref(), Some("/a/b.service"));
    }

    #[test]
    fn a_container_sees_its_part_of_the_hierarchy_only() {
        let text = "9 8 0:1 /docker/1 /my\\040cgroups ro - cgroup2 cgroup rw,nsdelegate\n";
        let mounts = cgroup2_mounts(text);
        assert_eq!(mounts[0].folder_of("/docker/1/x"), Some("/my cgroups/x".into()));
        assert_eq!(mounts[0].folder_of("/docker/12"), None);
        assert_eq!(mounts[0].folder_of("/docker/1/../2"), None);
    }

    #[test]
    fn a_host_with_version_1_only_has_no_hierarchy() {
        assert_eq!(cgroup2_mounts("32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu"), []);
        assert_eq!(own_group_name("4:memory:/x\n"), None);
    }
}
