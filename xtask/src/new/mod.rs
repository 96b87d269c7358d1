//! `cargo xtask new`: a crate with a server or an app that runs and is tested at once.
//!
//! The templates are crates of the workspace: `apps/tally`, a server, and `apps/greet`, an app. They are built, checked and
//! tested like all others, so what is made of them works. Making a crate is copying one of them with another name.
//!
//! | the template has | the crate `my_store` gets |
//! | --- | --- |
//! | `tally`, in paths too | `my_store` |
//! | `Tally` | `MyStore` |
//!
//! In the workspace that is all. [Elsewhere](manifest) the manifest says itself what it has from the workspace.

mod manifest;
mod name;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use self::name::Name;
use crate::build::shown;
use crate::workspace::{APPS, root};

/// What to make.
#[derive(clap::Args)]
pub(crate) struct NewArgs {
    /// A server with a client, or a program
    #[arg(value_enum)]
    kind: Kind,
    /// Its name: lower case letters, digits and underscores
    name: String,
    /// Make the crate in this folder, which need not be there, instead of the workspace's folder `apps`
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
}

/// What there are templates for.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// A service, its server, and a client
    Server,
    /// A program
    App,
}

impl Kind {
    /// The crate that is copied.
    fn template(self) -> &'static str {
        match self {
            Kind::Server => "tally",
            Kind::App => "greet",
        }
    }
}

/// Runs the task.
pub(crate) fn main(args: &NewArgs) -> Result<ExitCode> {
    let name = Name::new(&args.name)?;
    name.check_unused(&programs()?)?;
    let (folder, is_member) = match &args.path {
        Some(path) => (std::path::absolute(path)?, false),
        None => (root().join(APPS).join(name.snake()), true),
    };
    make(args.kind, &name, &folder, is_member)?;
    println!("{}", next_steps(args.kind, &name, &folder, is_member));
    Ok(ExitCode::SUCCESS)
}

/// Makes the crate in a folder that is not there or empty.
fn make(kind: Kind, name: &Name, folder: &Path, is_member: bool) -> Result<()> {
    if std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) {
        bail!(
            "{} is there already: take another name, or another folder with --path",
            shown(folder)
        );
    }
    let template = root().join(APPS).join(kind.template());
    let template_name = Name::new(kind.template())?;
    let renamed = |text: &str| name.in_place_of(&template_name, text);
    for file in files(&template)? {
        let text = read(&template.join(&file))?;
        let path = folder.join(renamed(&file.to_string_lossy()));
        let is_manifest = file == Path::new("Cargo.toml");
        let text = renamed(&text);
        let text = if is_manifest && !is_member {
            manifest::detached(&text, &read(&root().join("Cargo.toml"))?, root())?
        } else {
            text
        };
        write(&path, &text)?;
    }
    if !is_member {
        // The versions that the workspace has been tested with; they are here already.
        write(
            &folder.join("Cargo.lock"),
            &read(&root().join("Cargo.lock"))?,
        )?;
        write(&folder.join(".gitignore"), "/target\n")?;
    }
    Ok(())
}

/// What a person can do with the new crate.
fn next_steps(kind: Kind, name: &Name, folder: &Path, is_member: bool) -> String {
    let name = name.snake();
    let tests = format!(" --app {}", shown(folder));
    // What is in the workspace is in every archive.
    let app = if is_member { "" } else { &tests };
    let what = match kind {
        Kind::Server => format!("then `{name} &` and `{name}_client 2` in the shell"),
        Kind::App => format!("then `{name} world` in the shell"),
    };
    format!(
        "made {}\n    cargo xtask run{app}    # {what}\n    cargo xtask test{tests}    # on the host, and in machines",
        shown(folder)
    )
}

/// The names of the programs that are in the workspace: another one of the same name would take its place.
fn programs() -> Result<Vec<String>> {
    let mut folders = vec![root().join("servers"), root().join("user-apps")];
    for entry in std::fs::read_dir(root().join(APPS))? {
        folders.push(entry?.path());
    }
    let mut names = Vec::new();
    for folder in folders.iter().map(|folder| folder.join("src/bin")) {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry?.path();
            names.extend(
                path.file_stem()
                    .map(|stem| stem.to_string_lossy().into_owned()),
            );
        }
    }
    Ok(names)
}

/// The manifest and the sources of a crate, as paths in its folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = vec![PathBuf::from("Cargo.toml")];
    let mut folders = vec![PathBuf::from("src")];
    while let Some(below) = folders.pop() {
        let entries = std::fs::read_dir(folder.join(&below))
            .with_context(|| format!("the template {} is not there", shown(folder)))?;
        for entry in entries {
            let entry = entry?;
            let path = below.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else {
                found.push(path);
            }
        }
    }
    Ok(found)
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Writes a file, and makes the folder that it is in.
fn write(path: &Path, text: &str) -> Result<()> {
    let folder = path.parent().context("a file is in a folder")?;
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(path, text))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Scratch;

    /// Makes a crate outside of the workspace; all its files, by path.
    fn made(kind: Kind) -> Vec<(String, String)> {
        let scratch = Scratch::new().unwrap();
        let folder = scratch.path().join("new");
        make(kind, &Name::new("my_store").unwrap(), &folder, false).unwrap();
        let in_folder = files(&folder).unwrap().into_iter();
        let with_text = in_folder.map(|path| {
            let text = read(&folder.join(&path)).unwrap();
            (path.display().to_string(), text)
        });
        with_text.collect()
    }

    #[test]
    fn nothing_of_the_templates_name_is_left() {
        for kind in [Kind::Server, Kind::App] {
            let files = made(kind);
            assert!(
                files
                    .iter()
                    .any(|(path, _)| path == "src/bin/test_my_store.rs")
            );
            for (path, text) in files {
                let all = format!("{path}\n{text}").to_lowercase();
                assert!(!all.contains(kind.template()), "{path}");
            }
        }
    }

    #[test]
    fn a_folder_that_has_something_in_it_stays_as_it_is() {
        let scratch = Scratch::new().unwrap();
        std::fs::write(scratch.path().join("mine"), "").unwrap();
        let name = Name::new("my_store").unwrap();
        let error = make(Kind::App, &name, scratch.path(), false).unwrap_err();
        assert!(error.to_string().contains("is there already"));
        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 1);
    }

    #[test]
    fn names_of_programs_are_known() {
        let programs = programs().unwrap();
        for known in [
            "init",
            "sh",
            "tally",
            "tally_client",
            "test_greet",
            "cowdemo",
        ] {
            assert!(programs.iter().any(|program| program == known), "{known}");
        }
    }
}
