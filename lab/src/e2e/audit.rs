//! Checks that the RBAC rights are sufficient and necessary: compares the rights of the aggregator's account with its
//! requests in the API server's audit log.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::base::NAMESPACE;
use super::kubectl::{get, items, kubectl};

/// Group, resource, verb, and the name if the right is limited to one.
type Right = (String, String, String, Option<String>);

/// The rights of all Roles and ClusterRoles of the installation, except those for groups that this API server does not
/// have.
pub(super) fn granted() -> Result<BTreeSet<Right>> {
    let mut rights = BTreeSet::new();
    let versions = kubectl(&["api-versions"])?;
    let is_there = |group: &str| group.is_empty() || versions.lines().any(|line| line.split('/').next() == Some(group));
    let roles = get(&["roles", "-n", NAMESPACE])?;
    let mut all: Vec<Value> = items(&roles).cloned().collect();
    all.push(get(&["clusterrole", "mcad-aggregator"])?);
    for rule in all.iter().flat_map(|role| role["rules"].as_array().into_iter().flatten()) {
        let words = |key: &str| {
            let words = rule[key].as_array().into_iter().flatten();
            words.map(|word| word.as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
        };
        let names = words("resourceNames").into_iter().map(Some).collect::<Vec<_>>();
        let names = if names.is_empty() { vec![None] } else { names };
        for (group, resource) in words("apiGroups")
            .iter()
            .filter(|group| is_there(group))
            .flat_map(|g| words("resources").into_iter().map(move |r| (g, r)))
        {
            for verb in words("verbs") {
                for name in &names {
                    rights.insert((group.clone(), resource.clone(), verb.clone(), name.clone()));
                }
            }
        }
    }
    Ok(rights)
}

/// Compares the rights with the log of the whole run.
pub(super) fn check(log: &Path, granted: &BTreeSet<Right>) -> Result<()> {
    let text = std::fs::read_to_string(log).with_context(|| format!("cannot read {}", log.display()))?;
    let account = format!("system:serviceaccount:{NAMESPACE}:");
    let mut unused = granted.clone();
    let (mut refused, mut allowed) = (BTreeSet::new(), BTreeSet::new());
    let mut strangers = BTreeSet::new();
    let mut asked = 0;
    for line in text.lines() {
        // The last line may be incomplete.
        let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
        let Some(who) = event["user"]["username"].as_str().and_then(|user| user.strip_prefix(&account)) else {
            continue;
        };
        asked += 1;
        if who != "mcad-aggregator" {
            strangers.insert(who.to_owned());
        }
        let object = &event["objectRef"];
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (group, resource, verb) = (word(&object["apiGroup"]), word(&object["resource"]), word(&event["verb"]));
        let path = event["requestURI"].as_str().unwrap_or_default().split('?').next().unwrap_or_default();
        let asked_for = format!("{verb} {path}");
        match event["responseStatus"]["code"].as_u64() {
            Some(403) => {
                refused.insert(asked_for);
            }
            Some(200..=299) => {
                allowed.insert(asked_for);
                let named = (group.clone(), resource.clone(), verb.clone(), Some(word(&object["name"])));
                unused.remove(&named);
                unused.remove(&(group, resource, verb, None));
            }
            _ => {}
        }
    }
    ensure!(asked > 10, "the audit log has only {asked} requests of {account}*");
    // An API server that starts refuses requests until it has read all Roles and bindings, and this run restarts it. A
    // request that was refused and also granted was refused for that reason.
    let at_its_start: Vec<_> = refused.intersection(&allowed).cloned().collect();
    refused.retain(|asked_for| !allowed.contains(asked_for));
    ensure!(refused.is_empty(), "refused, so the Roles are not sufficient: {refused:?}");
    ensure!(unused.is_empty(), "granted but never used: {unused:?}");
    ensure!(strangers.is_empty(), "other accounts of the installation made requests: {strangers:?}");
    println!("e2e:   {} rights, each used; {asked} requests, none refused because of a missing right", granted.len());
    if !at_its_start.is_empty() {
        println!("e2e:   refused only while the API server started: {}", at_its_start.join(", "));
    }
    Ok(())
}
