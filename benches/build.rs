//! Compiles the article's protocol without protoc, as tonic's users do: with the default codec.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/article.proto");
    let descriptors = protox::compile(["article.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".article.v1.Payload")
        .compile_fds(descriptors)?;
    Ok(())
}
