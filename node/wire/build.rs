//! Compiles the protobufs; no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    const FILES: [&str; 3] = ["proto/shards.proto", "proto/index.proto", "proto/controller.proto"];
    let set = protox::compile(FILES, ["proto"])?;
    // Payloads are handed on as slices of what was received.
    tonic_prost_build::configure().bytes(".").compile_fds(set)?;
    println!("cargo:rerun-if-changed=proto");
    Ok(())
}
