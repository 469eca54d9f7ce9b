//! The code generated from `proto/`, one module a package, and its descriptors.

/// The serialized `FileDescriptorSet` of every proto of the project, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

macro_rules! package {
    ($module:ident, $package:literal) => {
        #[allow(
            clippy::all,
            clippy::pedantic,
            clippy::allow_attributes_without_reason,
            missing_debug_implementations,
            reason = "generated code"
        )]
        pub mod $module {
            tonic::include_proto!($package);
        }
    };
}

package!(node, "blackhole.node.v1");
package!(identity, "blackhole.identity.v1");
package!(storage, "blackhole.storage.v1");
package!(ledger, "blackhole.ledger.v1");
