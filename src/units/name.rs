//! Names of services and of their instances.

use std::fmt;
use std::str::FromStr;

/// The longest service name, in bytes. With `-255` behind it an instance's socket name stays far
/// below the 107 bytes that `sockaddr_un` holds.
pub const NAME_MAX: usize = 48;

/// Names that mean something else in the node's folders and groups.
pub const RESERVED: [&str; 6] =
    ["node", "orchestrator", "supervisor", "services", "all", "control"];

/// Why a text is not a service name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("a service name may not be empty")]
    Empty,
    #[error("a service name has at most {NAME_MAX} bytes, this one has {0}")]
    TooLong(usize),
    #[error("a service name begins with a lower-case letter, not with {0:?}")]
    Start(char),
    #[error("a service name has lower-case letters, digits and single inner '-' only, not {0:?}")]
    Character(char),
    #[error("a service name may not end with '-' and a number: that is how instances are named")]
    LooksLikeInstance,
    #[error("{0:?} is reserved")]
    Reserved(String),
    #[error("an instance is named SERVICE-NUMBER, such as storage-0")]
    NotAnInstance,
}

/// The name of a service: `[a-z][a-z0-9]*(-[a-z0-9]+)*`, at most 48 bytes, not reserved.
///
/// It is used as a file name, as a cgroup name and in log fields; nothing in it needs escaping.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(Box<str>);

impl ServiceName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ServiceName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let first = text.chars().next().ok_or(NameError::Empty)?;
        if text.len() > NAME_MAX {
            return Err(NameError::TooLong(text.len()));
        }
        if !first.is_ascii_lowercase() {
            return Err(NameError::Start(first));
        }
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if let Some(wrong) = text.chars().find(|c| !allowed(*c)) {
            return Err(NameError::Character(wrong));
        }
        let last = text.rsplit('-').next().unwrap_or_default();
        if last.is_empty() || text.contains("--") {
            return Err(NameError::Character('-'));
        }
        if text.contains('-') && last.bytes().all(|b| b.is_ascii_digit()) {
            return Err(NameError::LooksLikeInstance);
        }
        if RESERVED.contains(&text) {
            return Err(NameError::Reserved(text.to_owned()));
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for ServiceName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<ServiceName> for String {
    fn from(name: ServiceName) -> Self {
        name.0.into()
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One of the equal processes of a service: `storage-0`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId {
    pub service: ServiceName,
    pub index: u16,
}

impl InstanceId {
    pub fn new(service: ServiceName, index: u16) -> Self {
        Self { service, index }
    }
}

impl FromStr for InstanceId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (service, index) = text.rsplit_once('-').ok_or(NameError::NotAnInstance)?;
        let canonical = index == "0" || !index.starts_with(['0', '+']);
        let index = index.parse().map_err(|_| NameError::NotAnInstance)?;
        if !canonical {
            return Err(NameError::NotAnInstance);
        }
        Ok(Self { service: service.parse()?, index })
    }
}

impl TryFrom<String> for InstanceId {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<InstanceId> for String {
    fn from(id: InstanceId) -> Self {
        id.to_string()
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}-{}", self.service, self.index))
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.service, self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_safe_as_files_groups_and_fields_are_taken() {
        for text in ["storage", "a", "web2", "my-web-app", "x1-y2z"] {
            assert_eq!(text.parse::<ServiceName>().map(|n| n.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn every_unsafe_name_is_refused_for_its_own_reason() {
        let refused = |text: &str| text.parse::<ServiceName>().unwrap_err();
        assert_eq!(refused(""), NameError::Empty);
        assert_eq!(refused(&"a".repeat(300)), NameError::TooLong(300));
        assert_eq!(refused("../x"), NameError::Start('.'));
        assert_eq!(refused(".control"), NameError::Start('.'));
        assert_eq!(refused("memory.max"), NameError::Character('.'));
        assert_eq!(refused("cgroup.procs"), NameError::Character('.'));
        assert_eq!(refused("übel"), NameError::Start('ü'));
        assert_eq!(refused("a--b"), NameError::Character('-'));
        assert_eq!(refused("a-"), NameError::Character('-'));
        assert_eq!(refused("storage-0"), NameError::LooksLikeInstance);
        assert_eq!(refused("supervisor"), NameError::Reserved("supervisor".to_owned()));
    }

    #[test]
    fn an_instance_has_exactly_one_spelling() {
        let id: InstanceId = "my-web-12".parse().unwrap();
        assert_eq!((id.service.as_str(), id.index), ("my-web", 12));
        assert_eq!(id.to_string(), "my-web-12");
        for wrong in ["storage", "storage-", "storage-01", "storage-+1", "storage-70000", "-0"] {
            assert!(wrong.parse::<InstanceId>().is_err(), "{wrong}");
        }
    }
}
