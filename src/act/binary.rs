//! Which binary of the node a process runs: the orchestrator's own, or that of a built-in service,
//! which goes on with an older one after an upgrade in place. A value only.

use crate::linux::build_id;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binary {
    pub version: String,
    /// What the linker wrote into the file, in hexadecimal: two builds of one version have
    /// different ones. `None`: the file has none or cannot be read.
    pub build_id: Option<String>,
}

impl Binary {
    /// The binary of this process.
    pub fn own() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            build_id: build_id::of_this_process(),
        }
    }

    /// Whether both are the same build. `None`: unknown, because one has no build ID.
    pub fn is_same(&self, other: &Self) -> Option<bool> {
        match (&self.build_id, &other.build_id) {
            (Some(one), Some(another)) => Some(one == another && self.version == other.version),
            (None, _) | (_, None) => (self.version != other.version).then_some(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_are_told_apart_where_both_have_an_id() {
        let binary = |version: &str, build_id: Option<&str>| Binary {
            version: version.to_owned(),
            build_id: build_id.map(str::to_owned),
        };
        let ours = binary("0.1.0", Some("aa"));
        assert_eq!(ours.is_same(&binary("0.1.0", Some("aa"))), Some(true));
        assert_eq!(ours.is_same(&binary("0.1.0", Some("bb"))), Some(false));
        assert_eq!(ours.is_same(&binary("0.2.0", Some("aa"))), Some(false));
        assert_eq!(ours.is_same(&binary("0.2.0", None)), Some(false));
        assert_eq!(ours.is_same(&binary("0.1.0", None)), None);
        assert_eq!(binary("0.1.0", None).is_same(&ours), None);
    }
}
