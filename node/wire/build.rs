//! Compiles the protobufs; no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    const FILES: [&str; 3] = ["proto/shards.proto", "proto/index.proto", "proto/controller.proto"];
    let set = protox::compile(FILES, ["proto"])?;
    // Payloads are handed on as slices of what was received.
    let secret = ["AccessKey", "KeysUpdate", "KeyList", "JoinRequest", "Token", "TokenList"]
        .map(|name| format!("holdfast.controller.v1.{name}"));
    // What carries a secret has no Debug of its own making: see src/controller.rs.
    tonic_prost_build::configure().bytes(".").skip_debug(&secret[..]).compile_fds(set)?;
    println!("cargo:rerun-if-changed=proto");
    Ok(())
}
