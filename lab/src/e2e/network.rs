//! Replaces kube-proxy and the cluster's DNS as far as the pods need them: the API server at its Service's address, and
//! the names of headless Services. Also writes the targets of Prometheus, because Debian's is built without Kubernetes
//! discovery.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use xtask::workspace;

use super::base::NAMESPACE;
use super::kubectl::{get, items};

/// The Service `kubernetes` of the node's kit, which is in the API server's certificate.
pub(super) const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// Where the kit's API server listens.
pub(super) const API_SERVER: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 16443);
/// How often endpoints and pods are read.
const EVERY: Duration = Duration::from_secs(2);

/// Addresses by the Service's name, as last read.
type Names = Arc<Mutex<BTreeMap<String, Vec<Ipv4Addr>>>>;

/// Lets pods of this node reach addresses outside their own network. Must be called before there are pods.
pub(super) fn route(node: &Path) -> Result<()> {
    let path = node.join("cni/10-net.conflist");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let routed = text.replace("\"isGateway\":true,", "\"isGateway\":true,\"isDefaultGateway\":true,");
    ensure!(routed != text, "{} has no gateway", path.display());
    std::fs::write(&path, routed).with_context(|| format!("cannot write {}", path.display()))?;
    workspace::run(Command::new("ip").args(["addr", "add", &format!("{SERVICE}/32"), "dev", "lo"]))
}

/// Serves both until the process ends, and updates the target files in `targets`.
pub(super) fn serve(targets: PathBuf) -> Result<()> {
    let listener = TcpListener::bind((SERVICE, 443)).context("cannot listen at the Service's address")?;
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            // If the server is stopped, the connection is refused, as with kube-proxy.
            if let Ok(server) = TcpStream::connect(API_SERVER) {
                join(client, server);
            }
        }
    });
    let names = Names::default();
    let socket = UdpSocket::bind((SERVICE, 53)).context("cannot serve names")?;
    let known = Arc::clone(&names);
    std::thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut question) {
            let names = known.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(answer) = answer(&question[..length], &names) {
                let _unreachable = socket.send_to(&answer, from);
            }
        }
    });
    std::thread::spawn(move || {
        loop {
            // While the API server is stopped, the last state is kept.
            if let Err(error) = look(&names, &targets) {
                let _full_disk = std::fs::write(targets.join("error.log"), format!("{error:#}\n"));
            }
            std::thread::sleep(EVERY);
        }
    });
    Ok(())
}

/// Joins two connections until either ends.
fn join(client: TcpStream, server: TcpStream) {
    let (Ok(client_too), Ok(server_too)) = (client.try_clone(), server.try_clone()) else { return };
    for (mut from, mut to) in [(client, server), (server_too, client_too)] {
        std::thread::spawn(move || {
            let mut bytes = [0; 16384];
            while let Ok(length @ 1..) = from.read(&mut bytes) {
                if to.write_all(&bytes[..length]).is_err() {
                    break;
                }
            }
            let _gone = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
        });
    }
}

/// The response to a query for IPv4 addresses (RFC 1035); for other types, that there is none.
fn answer(question: &[u8], names: &BTreeMap<String, Vec<Ipv4Addr>>) -> Option<Vec<u8>> {
    let mut labels = Vec::new();
    let mut at = 12;
    while *question.get(at)? != 0 {
        let end = at + 1 + usize::from(question[at]);
        labels.push(std::str::from_utf8(question.get(at + 1..end)?).ok()?);
        at = end;
    }
    let kind = question.get(at + 1..at + 3)?;
    let question_end = at + 5;
    let service = labels.get(..3).filter(|name| name[1..] == [NAMESPACE, "svc"]).map(|name| name[0].to_owned());
    let found = service.and_then(|service| names.get(&service));
    let addresses = found.filter(|_| kind == [0, 1]).map_or(&[][..], Vec::as_slice);
    // An authoritative response to a recursive query; 3 means that there is no such name.
    let flags: u16 = if found.is_some() { 0x8580 } else { 0x8583 };
    let mut answer = question[..2].to_vec();
    for number in [flags, 1, u16::try_from(addresses.len()).ok()?, 0, 0] {
        answer.extend(number.to_be_bytes());
    }
    answer.extend(question.get(12..question_end)?);
    for address in addresses {
        // The requested name, type A, class IN, five seconds, four bytes.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}

/// Reads endpoints and pods from the API server, and writes the results.
fn look(names: &Names, targets: &Path) -> Result<()> {
    let endpoints = get(&["endpoints", "-n", NAMESPACE])?;
    let pods = get(&["pods", "-n", NAMESPACE])?;
    let mut found = BTreeMap::new();
    let mut services = Vec::new();
    for object in items(&endpoints) {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let subsets = object["subsets"].as_array().into_iter().flatten();
        let mut addresses = Vec::new();
        for subset in subsets {
            for address in ["addresses", "notReadyAddresses"].iter().filter_map(|key| subset[*key].as_array()).flatten()
            {
                let ip = address["ip"].as_str().unwrap_or_default();
                addresses.extend(ip.parse::<Ipv4Addr>());
                for port in subset["ports"].as_array().into_iter().flatten() {
                    services.push(json!({"targets": [format!("{ip}:{}", port["port"])], "labels": {
                        "__meta_kubernetes_service_name": name, "__meta_kubernetes_endpoint_port_name": port["name"]}}));
                }
            }
        }
        found.insert(name.to_owned(), addresses);
    }
    *names.lock().unwrap_or_else(PoisonError::into_inner) = found;
    write(&targets.join("endpoints.json"), &services.into())?;
    let pods: Vec<_> = items(&pods).flat_map(pod_targets).collect();
    write(&targets.join("pod.json"), &pods.into())
}

/// Targets as Prometheus' role `pod` creates them.
fn pod_targets(pod: &Value) -> Vec<Value> {
    let Some(ip) = pod["status"]["podIP"].as_str() else { return Vec::new() };
    let ports = pod["spec"]["containers"].as_array().into_iter().flatten();
    let ports = ports.flat_map(|container| container["ports"].as_array().into_iter().flatten());
    let target = |port: &Value| {
        json!({"targets": [format!("{ip}:{}", port["containerPort"])], "labels": {
            "__meta_kubernetes_pod_label_app_kubernetes_io_name": pod["metadata"]["labels"]["app.kubernetes.io/name"],
            "__meta_kubernetes_pod_container_port_name": port["name"],
            "__meta_kubernetes_pod_node_name": pod["spec"]["nodeName"]}})
    };
    ports.map(target).collect()
}

/// Written atomically, because Prometheus may read it at the same time.
fn write(path: &Path, value: &Value) -> Result<()> {
    let next = path.with_extension("next");
    std::fs::write(&next, value.to_string()).with_context(|| format!("cannot write {}", next.display()))?;
    std::fs::rename(&next, path).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_headless_service_has_its_pods_addresses_and_no_other_name_any() {
        let mut question = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in ["reports", NAMESPACE, "svc"] {
            question.push(u8::try_from(label.len()).unwrap());
            question.extend(label.bytes());
        }
        question.extend([0, 0, 1, 0, 1]);
        let names = [("reports".to_owned(), vec![Ipv4Addr::new(1, 2, 3, 4)])].into();
        let said = answer(&question, &names).unwrap();
        assert_eq!(said[..12], [7, 7, 0x85, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
        assert_eq!(said[said.len() - 4..], [1, 2, 3, 4]);
        assert_eq!(answer(&question, &BTreeMap::new()).unwrap()[3], 0x83);
        assert_eq!(answer(&question[..20], &names), None);
    }
}
