//! The article's protocol.
#![allow(missing_docs, unreachable_pub, clippy::all)]

tonic::include_proto!("article.v1");
