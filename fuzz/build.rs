//! The wire types of `proto/sluice/v1`, without clients and servers.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = "../proto";
    println!("cargo:rerun-if-changed={directory}");
    let descriptors = protox::compile(["sluice/v1/broker.proto", "sluice/v1/control.proto"], [directory])?;
    prost_build::Config::new()
        .bytes([".sluice.v1"])
        .compile_fds(descriptors)?;
    Ok(())
}
