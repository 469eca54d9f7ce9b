//! What the kernel is to enforce on the processes of one instance, as cgroup v2 has it.
//! Source: Documentation/admin-guide/cgroup-v2.rst of the kernel.

use crate::config::{OomKill, Resources};
use crate::units::{ByteSize, CpuShare};

/// The period over which `cpu.max` is kept, in microseconds: the kernel's default.
const CPU_PERIOD_US: u64 = 100_000;
/// Linux has no larger pages on the machines we run on; memory is limited in whole ones.
const LARGEST_PAGE: u64 = 64 << 10;
/// The weights of whoever was given none.
const IO_WEIGHT: u16 = 100;
const CPU_WEIGHT: u16 = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupLimits {
    pub memory: Option<ByteSize>,
    pub memory_high: Option<ByteSize>,
    pub memory_low: Option<ByteSize>,
    pub memory_min: Option<ByteSize>,
    pub memory_swap: Option<ByteSize>,
    pub oom_kill: OomKill,
    pub cpu: Option<CpuShare>,
    pub cpu_weight: u16,
    pub tasks: Option<u64>,
    pub io_weight: Option<u16>,
}

/// The limits of one instance by who says them. What a layer says stands over the layers before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LimitLayers {
    /// The configuration file, its defaults with it.
    pub file: GroupLimits,
    /// `set-limits`, until the file says something else.
    pub operator: LimitLayer,
}

/// What a layer says; none: nothing, the layers before it hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LimitLayer {
    pub memory: Option<Option<ByteSize>>,
    pub memory_high: Option<Option<ByteSize>>,
    pub memory_low: Option<Option<ByteSize>>,
    pub memory_min: Option<Option<ByteSize>>,
    pub memory_swap: Option<Option<ByteSize>>,
    pub oom_kill: Option<OomKill>,
    pub cpu: Option<Option<CpuShare>>,
    pub cpu_weight: Option<u16>,
    pub tasks: Option<Option<u64>>,
    pub io_weight: Option<Option<u16>>,
}

impl LimitLayers {
    /// `in_force` is what the file and the operator say together.
    pub(super) fn new(file: GroupLimits, in_force: GroupLimits) -> Self {
        Self { file, operator: LimitLayer::between(&file, &in_force) }
    }

    /// What the kernel is to enforce.
    pub fn in_force(&self) -> GroupLimits {
        self.operator.over(&self.file)
    }
}

impl LimitLayer {
    fn between(below: &GroupLimits, above: &GroupLimits) -> Self {
        fn changed<T: PartialEq>(below: T, above: T) -> Option<T> {
            (below != above).then_some(above)
        }
        Self {
            memory: changed(below.memory, above.memory),
            memory_high: changed(below.memory_high, above.memory_high),
            memory_low: changed(below.memory_low, above.memory_low),
            memory_min: changed(below.memory_min, above.memory_min),
            memory_swap: changed(below.memory_swap, above.memory_swap),
            oom_kill: changed(below.oom_kill, above.oom_kill),
            cpu: changed(below.cpu, above.cpu),
            cpu_weight: changed(below.cpu_weight, above.cpu_weight),
            tasks: changed(below.tasks, above.tasks),
            io_weight: changed(below.io_weight, above.io_weight),
        }
    }

    fn over(&self, below: &GroupLimits) -> GroupLimits {
        GroupLimits {
            memory: self.memory.unwrap_or(below.memory),
            memory_high: self.memory_high.unwrap_or(below.memory_high),
            memory_low: self.memory_low.unwrap_or(below.memory_low),
            memory_min: self.memory_min.unwrap_or(below.memory_min),
            memory_swap: self.memory_swap.unwrap_or(below.memory_swap),
            oom_kill: self.oom_kill.unwrap_or(below.oom_kill),
            cpu: self.cpu.unwrap_or(below.cpu),
            cpu_weight: self.cpu_weight.unwrap_or(below.cpu_weight),
            tasks: self.tasks.unwrap_or(below.tasks),
            io_weight: self.io_weight.unwrap_or(below.io_weight),
        }
    }
}

impl Default for GroupLimits {
    fn default() -> Self {
        Self::of(&Resources::default(), CPU_WEIGHT)
    }
}

/// An interface file of a group and what belongs into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupLimit {
    pub file: &'static str,
    pub value: String,
    /// Whether it holds anything back or keeps anything safe; "max" of a limit does not.
    pub matters: bool,
}

impl GroupLimits {
    pub(super) fn of(resources: &Resources, tier_weight: u16) -> Self {
        Self {
            memory: resources.memory,
            memory_high: resources.memory_high,
            memory_low: resources.memory_low,
            memory_min: resources.memory_min,
            memory_swap: resources.memory_swap,
            oom_kill: resources.oom_kill,
            cpu: resources.cpu_cores,
            cpu_weight: resources.cpu_weight.unwrap_or(tier_weight),
            tasks: resources.max_tasks,
            io_weight: resources.io_weight,
        }
    }

    /// All that is written into a group, those too that lift what may have been written before.
    pub fn files(&self) -> Vec<GroupLimit> {
        let limit = |file, limit: Option<u64>| GroupLimit {
            file,
            value: limit.map_or_else(|| "max".to_owned(), |limit| limit.to_string()),
            matters: limit.is_some(),
        };
        let bytes = |size: Option<ByteSize>| size.map(|size| size.0);
        let safe = |file, size: Option<ByteSize>| GroupLimit {
            file,
            value: size.map_or(0, |size| size.0).to_string(),
            matters: size.is_some_and(|size| size.0 > 0),
        };
        let whole = self.oom_kill == OomKill::Service;
        let cpu = self.cpu.map_or_else(|| "max".to_owned(), |cpu| quota(cpu).to_string());
        let io = self.io_weight.unwrap_or(IO_WEIGHT);
        vec![
            limit("memory.max", bytes(self.memory)),
            limit("memory.high", bytes(self.memory_high)),
            safe("memory.low", self.memory_low),
            safe("memory.min", self.memory_min),
            limit("memory.swap.max", bytes(self.memory_swap)),
            GroupLimit {
                file: "memory.oom.group",
                value: u8::from(whole).to_string(),
                matters: self.memory.is_some() && whole,
            },
            GroupLimit {
                file: "cpu.max",
                value: format!("{cpu} {CPU_PERIOD_US}"),
                matters: self.cpu.is_some(),
            },
            GroupLimit { file: "cpu.weight", value: self.cpu_weight.to_string(), matters: true },
            limit("pids.max", self.tasks),
            GroupLimit {
                file: "io.weight",
                value: format!("default {io}"),
                matters: self.io_weight.is_some(),
            },
        ]
    }
}

/// Microseconds of processor time in each period.
fn quota(cpu: CpuShare) -> u64 {
    u64::from(cpu.millis()) * CPU_PERIOD_US / 1000
}

impl GroupLimit {
    /// Whether what the kernel shows is what was wanted. It rounds memory down to whole pages, and
    /// shows the weights of single disks behind the first line.
    pub fn is_met_by(&self, shown: &str) -> bool {
        let shown = shown.lines().next().unwrap_or_default().trim();
        let number = |text: &str| text.parse::<u64>().ok();
        match (number(&self.value), number(shown)) {
            (Some(wanted), Some(set)) if self.is_memory() => {
                set <= wanted && wanted - set < LARGEST_PAGE
            }
            _ => self.value == shown,
        }
    }

    fn is_memory(&self) -> bool {
        self.file.starts_with("memory.") && self.file != "memory.oom.group"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(resources: Resources) -> Vec<(&'static str, String)> {
        let all = GroupLimits::of(&resources, 200).files();
        all.into_iter().map(|limit| (limit.file, limit.value)).collect()
    }

    #[test]
    fn what_is_not_limited_is_lifted() {
        let expected = [
            ("memory.max", "max"),
            ("memory.high", "max"),
            ("memory.low", "0"),
            ("memory.min", "0"),
            ("memory.swap.max", "max"),
            ("memory.oom.group", "1"),
            ("cpu.max", "max 100000"),
            ("cpu.weight", "200"),
            ("pids.max", "max"),
            ("io.weight", "default 100"),
        ];
        assert_eq!(files(Resources::default()), expected.map(|(f, v)| (f, v.to_owned())));
    }

    #[test]
    fn each_limit_is_written_as_the_kernel_reads_it() {
        let resources = Resources {
            memory: Some(ByteSize::mib(64)),
            memory_high: Some(ByteSize::mib(48)),
            memory_low: Some(ByteSize::mib(32)),
            memory_min: Some(ByteSize::mib(16)),
            memory_swap: Some(ByteSize(0)),
            oom_kill: OomKill::Process,
            cpu_cores: Some("0.25".parse().unwrap()),
            cpu_weight: Some(7),
            io_weight: Some(9),
            max_tasks: Some(64),
            ..Resources::default()
        };
        let expected = [
            ("memory.max", "67108864"),
            ("memory.high", "50331648"),
            ("memory.low", "33554432"),
            ("memory.min", "16777216"),
            ("memory.swap.max", "0"),
            ("memory.oom.group", "0"),
            ("cpu.max", "25000 100000"),
            ("cpu.weight", "7"),
            ("pids.max", "64"),
            ("io.weight", "default 9"),
        ];
        assert_eq!(files(resources), expected.map(|(f, v)| (f, v.to_owned())));
    }

    #[test]
    fn whole_pages_are_what_was_wanted_and_other_numbers_are_not() {
        let limit = |file, value: &str| GroupLimit { file, value: value.to_owned(), matters: true };
        let memory = limit("memory.max", "1000000");
        assert!(memory.is_met_by("999424\n") && memory.is_met_by("1000000"));
        assert!(
            !memory.is_met_by("max\n") && !memory.is_met_by("1004096") && !memory.is_met_by("4096")
        );
        assert!(!memory.is_met_by(""));
        assert!(limit("pids.max", "64").is_met_by("64\n"));
        assert!(!limit("pids.max", "64").is_met_by("63\n"));
        assert!(!limit("memory.oom.group", "1").is_met_by("0"));
        assert!(limit("io.weight", "default 9").is_met_by("default 9\n254:0 50\n"));
    }
}
