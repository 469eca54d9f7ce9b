//! Server reflection, v1 and v1alpha, of exactly the services that are served beside it.

use tonic::service::Routes;
use tonic_reflection::pb::{v1, v1alpha};
use tonic_reflection::server::{Builder, Error};

use super::pb;

/// What every process serves beside its own services.
const STANDARD: [&str; 3] = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];

/// Adds both reflection versions to `routes`. They list `services` (fully qualified), health and
/// reflection itself.
pub fn with_reflection(routes: Routes, services: &[&str]) -> Result<Routes, Error> {
    let described = || {
        let files = Builder::configure()
            .include_reflection_service(false)
            .register_encoded_file_descriptor_set(pb::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(v1::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(v1alpha::FILE_DESCRIPTOR_SET);
        STANDARD.iter().chain(services).fold(files, |files, name| files.with_service_name(*name))
    };
    let (newest, alpha) = (described().build_v1()?, described().build_v1alpha()?);
    Ok(routes.add_service(newest).add_service(alpha))
}
