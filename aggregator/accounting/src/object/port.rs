//! Host ports: ports of the node that a pod takes. No two pods on one node can have the same port.
use std::fmt;

use serde::Deserialize;
use serde_json::Value;

use super::meta::nullable;

/// The address that stands for all addresses of the node.
const EVERY_ADDRESS: &str = "0.0.0.0";
/// The default protocol.
const TCP: &str = "TCP";

/// A port on the node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    port: u16,
    protocol: Box<str>,
    address: Box<str>,
}

impl HostPort {
    /// Whether two pods with these ports cannot run on the same node.
    ///
    /// Source: kubernetes `pkg/scheduler/framework/types.go`, `HostPortInfo.CheckConflict`.
    pub fn conflicts(&self, other: &Self) -> bool {
        let any = |port: &Self| *port.address == *EVERY_ADDRESS;
        self.port == other.port
            && self.protocol == other.protocol
            && (self.address == other.address || any(self) || any(other))
    }
}

/// Formats it as `8080/TCP`, with the address if it is not every address.
impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self.address != *EVERY_ADDRESS {
            write!(f, "{}:", self.address)?;
        }
        write!(f, "{}/{}", self.port, self.protocol)
    }
}

/// One of a container's `ports`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct RawPort {
    #[serde(deserialize_with = "nullable")]
    container_port: Value,
    #[serde(deserialize_with = "nullable")]
    host_port: Value,
    #[serde(deserialize_with = "nullable")]
    protocol: String,
    #[serde(rename = "hostIP", deserialize_with = "nullable")]
    host_ip: String,
}

impl RawPort {
    /// The port on the node; `None` if it takes none. With the host's network, a container port is a host port.
    pub(super) fn on_host(&self, host_network: bool) -> Option<HostPort> {
        let number = |value: &Value| value.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
        let inherited = || number(&self.container_port).filter(|_| host_network);
        let or = |text: &str, default: &str| if text.is_empty() { default.into() } else { text.into() };
        Some(HostPort {
            port: number(&self.host_port).or_else(inherited)?,
            protocol: or(&self.protocol, TCP),
            address: or(&self.host_ip, EVERY_ADDRESS),
        })
    }
}
