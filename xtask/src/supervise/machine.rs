//! What the figures were measured on and with. Knows nothing of the figures.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Facts by name, in the order of the report.
pub fn facts(node: &Path, is_round_robin: bool) -> Vec<(&'static str, String)> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let field = |path: &str, name: &str| {
        let text = read(path);
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let class = if is_round_robin { "SCHED_RR 5 (chrt -r 5), everything" } else { "SCHED_OTHER" };
    let open_files = field_of_limits();
    vec![
        ("date", said("date", &["-u", "+%FT%TZ"])),
        ("processor", format!("{cores} cores, {}", field("/proc/cpuinfo", "model name"))),
        ("memory", field("/proc/meminfo", "MemTotal")),
        ("kernel", read("/proc/sys/kernel/osrelease")),
        ("system", format!("Debian {}", read("/etc/debian_version"))),
        ("scheduling class", class.to_owned()),
        ("open files (soft limit)", open_files),
        ("load average", read("/proc/loadavg")),
        ("ours", said(&node.display().to_string(), &["--version"])),
        ("commit", said("git", &["describe", "--always", "--dirty"])),
        ("runit", version("runit")),
        ("s6", version("s6")),
        ("execline", version("execline")),
        ("cc", said("cc", &["--version"])),
    ]
}

/// The first line of what a program says; what it is when it says nothing.
fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let text = text.unwrap_or_default();
    text.lines().next().unwrap_or("unknown").to_owned()
}

fn version(package: &str) -> String {
    said("dpkg-query", &["--show", "--showformat=${Version}", package])
}

fn field_of_limits() -> String {
    let text = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"));
    line.and_then(|line| line.split_whitespace().next()).unwrap_or("unknown").to_owned()
}

/// Whether others were busy: the load, and how much of all processors was used in half a second
/// in which the bench itself slept.
pub fn mood() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: Vec<&str> = load.split(' ').take(3).collect();
    let before = processor_ticks();
    std::thread::sleep(Duration::from_millis(500));
    let after = processor_ticks();
    let busy = after.0.saturating_sub(before.0) as f64;
    let all = after.1.saturating_sub(before.1).max(1) as f64;
    format!("load {}, others use {:.0} % of the processors", load.join(" "), 100.0 * busy / all)
}

/// Busy and all ticks of all processors since the boot.
fn processor_ticks() -> (u64, u64) {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields = text.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let ticks: Vec<u64> = fields.filter_map(|field| field.parse().ok()).collect();
    let all: u64 = ticks.iter().take(8).sum();
    // The fourth and fifth are idle and waiting for a disk.
    let idle: u64 = ticks.iter().skip(3).take(2).sum();
    (all.saturating_sub(idle), all)
}
