//! Reads `[services.NAME.resources]`: what a service may use, and what of it the kernel protects.

use super::model::{OomKill, Resources, Sizes};
use super::own_keys;
use super::section::Section;
use super::values::{MAX_SIZE, cores, flag, or_none, size, whole};
use crate::catalog::{Builtin, KeySection};
use crate::units::ByteSize;

/// PID_MAX_LIMIT of 64-bit Linux.
const MAX_TASKS: u64 = 1 << 22;
/// A century, beyond which a limit of processor time is a slip.
const MAX_CPU_SECONDS: u64 = 100 * 365 * 86_400;
/// The kernel's own bound of `fs.nr_open` is near this.
const MAX_FILES: u64 = 1 << 30;

/// The limits, and what the keys say that only `builtin` has.
pub(super) fn read(
    mut section: Section<'_>,
    default: Resources,
    builtin: Option<Builtin>,
) -> (Resources, Sizes) {
    let core = or_none(size(ByteSize(0)..=MAX_SIZE));
    let stack = or_none(size(ByteSize::kib(128)..=ByteSize::gib(1024)));
    let memory = or_none(size(ByteSize::mib(1)..=MAX_SIZE));
    let some_memory = || or_none(size(ByteSize(0)..=MAX_SIZE));
    let weight = || whole(1..=10_000);
    let file = or_none(size(ByteSize::kib(4)..=MAX_SIZE));
    let cpu_seconds = whole(1..=MAX_CPU_SECONDS);
    let read = Resources {
        memory: section.or("memory", default.memory, memory),
        memory_high: section.or("memory_high", default.memory_high, some_memory()),
        memory_low: section.or("memory_low", default.memory_low, some_memory()),
        memory_min: section.or("memory_min", default.memory_min, some_memory()),
        memory_swap: section.or("memory_swap", default.memory_swap, some_memory()),
        oom_kill: match section.or("oom_group", default.oom_kill == OomKill::Service, flag()) {
            true => OomKill::Service,
            false => OomKill::Process,
        },
        cpu_seconds: section.or("cpu_seconds", default.cpu_seconds, or_none(cpu_seconds)),
        cpu_cores: section.or("cpu_cores", default.cpu_cores, or_none(cores())),
        cpu_weight: section.get("cpu_weight", weight()).or(default.cpu_weight),
        io_weight: section.get("io_weight", weight()).or(default.io_weight),
        max_tasks: section.or("max_tasks", default.max_tasks, or_none(whole(1..=MAX_TASKS))),
        max_files: section.or("max_files", default.max_files, or_none(whole(16..=MAX_FILES))),
        max_core: section.or("max_core", default.max_core, core),
        max_file_size: section.or("max_file_size", default.max_file_size, file),
        max_stack: section.or("max_stack", default.max_stack, stack),
    };
    memory_in_order(&section, &read);
    if read.cpu_seconds.is_some() {
        let what = match builtin {
            Some(_) => {
                "a process that has used so much processor time finishes what it is doing, \
                        ends, and is started again; the limit starts anew with it"
            }
            None => {
                "a process that has used so much processor time is sent SIGXCPU, of which it \
                     dies unless it catches it, and is started again"
            }
        };
        section.remark("cpu_seconds", what);
    }
    let sizes = own_keys::read(&mut section, KeySection::Resources, builtin);
    section.finish();
    (read, sizes)
}

/// What is protected is within what the service is slowed down at, and that within its limit.
fn memory_in_order(section: &Section<'_>, read: &Resources) {
    let all = [
        ("memory_min", read.memory_min),
        ("memory_low", read.memory_low),
        ("memory_high", read.memory_high),
        ("memory", read.memory),
    ];
    let said: Vec<_> = all.into_iter().filter_map(|(key, size)| Some((key, size?))).collect();
    for pair in said.windows(2) {
        if let [(less, small), (more, large)] = pair
            && small > large
        {
            let what = format!("{less} ({small}) is more than {more} ({large})");
            let allowed = "memory_min <= memory_low <= memory_high <= memory";
            section.clash([less, more], what, allowed);
        }
    }
}
