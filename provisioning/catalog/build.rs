//! Compiles our subset of etcd's messages; no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let set = protox::compile(["proto/etcd.proto"], ["proto"])?;
    tonic_prost_build::configure().build_server(false).bytes(".").compile_fds(set)?;
    println!("cargo:rerun-if-changed=proto");
    Ok(())
}
