//! A network between clients and broker that can be slow, stand still, swallow answers and break.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// What the network does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    Fair,
    /// Everything takes so much longer, each way.
    Slow(Duration),
    /// Nothing gets through, for now.
    Still,
    /// Requests get through, and answers are gone for good: such connections have to be cut before it is fair again.
    Deaf,
}

/// The network.
pub struct Proxy {
    pub address: SocketAddr,
    weather: watch::Sender<Weather>,
    connections: Arc<Mutex<Vec<CancellationToken>>>,
    /// Connections so far.
    pub opened: Arc<AtomicU64>,
    _accept: AbortOnDropHandle<()>,
}

impl Proxy {
    /// In front of a broker.
    pub async fn start(broker: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (weather, seen) = watch::channel(Weather::Fair);
        let connections: Arc<Mutex<Vec<CancellationToken>>> = Arc::default();
        let opened: Arc<AtomicU64> = Arc::default();
        let accept = {
            let (connections, opened) = (Arc::clone(&connections), Arc::clone(&opened));
            async move {
                loop {
                    let Ok((client, _)) = listener.accept().await else {
                        continue;
                    };
                    opened.fetch_add(1, Ordering::Relaxed);
                    let cut = CancellationToken::new();
                    {
                        let mut connections = connections.lock();
                        connections.retain(|cut| !cut.is_cancelled());
                        connections.push(cut.clone());
                    }
                    tokio::spawn(carry(client, broker, seen.clone(), cut));
                }
            }
        };
        Self {
            address,
            weather,
            connections,
            opened,
            _accept: AbortOnDropHandle::new(tokio::spawn(accept)),
        }
    }

    pub fn weather(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// Breaks every connection for which `is_cut` says so.
    pub fn cut(&self, mut is_cut: impl FnMut() -> bool) {
        for connection in self.connections.lock().iter() {
            if is_cut() {
                connection.cancel();
            }
        }
    }
}

async fn carry(
    client: TcpStream,
    broker: SocketAddr,
    weather: watch::Receiver<Weather>,
    cut: CancellationToken,
) {
    let _gone = cut.clone().drop_guard();
    let Ok(broker) = TcpStream::connect(broker).await else {
        return;
    };
    // A cut connection is reset: what is on its way is gone.
    for stream in [&client, &broker] {
        _ = stream.set_zero_linger();
        _ = stream.set_nodelay(true);
    }
    let (client_in, client_out) = client.into_split();
    let (broker_in, broker_out) = broker.into_split();
    let requests = pass(client_in, broker_out, weather.clone(), false);
    let answers = pass(broker_in, client_out, weather, true);
    tokio::select! {
        () = requests => {}
        () = answers => {}
        () = cut.cancelled() => {}
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut weather: watch::Receiver<Weather>,
    answers: bool,
) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(read) => read,
        };
        let now = *weather.borrow_and_update();
        match now {
            Weather::Fair => {}
            Weather::Slow(by) => tokio::time::sleep(by).await,
            Weather::Still => {
                if weather
                    .wait_for(|weather| *weather != Weather::Still)
                    .await
                    .is_err()
                {
                    return;
                }
            }
            Weather::Deaf if answers => continue,
            Weather::Deaf => {}
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
