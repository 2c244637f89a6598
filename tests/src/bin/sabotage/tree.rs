//! A copy of the tree, to be spoilt.
//!
//! What the workspace depends on is lent to it from target/release by hard links, so that it is not built again. Its own packages
//! are built into a target folder of the copy's, since to cargo those of copy and tree are the same; and with less optimisation:
//! that takes a fraction of the time, and nobody measures a spoilt hub.

use crate::patch::Patch;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The tree, and where its copy and what is built from that lie.
pub struct Tree {
    root: PathBuf,
    folder: PathBuf,
}

/// The packages that a patch may change, as cargo names them.
const SPOILT: [&str; 4] = ["onhand-common", "onhand-http", "onhand-agent", "onhand-hub"];
/// What is built of them.
const BUILT: [&str; 2] = ["onhand-agent", "onhand-hub"];
/// What cargo keeps in a target folder of what it has built.
const KEPT: [&str; 3] = ["deps", "build", ".fingerprint"];

impl Tree {
    /// Of the workspace at `root`, with everything in `folder`; `release` is where cargo has built its dependencies.
    ///
    /// # Errors
    /// If the dependencies cannot be linked.
    pub fn new(root: PathBuf, folder: PathBuf, release: &Path) -> Result<Self, String> {
        let tree = Self { root, folder };
        let lent = tree.target().join("release");
        for kept in KEPT {
            lend(&release.join(kept), &lent.join(kept)).map_err(|error| format!("link {kept}: {error}"))?;
        }
        Ok(tree)
    }

    fn copy(&self) -> PathBuf {
        self.folder.join("tree")
    }

    fn target(&self) -> PathBuf {
        self.folder.join("target")
    }

    /// Makes the copy what the tree is but for a patch.
    pub fn with(&self, patch: &Patch) -> Result<(), String> {
        let listed = run(Command::new("git").args(["ls-files", "-z"]).current_dir(&self.root))?;
        for name in listed.split('\0').filter(|name| !name.is_empty()) {
            self.refresh(name).map_err(|error| format!("copy {name}: {error}"))?;
        }
        let mut apply = Command::new("git");
        // The copy lies in the tree's own target folder, but is no part of it.
        apply.env("GIT_CEILING_DIRECTORIES", &self.folder).current_dir(self.copy());
        run(apply.arg("apply").arg(&patch.file)).map(drop)
    }

    /// Writes a file where it differs, so that nothing is built again for its time alone.
    fn refresh(&self, name: &str) -> std::io::Result<()> {
        let (from, to) = (self.root.join(name), self.copy().join(name));
        let Ok(content) = std::fs::read(from) else { return Ok(()) };
        if std::fs::read(&to).is_ok_and(|there| there == content) {
            return Ok(());
        }
        std::fs::create_dir_all(to.parent().expect("a file lies in a folder"))?;
        std::fs::write(to, content)
    }

    /// Builds agent and hub from the copy; returns the folder in which they are, and nothing else's are.
    pub fn build(&self, name: &str) -> Result<PathBuf, String> {
        run(self.spoilt(&["build", "--quiet"]).args(BUILT.iter().flat_map(|name| ["--bin", name])))?;
        let binaries = self.folder.join(name);
        std::fs::create_dir_all(&binaries).map_err(|error| format!("make {}: {error}", binaries.display()))?;
        for built in BUILT {
            let copied = std::fs::copy(self.target().join("release").join(built), binaries.join(built));
            copied.map_err(|error| format!("copy {built}: {error}"))?;
        }
        Ok(binaries)
    }

    /// cargo, in the copy.
    fn spoilt(&self, arguments: &[&str]) -> Command {
        let mut command = cargo();
        // The same packages as everywhere, so that dependencies keep their features.
        command.args(arguments).args(["--release", "--workspace", "--target-dir"]).arg(self.target());
        for package in SPOILT {
            command.args(["--config", &format!("profile.release.package.{package}.opt-level=1")]);
        }
        command.current_dir(self.copy());
        command
    }

    /// The program of tests/tests/NAME, as it is in the tree.
    pub fn test_program(&self, name: &str) -> Result<PathBuf, String> {
        let mut command = cargo();
        command.args(["test", "--release", "--no-run", "--workspace", "--test", name]).current_dir(&self.root);
        executable(&mut command, name)
    }

    /// A package's unit tests, or a program of tests/tests, linked with what the copy is.
    pub fn spoilt_test_program(&self, of: &str) -> Result<PathBuf, String> {
        let mut command = self.spoilt(&["test", "--no-run"]);
        match SPOILT.contains(&of) {
            true => command.arg("--lib"),
            false => command.args(["--test", of]),
        };
        executable(&mut command, &of.replace('-', "_"))
    }

    /// Removes what [`Tree::build`] copied: it is large, and another patch's is another.
    pub fn remove_binaries(&self, name: &str) {
        for built in BUILT {
            let _ = std::fs::remove_file(self.folder.join(name).join(built));
        }
    }
}

/// Links all of a folder that is not of the workspace's own packages into another one, where it is not there yet.
fn lend(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (name, there) = (entry.file_name(), to.join(entry.file_name()));
        let name = name.to_string_lossy();
        if name.starts_with("onhand") || name.starts_with("libonhand") {
            continue;
        }
        if entry.file_type()?.is_dir() {
            lend(&entry.path(), &there)?;
        } else if !there.exists() {
            std::fs::hard_link(entry.path(), there)?;
        }
    }
    Ok(())
}

/// cargo, without what the cargo that runs this says of this program: some build scripts would take that for a change.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST")) {
            command.env_remove(&name);
        }
    }
    command
}

/// Has cargo build test programs; returns the one whose file has the name.
fn executable(command: &mut Command, name: &str) -> Result<PathBuf, String> {
    let output = command.output().map_err(|error| format!("run {command:?}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let mut found = said.lines().filter_map(|line| {
        let path = line.trim().strip_prefix("Executable ")?.split_once('(')?.1.strip_suffix(')')?;
        Some(PathBuf::from(path))
    });
    let named =
        |path: &PathBuf| path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&format!("{name}-")));
    let path = found.find(named).ok_or_else(|| format!("build the tests {name}:\n{said}"))?;
    Ok(command.get_current_dir().map_or_else(|| path.clone(), |folder| folder.join(&path)))
}

fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("run {command:?}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_lent_and_the_workspaces_own_packages_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        std::fs::create_dir_all(from.join("serde-1")).unwrap();
        std::fs::create_dir_all(from.join("onhand-hub-1")).unwrap();
        std::fs::write(from.join("serde-1/lib"), "serde").unwrap();
        std::fs::write(from.join("onhand-hub-1/lib"), "hub").unwrap();
        std::fs::write(from.join("libonhand_hub-1.rlib"), "hub").unwrap();
        for _ in 0..2 {
            lend(&from, &to).unwrap();
            assert_eq!(std::fs::read_to_string(to.join("serde-1/lib")).unwrap(), "serde");
            assert_eq!(std::fs::read_dir(&to).unwrap().count(), 1);
        }
    }
}
