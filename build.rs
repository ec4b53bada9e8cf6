//! Compiles `proto/` into the gRPC types and the descriptor set that reflection serves.
//!
//! In Rust alone (protox), so that no `protoc` is needed on the machine that builds. The descriptor set is
//! written from protox's own encoding, which keeps the comments and every option that the generator drops.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// The include root: imports are written relative to it.
const ROOT: &str = "proto";

/// The folder of the one package, below [`ROOT`].
const PACKAGE: &str = "proto/switchboard/v1";

/// The largest arm stays unboxed: callers match on it everywhere, and listeners are made one at a time.
const PLAIN_ONEOF: &str =
    r#"#[expect(clippy::large_enum_variant, reason = "listeners are made one at a time")]"#;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={ROOT}");
    let out =
        PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: run this through cargo")?);

    let mut compiler = protox::Compiler::new([ROOT])?;
    compiler
        .include_imports(true)
        .include_source_info(true)
        .open_files(protos(Path::new(PACKAGE))?)?;
    fs::write(
        out.join("switchboard.bin"),
        compiler.encode_file_descriptor_set(),
    )?;
    // Filters and printed calls find a message's descriptor by its name.
    let mut names = tonic_prost_build::Config::new();
    names.enable_type_names();
    tonic_prost_build::configure()
        .generate_default_stubs(true)
        // Of a map in no order the same request has many encodings, and a repeated one would seem to be another.
        .btree_map(".switchboard.v1")
        .type_attribute(".switchboard.v1.Listener.protocol", PLAIN_ONEOF)
        .compile_fds_with_config(compiler.file_descriptor_set(), names)?;
    Ok(())
}

/// The `.proto` files of a folder, in name order so that the generated code does not depend on the file system.
fn protos(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "proto")
        {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
