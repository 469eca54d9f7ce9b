//! Compiles `proto/` without protoc: protox parses, tonic-prost-build generates. Asks the linker for
//! a build ID.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    // `status` tells builds apart by it; not every linker writes one unasked.
    println!("cargo:rustc-link-arg-bins=-Wl,--build-id");
    let protos = protos_below(Path::new("proto"))?;
    let descriptors = protox::compile(&protos, ["proto"])?;
    let bytes = prost::Message::encode_to_vec(&descriptors);
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), bytes)?;
    tonic_prost_build::configure().btree_map(".").compile_fds(descriptors)?;
    Ok(())
}

fn protos_below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(protos_below(&path)?);
        } else if path.extension().is_some_and(|ending| ending == "proto") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
