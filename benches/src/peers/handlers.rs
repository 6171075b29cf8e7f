//! The three servers of the article's handler.

use std::net::SocketAddr;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tokio::process::Command;

use super::{Programs, sluice};
use crate::ports;
use crate::process::Server;
use crate::processors::{Share, on};

/// One of the servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Handler {
    #[serde(rename = "Sluice")]
    Sluice,
    #[serde(rename = "grpc-go")]
    Go,
    #[serde(rename = "tonic")]
    Tonic,
}

impl Handler {
    pub(crate) const ALL: [Self; 3] = [Self::Sluice, Self::Go, Self::Tonic];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sluice => "Sluice",
            Self::Go => "grpc-go",
            Self::Tonic => "tonic",
        }
    }

    /// What the load generator speaks to it.
    pub(crate) fn protocol(self) -> &'static str {
        match self {
            Self::Sluice => "sluice",
            Self::Go | Self::Tonic => "article",
        }
    }

    /// Starts it on the processors that the load generator leaves.
    pub(crate) async fn start(
        self,
        programs: &Programs,
        folder: &Path,
    ) -> anyhow::Result<(Server, SocketAddr)> {
        std::fs::create_dir_all(folder)?;
        let (mut command, address) = match self {
            Self::Sluice => {
                let settings = sluice::Settings {
                    partitions: 16,
                    is_memory: true,
                };
                sluice::command(programs, folder, settings)?
            }
            Self::Go => listening(Command::new(&programs.grpc_go))?,
            Self::Tonic => {
                let mut command = Command::new(std::env::current_exe()?);
                command.arg("tonic-server");
                listening(command)?
            }
        };
        let log = folder.join("log");
        let mut server = on(Share::Server, || Server::start(self.name(), &mut command, &log))?;
        server.ready(address).await?;
        Ok((server, address))
    }
}

/// The same with a free address to listen at.
fn listening(mut command: Command) -> anyhow::Result<(Command, SocketAddr)> {
    let address = ports::free_address()?;
    command.arg(format!("--listen={address}"));
    Ok((command, address))
}
