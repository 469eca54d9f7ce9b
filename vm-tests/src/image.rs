//! A machine's disk: built from Debian packages, booted once, and kept outside the source tree
//! under the hash of all that went into it. What is there is taken; what is not is made.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::agent::{Agent, Answer};
use crate::evidence::target;
use crate::machine::set_clock;
use crate::node;
use crate::qemu::{Console, Hardware, KERNEL, Qemu, SHAPE, SNAPSHOT, Start, version};
use crate::{Error, Release};

const PACKAGES: &str = "systemd,systemd-sysv,dbus,udev,kmod,iproute2,procps,initramfs-tools,\
                        linux-image-cloud-amd64,python3,strace,dmsetup,e2fsprogs";

/// What no test reads.
const LEFT_OUT: [&str; 3] = [
    "path-exclude=/usr/share/doc/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/man/*",
];

/// The files of `guest/`.
const GUEST: [(&str, &str); 4] = [
    ("agent.py", include_str!("../guest/agent.py")),
    ("agent.service", include_str!("../guest/agent.service")),
    ("furnish.sh", include_str!("../guest/furnish.sh")),
    ("shell.service", include_str!("../guest/shell.service")),
];

/// A boot that the guest's kernel does not survive is tried once more.
const BOOTS: usize = 2;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    release: Release,
    pub kernel: PathBuf,
    pub initrd: PathBuf,
    /// As it was built, never written to.
    disk: PathBuf,
    /// On top of it, with the snapshot of the booted machine.
    pub booted: PathBuf,
}

/// What is on a machine when a test gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    Debian,
    /// The node as cargo builds it, installed as a user would, and not started.
    Installed,
    /// The same, started with an empty configuration: all built-in services are ready.
    Running,
}

impl Image {
    /// Takes it from the cache, or makes it, which takes minutes. Others who want the same wait.
    pub fn of(release: Release) -> Result<Self, Error> {
        let folder = cache()?.join(format!("{release}-{:016x}", recipe(release)));
        make_folder(&folder)?;
        let _held = lock(&folder)?;
        let disk = folder.join("disk");
        if !disk.exists() {
            eprintln!("building the {release} machine in {}", folder.display());
            build(release, &folder)?;
        }
        // What is on top of a disk is for no other, not even for one of the same recipe.
        let built = fs::metadata(&disk).and_then(|disk| disk.modified());
        let built = built.map_err(Error::io("look at", &disk))?;
        let booted = hash(&(&version()?, SHAPE, KERNEL, BOOTED, built));
        let image = Self {
            release,
            kernel: folder.join("kernel"),
            initrd: folder.join("initrd"),
            disk,
            booted: folder.join(format!("booted-{booted:016x}")),
        };
        if !image.booted.exists() {
            eprintln!("booting the {release} machine for the first time");
            image.boot_first(&folder)?;
        }
        Ok(image)
    }

    /// What a machine with this disk is started with.
    pub fn hardware<'a>(&'a self, disk: &'a Path, disk_format: &'a str) -> Hardware<'a> {
        Hardware { kernel: &self.kernel, initrd: &self.initrd, disk, disk_format }
    }

    /// Copies the disk with this content and its snapshot. Others who want the same wait meanwhile.
    pub fn copy(&self, content: Content, to: &Path) -> Result<(), Error> {
        let (name, then) = match content {
            Content::Debian => return copy(&self.booted, to),
            Content::Installed => ("installed", "true"),
            Content::Running => ("running", START),
        };
        let binary = node::built()?;
        let folder = target().join("vm-installed").join(self.release.name()).join(name);
        make_folder(&folder)?;
        let _held = lock(&folder)?;
        let installed = folder.join(format!("{:016x}", hash(&(&self.booted, binary, then))));
        if !installed.exists() {
            self.install(binary, then, &folder, &installed)?;
        }
        copy(&installed, to)
    }

    /// Takes the place of the one with the binary before.
    fn install(
        &self,
        binary: &[u8],
        then: &str,
        folder: &Path,
        installed: &Path,
    ) -> Result<(), Error> {
        for entry in fs::read_dir(folder).map_err(Error::io("list", folder))?.flatten() {
            let former = entry.path();
            fs::remove_file(&former).map_err(Error::io("remove", &former))?;
        }
        let run = run_folder()?;
        let disk = run.path().join("disk");
        copy(&self.booted, &disk)?;
        let hardware = self.hardware(&disk, "qcow2");
        let (mut qemu, mut agent) =
            Qemu::start(&hardware, Start::Restore, Console::Nobody, run.path())?;
        qemu.succeeded(install_node(&mut agent, binary, then))?;
        qemu.human(&format!("delvm {SNAPSHOT}"))?;
        qemu.human(&format!("savevm {SNAPSHOT}"))?;
        qemu.quit()?;
        let fresh = folder.join("new");
        copy(&disk, &fresh)?;
        fs::rename(&fresh, installed).map_err(Error::io("rename", &fresh))
    }

    fn boot_first(&self, folder: &Path) -> Result<(), Error> {
        let mut left = BOOTS;
        loop {
            left -= 1;
            match self.take_snapshot(folder) {
                Err(Error::Panic(words)) if left > 0 => eprintln!("once more, after\n{words}"),
                other => return other,
            }
        }
    }

    fn take_snapshot(&self, folder: &Path) -> Result<(), Error> {
        let run = run_folder()?;
        let fresh = folder.join("booted.new");
        if fresh.exists() {
            fs::remove_file(&fresh).map_err(Error::io("remove", &fresh))?;
        }
        let hardware = self.hardware(&self.disk, "raw");
        let onto = Start::BootOnto(&fresh);
        let (mut qemu, mut agent) = Qemu::start(&hardware, onto, Console::Nobody, run.path())?;
        qemu.succeeded(agent.wait(BOOTED))?;
        qemu.human(&format!("savevm {SNAPSHOT}"))?;
        qemu.quit()?;
        fs::rename(&fresh, &self.booted).map_err(Error::io("rename", &fresh))
    }
}

/// What makes a machine that has the node installed one where it runs.
const START: &str = "echo >/etc/blackhole/config.toml && systemctl start blackhole";

fn install_node(agent: &mut Agent, binary: &[u8], then: &str) -> Result<Answer, Error> {
    let uploaded = node::UPLOADED;
    let put = agent.put(uploaded, binary)?;
    if put.code != 0 {
        return Ok(put);
    }
    let install = format!("chmod 755 {uploaded} && {uploaded} install");
    agent.run(&format!("{}; {install} && {then} && sync", set_clock()))
}

fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    fs::copy(from, to).map(drop).map_err(Error::io("copy", from))
}

/// Held until it is dropped. The file is beside the folder.
fn lock(folder: &Path) -> Result<File, Error> {
    let lock = File::create(folder.with_extension("lock"));
    let locked = lock.and_then(|file| file.lock().map(|()| file));
    locked.map_err(Error::io("lock", folder))
}

/// Succeeds on a machine that has booted to its end, and says what keeps one from it.
pub const BOOTED: &str = "timeout 240 systemctl is-system-running --wait \
                          || { systemctl --failed; systemctl list-jobs; exit 1; }; \
                          udevadm settle; sync";

/// A folder for a machine's run, gone when it is dropped. Its path is short enough for sockets.
pub fn run_folder() -> Result<tempfile::TempDir, Error> {
    let runs = cache()?.join("run");
    make_folder(&runs)?;
    tempfile::Builder::new()
        .prefix("")
        .tempdir_in(&runs)
        .map_err(Error::io("make a folder in", &runs))
}

/// `BLACKHOLE_VM_CACHE`, or a folder in the user's cache.
fn cache() -> Result<PathBuf, Error> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let users = || set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
    let found = set("BLACKHOLE_VM_CACHE").or_else(|| Some(users()?.join("blackhole-vm")));
    found.ok_or_else(|| Error::Boot("neither HOME nor BLACKHOLE_VM_CACHE is set".to_owned()))
}

fn make_folder(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(Error::io("make", path))
}

/// The packages' own versions are not in it: delete the cache to have newer ones.
fn recipe(release: Release) -> u64 {
    hash(&(release.name(), PACKAGES, LEFT_OUT, GUEST))
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn build(release: Release, folder: &Path) -> Result<(), Error> {
    // Without root, mmdebstrap works as a user of a namespace, who must be able to write here.
    let stage = tempfile::tempdir().map_err(Error::io("make", &std::env::temp_dir()))?;
    let open = fs::Permissions::from_mode(0o777);
    fs::set_permissions(stage.path(), open).map_err(Error::io("open", stage.path()))?;
    for (name, content) in GUEST {
        let path = stage.path().join(name);
        fs::write(&path, content).map_err(Error::io("write", &path))?;
    }
    let (stage, mirror) = (stage.path(), mirror()?);
    let shown = stage.display();
    let mut command = Command::new("mmdebstrap");
    command.args(["--quiet", "--variant=minbase", &format!("--include={PACKAGES}")]);
    command.args(LEFT_OUT.map(|option| format!("--dpkgopt={option}")));
    command.args(proxies()?.iter().map(|option| format!("--aptopt={option}")));
    command.arg(format!("--customize-hook=sh {shown}/furnish.sh \"$1\" {shown} {shown}"));
    command.args([release.name(), "/dev/null", &format!("deb {mirror} {release} main")]);
    output(&mut command)?;
    // The disk last: where it is, the others are.
    for name in ["kernel", "initrd", "disk"] {
        let (from, fresh) = (stage.join(name), folder.join("new"));
        output(Command::new("cp").arg("--sparse=always").arg(&from).arg(&fresh))?;
        fs::rename(&fresh, folder.join(name)).map_err(Error::io("rename", &fresh))?;
    }
    Ok(())
}

/// Where this host's apt gets its own release from.
fn mirror() -> Result<String, Error> {
    let host = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let codename = host.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let format = ["indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"];
    let targets = output(Command::new("apt-get").args(format))?;
    let pairs = targets.lines().filter_map(|line| line.split_once(' '));
    let mut own = pairs.filter(|(_, release)| Some(*release) == codename).map(|(uri, _)| uri);
    let found = own.next().map(str::to_owned);
    found.ok_or_else(|| Error::Boot(format!("apt has no source of its own release\n{targets}")))
}

/// The host's proxies, as apt's options.
fn proxies() -> Result<Vec<String>, Error> {
    let dump =
        output(Command::new("apt-config").args(["dump", "--format", "%f \"%v\";%n", "Acquire"]))?;
    Ok(dump.lines().filter(|line| line.contains("::Proxy")).map(str::to_owned).collect())
}

fn output(command: &mut Command) -> Result<String, Error> {
    let program = command.get_program().display().to_string();
    let done = command.output().map_err(Error::io("run", Path::new(&program)))?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
        return Err(Error::Program { program, said });
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}
