//! The manifest of a crate outside of the workspace: what a member has from the workspace, it says itself.

use std::path::Path;

use anyhow::{Context, Result, bail};
use toml::{Table, Value};

/// What belongs to the system and its authors, not to who writes a program for it.
const LEFT_OUT: [&str; 2] = ["license", "publish"];

/// Profiles that programs are built with.
const PROFILES: [&str; 2] = ["dev", "release"];

/// The manifest of a member of the workspace in `root`, whose manifest is `workspace`, as it is outside: with all values and
/// absolute paths in it, the workspace's profiles, and a workspace of its own.
pub(super) fn detached(member: &str, workspace: &str, root: &Path) -> Result<String> {
    let mut manifest: Table = member.parse().context("the template's manifest")?;
    let workspace: Table = workspace.parse().context("the workspace's manifest")?;
    let of_workspace = |section: &str| -> Result<&Table> {
        let table = workspace["workspace"].get(section);
        table
            .and_then(Value::as_table)
            .with_context(|| format!("the workspace has no `{section}`"))
    };

    let package = section(&mut manifest, "package")?;
    LEFT_OUT.iter().for_each(|key| drop(package.remove(*key)));
    inherit(package, of_workspace("package")?)?;
    let dependencies = section(&mut manifest, "dependencies")?;
    inherit(dependencies, of_workspace("dependencies")?)?;
    for (_, dependency) in dependencies.iter_mut() {
        if let Some(Value::String(path)) = dependency.get_mut("path") {
            *path = root.join(&*path).display().to_string();
        }
    }
    manifest.insert("lints".into(), of_workspace("lints")?.clone().into());
    manifest.insert("workspace".into(), Table::new().into());
    manifest.insert("profile".into(), profiles(&workspace).into());
    Ok(toml::to_string(&manifest)?)
}

fn section<'a>(manifest: &'a mut Table, name: &str) -> Result<&'a mut Table> {
    let section = manifest.get_mut(name).and_then(Value::as_table_mut);
    section.with_context(|| format!("the template's manifest has no `{name}`"))
}

/// Puts the workspace's values in the place of `workspace = true`.
fn inherit(section: &mut Table, from: &Table) -> Result<()> {
    for (key, value) in section.iter_mut() {
        if value.get("workspace") == Some(&Value::Boolean(true)) {
            let Some(inherited) = from.get(key) else {
                bail!("the workspace has no `{key}` to inherit");
            };
            *value = inherited.clone();
        }
    }
    Ok(())
}

/// The workspace's profiles, without what they say of single packages, which the crate may not have.
fn profiles(workspace: &Table) -> Table {
    let mut profiles = Table::new();
    for name in PROFILES {
        if let Some(Value::Table(profile)) = workspace.get("profile").and_then(|all| all.get(name))
        {
            let mut profile = profile.clone();
            profile.remove("package");
            profiles.insert(name.into(), profile.into());
        }
    }
    profiles
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKSPACE: &str = "[workspace]\nmembers = []\n[workspace.package]\nversion = \"1.2.3\"\n\
        [workspace.dependencies]\nlibipc = { path = \"lib\" }\nother = \"4\"\n\
        [workspace.lints.rust]\nmissing_docs = \"warn\"\n\
        [profile.dev]\npanic = \"abort\"\n[profile.dev.package.loom]\nopt-level = 3\n";

    const MEMBER: &str = "[package]\nname = \"x\"\nversion.workspace = true\nlicense.workspace = true\n\
        [lints]\nworkspace = true\n[dependencies]\nlibipc.workspace = true\nother.workspace = true\n";

    #[test]
    fn what_was_inherited_is_said() {
        let text = detached(MEMBER, WORKSPACE, Path::new("/tree")).unwrap();
        let manifest: Table = text.parse().unwrap();
        let [package, dependencies, profile] =
            ["package", "dependencies", "profile"].map(|name| manifest[name].as_table().unwrap());
        assert_eq!(package["version"].as_str(), Some("1.2.3"));
        assert_eq!(package.get("license"), None);
        assert_eq!(dependencies["libipc"]["path"].as_str(), Some("/tree/lib"));
        assert_eq!(dependencies["other"].as_str(), Some("4"));
        assert_eq!(
            manifest["lints"]["rust"]["missing_docs"].as_str(),
            Some("warn")
        );
        assert_eq!(profile["dev"]["panic"].as_str(), Some("abort"));
        assert_eq!(profile["dev"].get("package"), None);
        assert!(manifest["workspace"].as_table().unwrap().is_empty());
    }

    #[test]
    fn what_nobody_has_is_told() {
        let member = MEMBER.replace("other", "missing");
        let error = detached(&member, WORKSPACE, Path::new("/tree")).unwrap_err();
        assert!(error.to_string().contains("no `missing` to inherit"));
    }
}
