//! The layer order is data in the root manifest; a crate may depend only on crates that stand before it.

use cargo_metadata::DependencyKind;

use crate::project::Project;

/// A member of the workspace as the rule sees it.
struct Member {
    name: String,
    // Lies in `crates/`; everything else (tools, benches, test kits) stands beside the stack, and no layer may use it.
    is_layer: bool,
    uses: Vec<String>,
}

/// Names of the layers, bottom up.
pub fn order(project: &Project) -> Vec<String> {
    let listed = project.workspace_metadata().pointer("/layers/order").and_then(serde_json::Value::as_array);
    listed.into_iter().flatten().filter_map(|name| name.as_str().map(str::to_owned)).collect()
}

/// Edges between layers that point upward, and crates that have no place in the order.
pub fn findings(project: &Project) -> Vec<String> {
    let layers = project.root().join("crates");
    let member = |package: &&cargo_metadata::Package| Member {
        name: package.name.to_string(),
        is_layer: package.manifest_path.as_std_path().starts_with(&layers),
        // Tests may look up and sideways: dev-dependencies are not part of what is built.
        uses: (package.dependencies.iter())
            .filter(|dependency| dependency.kind != DependencyKind::Development)
            .map(|dependency| dependency.name.clone())
            .collect(),
    };
    judge(&order(project), &project.packages().iter().map(member).collect::<Vec<_>>())
}

fn judge(order: &[String], members: &[Member]) -> Vec<String> {
    let mut findings = Vec::new();
    let layer = |name: &str| order.iter().position(|listed| listed == name);
    if order.is_empty() {
        findings.push("Cargo.toml: [workspace.metadata.layers] lists no crate".to_owned());
    }
    for (position, name) in order.iter().enumerate() {
        if !members.iter().any(|member| member.is_layer && member.name == *name) {
            findings.push(format!("Cargo.toml: layer `{name}` is no crate in crates/"));
        }
        if layer(name) != Some(position) {
            findings.push(format!("Cargo.toml: layer `{name}` is listed twice"));
        }
    }
    for member in members.iter().filter(|member| member.is_layer) {
        let name = &member.name;
        let Some(own) = layer(name) else {
            findings.push(format!("Cargo.toml: crate `{name}` is missing from [workspace.metadata.layers]"));
            continue;
        };
        for used in &member.uses {
            if members.iter().any(|other| !other.is_layer && other.name == *used) {
                findings.push(format!("{name}: depends on `{used}`, which stands beside the stack"));
            } else if layer(used).is_some_and(|other| other >= own) {
                findings.push(format!("{name}: depends on `{used}`, which stands above it in the layer order"));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(order: &[&str], edges: &[(&str, &[&str])]) -> Vec<String> {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let member = |&(name, uses): &(&str, &[&str])| Member {
            name: name.to_owned(),
            is_layer: name != "tool",
            uses: owned(uses),
        };
        judge(&owned(order), &edges.iter().map(member).collect::<Vec<_>>())
    }

    #[test]
    fn downward_edges_and_foreign_crates_are_fine() {
        assert!(judged(&["low", "high"], &[("low", &["libc"]), ("high", &["low"]), ("tool", &["high"])]).is_empty());
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
        assert_eq!(judged(&["low", "tool"], &[("low", &[]), ("tool", &[])]).len(), 1);
        assert_eq!(judged(&["low", "low"], &[("low", &[])]).len(), 1);
        assert!(!judged(&[], &[]).is_empty());
    }

    #[test]
    fn layer_that_uses_a_tool_is_found() {
        assert_eq!(judged(&["low"], &[("low", &["tool"]), ("tool", &[])]).len(), 1);
    }
}
