//! Reads and shows the keys that only one built-in service has, as the catalog lists them. Knows
//! none of them by name.

use super::model::Sizes;
use super::section::Section;
use super::values::{or_none, size};
use crate::catalog::{Builtin, KeySection, SizeKey};

/// The keys of `builtin`, or of a foreign service, that stand in such a section.
pub(super) fn of(
    builtin: Option<Builtin>,
    section: KeySection,
) -> impl Iterator<Item = &'static SizeKey> {
    let keys = builtin.map_or(&[][..], |builtin| builtin.entry().keys);
    keys.iter().filter(move |key| key.section == section)
}

/// What the keys of `builtin` say in a section of this kind. Those of other services are refused.
pub(super) fn read(section: &mut Section<'_>, kind: KeySection, builtin: Option<Builtin>) -> Sizes {
    let mut sizes = Sizes::new();
    for key in of(builtin, kind) {
        let range = || size(key.least..=key.most);
        let said = match key.default {
            Some(default) => Some(section.or(key.key, default, range())),
            None => section.or(key.key, None, or_none(range())),
        };
        sizes.extend(said.map(|said| (key.key, said)));
    }
    for other in Builtin::ALL {
        for key in of(Some(other), kind) {
            if !of(builtin, kind).any(|own| own.key == key.key) {
                let what = format!("only services.{} has this key", other.entry().name);
                section.forbid(key.key, &what);
            }
        }
    }
    sizes
}

/// Whether what each is to hold fits into it; `section` is that of the service.
pub(super) fn check(section: &Section<'_>, builtin: Builtin, sizes: &Sizes) {
    for key in builtin.entry().keys {
        let Some(held) = key.holds else { continue };
        if let (Some(size), Some(one)) = (sizes.get(key.key), sizes.get(held.key))
            && size < one
        {
            let place = |key: &SizeKey| match key.section {
                KeySection::Service => key.key.to_owned(),
                KeySection::Resources => format!("resources.{}", key.key),
            };
            let what = format!("{} is less than one of {} ({one})", place(key), place(held));
            let keys = [key, held].map(|key| match key.section {
                KeySection::Service => key.key,
                KeySection::Resources => "resources",
            });
            section.clash(keys, what, &format!("at least {}", place(held)));
        }
    }
}
