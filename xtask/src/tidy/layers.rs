//! The layer order is data in the root manifest; a crate may depend only on crates that stand before it.

use std::collections::BTreeMap;

use cargo_metadata::DependencyKind;

use crate::project::Project;

/// Packages that stand beside the stack and that no layer may use.
const BESIDE: [&str; 2] = ["xtask", "hakmem-benches"];

/// Names of the layers, bottom up.
pub fn order(project: &Project) -> Vec<String> {
    let listed = project.workspace_metadata().pointer("/layers/order").and_then(serde_json::Value::as_array);
    listed.into_iter().flatten().filter_map(|name| name.as_str().map(str::to_owned)).collect()
}

/// Edges between layers that point upward, and crates that have no place in the order.
pub fn findings(project: &Project) -> Vec<String> {
    let mut edges = BTreeMap::new();
    for package in project.packages() {
        let name = package.name.to_string();
        // Tests may look up: dev-dependencies are not part of what is built.
        let used = package.dependencies.iter().filter(|dependency| dependency.kind != DependencyKind::Development);
        edges.insert(name, used.map(|dependency| dependency.name.clone()).collect());
    }
    judge(&order(project), &edges)
}

fn judge(order: &[String], edges: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let mut findings = Vec::new();
    let layer = |name: &str| order.iter().position(|listed| listed == name);
    if order.is_empty() {
        findings.push("Cargo.toml: [workspace.metadata.layers] lists no crate".to_owned());
    }
    for (position, name) in order.iter().enumerate() {
        if !edges.contains_key(name) {
            findings.push(format!("Cargo.toml: layer `{name}` is no member of the workspace"));
        }
        if layer(name) != Some(position) {
            findings.push(format!("Cargo.toml: layer `{name}` is listed twice"));
        }
    }
    for (name, used) in edges {
        if BESIDE.contains(&name.as_str()) {
            continue;
        }
        let Some(own) = layer(name) else {
            findings.push(format!("Cargo.toml: crate `{name}` is missing from [workspace.metadata.layers]"));
            continue;
        };
        for lower in used {
            if BESIDE.contains(&lower.as_str()) {
                findings.push(format!("{name}: depends on `{lower}`, which stands beside the stack"));
            } else if layer(lower).is_some_and(|other| other >= own) {
                findings.push(format!("{name}: depends on `{lower}`, which stands above it in the layer order"));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(order: &[&str], edges: &[(&str, &[&str])]) -> Vec<String> {
        let order: Vec<String> = order.iter().map(|&name| name.to_owned()).collect();
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        judge(&order, &edges.iter().map(|&(name, used)| (name.to_owned(), owned(used))).collect())
    }

    #[test]
    fn downward_edges_and_foreign_crates_are_fine() {
        assert!(judged(&["low", "high"], &[("low", &["libc"]), ("high", &["low"]), ("xtask", &["high"])]).is_empty());
    }

    #[test]
    fn upward_edge_is_found() {
        let found = judged(&["low", "high"], &[("low", &["high"]), ("high", &[])]);
        assert!(found.len() == 1 && found.concat().contains("low: depends on `high`"), "{found:?}");
    }

    #[test]
    fn crate_without_a_layer_is_found() {
        let found = judged(&["low"], &[("low", &[]), ("stray", &[])]);
        assert!(found.len() == 1 && found.concat().contains("`stray` is missing"), "{found:?}");
    }

    #[test]
    fn layer_without_a_crate_and_empty_order_are_found() {
        assert_eq!(judged(&["low", "gone"], &[("low", &[])]).len(), 1);
        assert!(!judged(&[], &[]).is_empty());
        assert_eq!(judged(&["low", "low"], &[("low", &[])]).len(), 1);
    }

    #[test]
    fn layer_that_uses_a_tool_is_found() {
        assert_eq!(judged(&["low"], &[("low", &["xtask"]), ("xtask", &[])]).len(), 1);
    }
}
