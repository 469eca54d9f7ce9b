//! The whole node at a glance: a head line, a table, and beneath it what is wrong.

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};

use super::super::console::{Paint, printable};
use super::words::{colour, colour_of_node, uptime};
use crate::rpc::pb::node::{Degradation, InstancePhase, InstanceStatus, NodeInfo, NodeStatus};
use crate::units::ByteSize;

const HEADER: [&str; 7] = ["SERVICE", "PHASE", "PID", "UPTIME", "RESTARTS", "MEMORY", "CPU"];

/// The text of `status`.
pub fn render(status: &NodeStatus, paint: Paint) -> String {
    let node = status.node.clone().unwrap_or_default();
    let mut text = head(&node, paint);
    if !status.instances.is_empty() {
        text += "\n";
        text += &table(&status.instances, paint);
    }
    text += &block(reasons(&status.instances));
    text += &block(notes(&node, status));
    text
}

fn head(node: &NodeInfo, paint: Paint) -> String {
    let mut parts = vec![
        format!("node {}", printable(&node.name)),
        paint.apply(colour_of_node(node.known_phase()), &printable(&node.phase)),
        printable(&node.version),
        format!("up {}", uptime(node.uptime_seconds)),
        format!("pid {}", node.pid),
        ByteSize(node.memory_bytes).to_string(),
    ];
    if !node.api.is_empty() {
        parts.push(printable(&node.api));
    }
    format!("{}\n", parts.join("  "))
}

fn table(instances: &[InstanceStatus], paint: Paint) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(HEADER);
    table.add_rows(instances.iter().map(row));
    for column in table.column_iter_mut() {
        let alignment = match column.index {
            0 | 1 => CellAlignment::Left,
            _ => CellAlignment::Right,
        };
        column.set_padding((0, 2)).set_cell_alignment(alignment);
    }
    let mut text = String::new();
    let phases = instances.iter().map(Some);
    for (line, instance) in table.lines().zip(std::iter::once(None).chain(phases)) {
        let painted = instance.map(|instance| painted(&line, instance, paint));
        text += painted.as_deref().unwrap_or(&line).trim_end();
        text += "\n";
    }
    text
}

fn row(instance: &InstanceStatus) -> [String; 7] {
    let running = |text: String| if instance.pid == 0 { "-".to_owned() } else { text };
    [
        printable(&instance.instance),
        printable(&instance.phase),
        running(instance.pid.to_string()),
        running(uptime(instance.uptime_seconds)),
        instance.restarts.to_string(),
        running(memory(instance)),
        running(format!("{:.1}%", instance.cpu_percent)),
    ]
}

/// `245MiB/512MiB`, or only what is used where there is no limit.
fn memory(instance: &InstanceStatus) -> String {
    let used = ByteSize(instance.memory_bytes);
    match instance.memory_limit_bytes {
        0 => used.to_string(),
        limit => format!("{used}/{}", ByteSize(limit)),
    }
}

/// Colours come after the table, which counts characters. The phase is the first word behind the
/// instance's name.
fn painted(line: &str, instance: &InstanceStatus, paint: Paint) -> String {
    let phase = printable(&instance.phase);
    let name = printable(&instance.instance);
    match line.strip_prefix(&name) {
        Some(rest) if !phase.is_empty() => {
            let coloured = paint.apply(colour(instance.known_phase()), &phase);
            format!("{name}{}", rest.replacen(&phase, &coloured, 1))
        }
        Some(_) | None => line.to_owned(),
    }
}

fn reasons(instances: &[InstanceStatus]) -> Vec<String> {
    let is_ready = |one: &InstanceStatus| one.known_phase() == Some(InstancePhase::Ready);
    let unready = instances.iter().filter(|one| !is_ready(one) && !one.reason.is_empty());
    unready.map(|one| format!("  {}: {}", one.instance, printable(&one.reason))).collect()
}

fn notes(node: &NodeInfo, status: &NodeStatus) -> Vec<String> {
    let without = |d: &Degradation| {
        printable(&format!("without {}: {}; instead {}", d.name, d.missing, d.instead))
    };
    let mut notes: Vec<String> = node.degradations.iter().map(without).collect();
    notes.extend(binaries(&status.instances));
    if !status.disabled.is_empty() {
        notes.push(format!("disabled: {}", status.disabled.join(", ")));
    }
    notes
}

/// Built-in services that run another binary than the node, or one that is not known.
fn binaries(instances: &[InstanceStatus]) -> Vec<String> {
    let those = |current: Option<bool>| {
        let is_so = |one: &&InstanceStatus| {
            one.binary.as_ref().is_some_and(|binary| binary.current == current)
        };
        let names = instances.iter().filter(is_so).map(|one| printable(&one.instance));
        names.collect::<Vec<_>>().join(", ")
    };
    let others = (those(Some(false)), "another binary than the node's");
    let lines = [others, (those(None), "unknown binary")].into_iter();
    let lines = lines.filter(|(names, _)| !names.is_empty());
    lines.map(|(names, what)| format!("{what}, until a restart: {names}")).collect()
}

/// Lines with an empty one before them, or nothing.
fn block(lines: Vec<String>) -> String {
    lines.iter().enumerate().fold(String::new(), |text, (index, line)| {
        let separator = if index == 0 { "\n" } else { "" };
        format!("{text}{separator}{line}\n")
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{binary, failed, ready, troubled};
    use super::*;

    #[test]
    fn a_troubled_node_reads_at_a_glance() {
        let expected = "\
node alpha  degraded  0.1.0  up 24h 35m  pid 4242  125MiB  http://127.0.0.1:8080

SERVICE     PHASE     PID   UPTIME  RESTARTS         MEMORY   CPU
identity-0  ready    1002  24h 34m         1  245MiB/512MiB  5.0%
storage-0   waiting     -        -         0              -     -
ledger-0    failed      -        -         5              -     -

  storage-0: waits for identity
  ledger-0: exit code 1\\n5 restarts in 1m

without cgroup limits: the memory controller is not delegated; instead rlimits hold
disabled: social, web
";
        assert_eq!(render(&troubled(), Paint::Plain), expected);
    }

    #[test]
    fn services_of_another_binary_are_named() {
        let of = |name, current| InstanceStatus { binary: Some(binary(current)), ..ready(name) };
        let all = [of("a", Some(true)), of("b", Some(false)), of("c", None), of("d", Some(false))];
        let expected = [
            "another binary than the node's, until a restart: b-0, d-0",
            "unknown binary, until a restart: c-0",
        ];
        assert_eq!(binaries(&all), expected);
        assert!(binaries(&[failed("e"), of("a", Some(true))]).is_empty());
    }

    #[test]
    fn colours_change_no_column() {
        let coloured = render(&troubled(), Paint::Coloured);
        assert!(coloured.contains("identity-0  \x1b[32mready\x1b[0m    1002"), "{coloured}");
        assert!(coloured.contains("storage-0   \x1b[33mwaiting\x1b[0m     -"), "{coloured}");
        assert!(coloured.contains("ledger-0    \x1b[31mfailed\x1b[0m      -"), "{coloured}");
        let plain = ["\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[0m"]
            .iter()
            .fold(coloured, |text, escape| text.replace(escape, ""));
        assert_eq!(plain, render(&troubled(), Paint::Plain));
    }

    #[test]
    fn a_service_named_like_a_phase_keeps_its_name() {
        let text = table(&[ready("ready")], Paint::Coloured);
        assert!(text.contains("ready-0  \x1b[32mready\x1b[0m"), "{text}");
    }

    #[test]
    fn the_table_fits_80_columns_at_common_sizes() {
        let busy = InstanceStatus {
            pid: 4_194_304,
            memory_bytes: 1_900_000_000,
            memory_limit_bytes: 2 << 30,
            cpu_percent: 100.0,
            ..ready("analytics")
        };
        for line in table(&[busy], Paint::Plain).lines() {
            assert!(line.len() <= 80, "{line}");
        }
    }

    #[test]
    fn a_node_without_services_is_one_line() {
        let status = NodeStatus { instances: vec![], disabled: vec![], ..troubled() };
        let mut node = status.node.clone().unwrap();
        node.degradations.clear();
        let status = NodeStatus { node: Some(node), ..status };
        assert_eq!(render(&status, Paint::Plain).lines().count(), 1);
    }
}
