//! The default folders of a node: those that a service manager made for it, those of the XDG rules
//! for a user, those of the FHS for root. Never a shared folder such as /tmp, where
//! anyone could place a socket of that name.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// No folder can be named.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "cannot tell where the data is: neither XDG_DATA_HOME nor HOME is set; give --data-dir DIR"
)]
pub struct NoHome;

/// The variables and the user that decide. A variable that is unset, empty or not absolute is
/// `None` (XDG Base Directory Specification: relative paths are to be ignored).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    pub user: User,
    pub home: Option<PathBuf>,
    pub xdg_data_home: Option<PathBuf>,
    pub xdg_runtime_dir: Option<PathBuf>,
    /// `StateDirectory=` and `RuntimeDirectory=` of the unit whose command this process is; of
    /// several the first.
    pub unit_state: Option<PathBuf>,
    pub unit_runtime: Option<PathBuf>,
}

/// Who runs this process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum User {
    Root,
    #[default]
    Other,
}

impl Environment {
    pub fn of_this_process() -> Self {
        let user = if rustix::process::geteuid().is_root() { User::Root } else { User::Other };
        Self::new(user, |name| std::env::var_os(name))
    }

    fn new(user: User, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
        // What a unit's command starts inherits its variables (SYSTEMD_EXEC_PID, systemd.exec(5)).
        let own_pid = std::process::id().to_string();
        let by_manager = variable("SYSTEMD_EXEC_PID").is_some_and(|pid| *pid == *own_pid);
        let first = |name| variable(name).map(|list| first_of(&list));
        let of_unit = |name| first(name).filter(|path| by_manager && path.is_absolute());
        Self {
            user,
            home: absolute("HOME"),
            xdg_data_home: absolute("XDG_DATA_HOME"),
            xdg_runtime_dir: absolute("XDG_RUNTIME_DIR"),
            unit_state: of_unit("STATE_DIRECTORY"),
            unit_runtime: of_unit("RUNTIME_DIRECTORY"),
        }
    }

    /// Where services keep their data.
    pub fn data_dir(&self) -> Result<PathBuf, NoHome> {
        if let Some(state) = &self.unit_state {
            return Ok(state.clone());
        }
        match (self.user, &self.xdg_data_home, &self.home) {
            (User::Root, _, _) => Ok(PathBuf::from("/var/lib/blackhole")),
            (User::Other, Some(data), _) => Ok(data.join("blackhole")),
            (User::Other, None, Some(home)) => Ok(home.join(".local/share/blackhole")),
            (User::Other, None, None) => Err(NoHome),
        }
    }

    /// Where sockets live. `data_dir` is the one that was given, if one was.
    pub fn runtime_dir(&self, data_dir: Option<&Path>) -> Result<PathBuf, NoHome> {
        if let Some(runtime) = &self.unit_runtime {
            return Ok(runtime.clone());
        }
        match (self.user, &self.xdg_runtime_dir) {
            (User::Root, _) => Ok(PathBuf::from("/run/blackhole")),
            (User::Other, Some(runtime)) => Ok(runtime.join("blackhole")),
            (User::Other, None) => {
                let data = data_dir.map_or_else(|| self.data_dir(), |given| Ok(given.to_owned()));
                Ok(data?.join("run"))
            }
        }
    }
}

/// systemd separates folders by colons.
fn first_of(list: &OsStr) -> PathBuf {
    let first = list.as_bytes().split(|byte| *byte == b':').next().unwrap_or_default();
    PathBuf::from(OsStr::from_bytes(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(variables: &[(&str, &str)]) -> Environment {
        Environment::new(User::Other, |name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn root_has_the_system_folders_whatever_the_variables_say() {
        let home = Some(PathBuf::from("/root"));
        let root = Environment { user: User::Root, home, ..user(&[("XDG_DATA_HOME", "/x")]) };
        assert_eq!(root.data_dir(), Ok("/var/lib/blackhole".into()));
        assert_eq!(root.runtime_dir(Some(Path::new("/data"))), Ok("/run/blackhole".into()));
    }

    #[test]
    fn a_user_has_the_xdg_folders() {
        let with_xdg = user(&[
            ("HOME", "/home/ada"),
            ("XDG_DATA_HOME", "/home/ada/data"),
            ("XDG_RUNTIME_DIR", "/run/user/1000"),
        ]);
        assert_eq!(with_xdg.data_dir(), Ok("/home/ada/data/blackhole".into()));
        assert_eq!(with_xdg.runtime_dir(None), Ok("/run/user/1000/blackhole".into()));
    }

    #[test]
    fn without_xdg_everything_is_below_the_data_folder() {
        let plain = user(&[("HOME", "/home/ada")]);
        assert_eq!(plain.data_dir(), Ok("/home/ada/.local/share/blackhole".into()));
        assert_eq!(plain.runtime_dir(None), Ok("/home/ada/.local/share/blackhole/run".into()));
        assert_eq!(plain.runtime_dir(Some(Path::new("/srv/b"))), Ok("/srv/b/run".into()));
    }

    #[test]
    fn the_command_of_a_unit_has_the_units_folders() {
        let own_pid = std::process::id().to_string();
        let mut variables = vec![
            ("HOME", "/var/lib/blackhole"),
            ("STATE_DIRECTORY", "/var/lib/blackhole"),
            ("RUNTIME_DIRECTORY", "/run/blackhole:/run/more"),
            ("SYSTEMD_EXEC_PID", &own_pid),
        ];
        let unit = user(&variables);
        assert_eq!(unit.data_dir(), Ok("/var/lib/blackhole".into()));
        assert_eq!(unit.runtime_dir(Some(Path::new("/srv/b"))), Ok("/run/blackhole".into()));
        // What that command starts is not the unit's command.
        variables.pop();
        variables.push(("SYSTEMD_EXEC_PID", "1"));
        assert_eq!(user(&variables), user(&[("HOME", "/var/lib/blackhole")]));
    }

    #[test]
    fn empty_and_relative_variables_count_as_unset() {
        let odd = user(&[("HOME", "home"), ("XDG_DATA_HOME", ""), ("XDG_RUNTIME_DIR", "run")]);
        assert_eq!(odd, user(&[]));
        assert_eq!(odd.data_dir(), Err(NoHome));
        assert_eq!(odd.runtime_dir(None), Err(NoHome));
        assert_eq!(odd.runtime_dir(Some(Path::new("/d"))), Ok("/d/run".into()));
    }
}
