//! Compiles `proto/` without protoc, and keeps the descriptor set for server reflection.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let protos = ["sluice/v1/broker.proto", "sluice/v1/control.proto"];
    for proto in protos {
        println!("cargo:rerun-if-changed=proto/{proto}");
    }
    let descriptors = protox::compile(protos, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("sluice.v1.bin"), descriptors_bytes(&descriptors))?;
    tonic_prost_build::configure()
        .bytes(".sluice.v1")
        .codec_path("crate::codec::LeanCodec")
        .compile_fds(descriptors)?;
    Ok(())
}

fn descriptors_bytes(descriptors: &protox::prost_reflect::prost_types::FileDescriptorSet) -> Vec<u8> {
    use protox::prost_reflect::prost::Message as _;
    descriptors.encode_to_vec()
}
