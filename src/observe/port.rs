//! Readiness by a TCP port: something accepts connections on the loopback interface.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::news::Reporter;
use crate::decide::News;

/// The interval between two tries. The kernel tells nobody when a port opens.
const EVERY: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(1);

/// Tries until the port accepts a connection, reports that, and ends.
pub async fn wait_until_open(port: u16, reporter: Reporter) {
    let mut beat = interval(EVERY);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beat.tick().await;
        let attempt = TcpStream::connect((Ipv4Addr::LOCALHOST, port));
        if let Ok(Ok(_)) = timeout(PATIENCE, attempt).await {
            return reporter.report(News::PortOpen).await;
        }
    }
}
