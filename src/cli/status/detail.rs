//! Everything about one instance, one fact a line.

use super::super::console::{Paint, printable, rfc3339};
use super::words::{colour, uptime};
use crate::rpc::pb::node::{InstanceStatus, Limit};
use crate::units::{ByteSize, human_duration};
use std::time::Duration;

/// Characters of a build ID that tell builds apart for the eye.
const BUILD_ID_SHOWN: usize = 12;

/// The text of `status NAME` for one instance, without its log lines. Facts that there is nothing
/// to say about are left out.
pub fn render(instance: &InstanceStatus, paint: Paint) -> String {
    let facts = [
        ("pid", process(instance)),
        ("uptime", up(instance)),
        ("restarts", instance.restarts.to_string()),
        ("memory", memory(instance)),
        ("cpu", running(instance, || format!("{:.1}%", instance.cpu_percent))),
        ("limits", limits(instance)),
        ("not enforced", not_enforced(instance)),
        ("limits reached", limits_reached(instance)),
        ("binary", binary(instance)),
        ("socket", printable(&instance.socket)),
        ("health", health(instance)),
        ("status", printable(&instance.status_text)),
        ("reason", printable(&instance.reason)),
        ("log lines dropped", dropped(instance)),
    ];
    let phase = paint.apply(colour(instance.known_phase()), &printable(&instance.phase));
    let mut text = format!("{}  {phase}\n", printable(&instance.instance));
    for (name, value) in facts.iter().filter(|(_, value)| !value.is_empty()) {
        text += &format!("{name:>19}: {value}\n");
    }
    text
}

fn running(instance: &InstanceStatus, text: impl FnOnce() -> String) -> String {
    if instance.pid == 0 { String::new() } else { text() }
}

fn process(instance: &InstanceStatus) -> String {
    running(instance, || {
        format!("{} (run {}, {} tasks)", instance.pid, instance.run, instance.tasks)
    })
}

fn up(instance: &InstanceStatus) -> String {
    let ready = Duration::try_from_secs_f64(instance.ready_seconds).unwrap_or_default();
    running(instance, || match uptime(instance.uptime_seconds) {
        up if ready.is_zero() => up,
        up => format!("{up} (ready after {})", human_duration(ready)),
    })
}

fn memory(instance: &InstanceStatus) -> String {
    let used = ByteSize(instance.memory_bytes);
    running(instance, || match instance.memory_limit_bytes {
        0 => format!("{used} (no limit)"),
        limit => format!("{used} of {}", ByteSize(limit)),
    })
}

/// The limits in force, and beside them the configured ones where they differ.
fn limits(instance: &InstanceStatus) -> String {
    let shown = |limit: &Limit| {
        let set = limit.set.as_deref().filter(|_| limit.matters || !limit.met)?;
        let set = format!("{} {}", limit.name, amount(limit, set));
        Some(if limit.met {
            set
        } else {
            format!("{set} (wanted {})", amount(limit, &limit.wanted))
        })
    };
    printable(&instance.limits.iter().filter_map(shown).collect::<Vec<_>>().join(", "))
}

fn not_enforced(instance: &InstanceStatus) -> String {
    let missing = instance.limits.iter().filter(|limit| limit.matters && limit.set.is_none());
    let each = missing.map(|limit| format!("{} {}", limit.name, amount(limit, &limit.wanted)));
    printable(&each.collect::<Vec<_>>().join(", "))
}

/// What happened since the node started.
fn limits_reached(instance: &InstanceStatus) -> String {
    let events = instance.limit_events.unwrap_or_default();
    let times = [
        ("OomKilled", events.oom_kills),
        ("memory.max", events.memory_max),
        ("memory.high", events.memory_high),
        ("pids.max", events.tasks_max),
    ];
    let mut all: Vec<String> = times
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(what, count)| format!("{what} {count} times"))
        .collect();
    let throttled = Duration::try_from_secs_f64(events.cpu_throttled_seconds).unwrap_or_default();
    if events.cpu_throttled_periods > 0 {
        let (periods, lost) = (events.cpu_throttled_periods, human_duration(throttled));
        all.push(format!("cpu.max in {periods} periods ({lost} lost)"));
    }
    all.join(", ")
}

/// Bytes as people write them; everything else as the kernel has it.
fn amount(limit: &Limit, text: &str) -> String {
    let bytes = limit.name.starts_with("memory.") && limit.name != "memory.oom.group";
    match text.parse() {
        Ok(size) if bytes => ByteSize(size).to_string(),
        Ok(_) | Err(_) => text.to_owned(),
    }
}

fn health(instance: &InstanceStatus) -> String {
    let health = printable(&instance.health);
    match instance.last_health_check_unix_us {
        0 => health,
        at => format!("{health}, checked at {}", rfc3339(at)),
    }
}

/// The version and the beginning of the build ID, and whether it is what the node runs.
fn binary(instance: &InstanceStatus) -> String {
    let Some(binary) = &instance.binary else { return String::new() };
    if binary.version.is_empty() {
        return "not known: it was started by an older version".to_owned();
    }
    let build: String = binary.build_id.chars().take(BUILD_ID_SHOWN).collect();
    let build = if build.is_empty() { build } else { format!(", build {build}") };
    let note = match binary.current {
        Some(true) => "",
        Some(false) => "; not that of the node, which a restart gives it",
        None => "; whether it is that of the node is not known",
    };
    printable(&format!("{}{build}{note}", binary.version))
}

fn dropped(instance: &InstanceStatus) -> String {
    match instance.log_lines_dropped {
        0 => String::new(),
        count => count.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{binary, failed, ready};
    use super::*;
    use crate::rpc::pb::node::Binary;

    #[test]
    fn a_running_instance_shows_every_fact() {
        let expected = "\
identity-0  ready
                pid: 1002 (run 7, 12 tasks)
             uptime: 24h 34m (ready after 42ms)
           restarts: 1
             memory: 245MiB of 512MiB
                cpu: 5.0%
             limits: memory.max 512MiB, cpu.max 50000 100000
       not enforced: pids.max 64
     limits reached: OomKilled 2 times, memory.max 7 times, cpu.max in 31 periods (1.5s lost)
             binary: 0.1.0, build c41d170e0bf2
             socket: /run/blackhole/identity-0.sock
             health: healthy, checked at 2024-01-15T10:30:00.000000Z
             status: serving
             reason: the run before ended with SIGKILL
  log lines dropped: 3
";
        assert_eq!(render(&ready("identity"), Paint::Plain), expected);
    }

    #[test]
    fn a_binary_that_is_not_the_nodes_own_is_told() {
        let of = |binary| super::binary(&InstanceStatus { binary, ..ready("identity") });
        let other = "0.1.0, build c41d170e0bf2; not that of the node, which a restart gives it";
        assert_eq!(of(Some(binary(Some(false)))), other);
        let unsure = "0.1.0; whether it is that of the node is not known";
        assert_eq!(of(Some(Binary { build_id: String::new(), ..binary(None) })), unsure);
        let unknown = "not known: it was started by an older version";
        assert_eq!(of(Some(Binary::default())), unknown);
        assert_eq!(of(None), "");
    }

    #[test]
    fn a_failed_instance_shows_only_what_there_is() {
        let expected = "\
ledger-0  \x1b[31mfailed\x1b[0m
           restarts: 5
             health: unknown
             reason: exit code 1\\n5 restarts in 1m
";
        assert_eq!(render(&failed("ledger"), Paint::Coloured), expected);
    }
}
