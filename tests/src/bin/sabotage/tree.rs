//! A copy of the tree, to be spoilt.
//!
//! It is built into the same target folder, so that what the workspace depends on is not built again. To cargo the packages of copy
//! and tree are the same, and it would take what the copy made for the tree's: so that is forgotten after each build.

use crate::patch::Patch;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The tree, and where its copy and what is built from that lie.
pub struct Tree {
    root: PathBuf,
    folder: PathBuf,
}

/// The packages that a patch may change, as cargo names them.
const SPOILT: [&str; 5] = ["onhand-common", "onhand-http", "onhand-agent", "onhand-hub", "onhand-simulator"];
/// The simulator has agent and hub within it, for its demo.
const BUILT: [&str; 3] = ["onhand-agent", "onhand-hub", "onhand-simulator"];

impl Tree {
    /// Of the workspace at `root`, with everything in `folder`.
    pub fn new(root: PathBuf, folder: PathBuf) -> Self {
        Self { root, folder }
    }

    fn copy(&self) -> PathBuf {
        self.folder.join("tree")
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

    /// Builds agent, hub and simulator from the copy; returns the folder in which they are, and nothing else's are.
    pub fn build(&self, name: &str) -> Result<PathBuf, String> {
        self.build_from(&self.copy())?;
        let binaries = self.folder.join(name);
        std::fs::create_dir_all(&binaries).map_err(|error| format!("make {}: {error}", binaries.display()))?;
        for built in BUILT {
            let copied = std::fs::copy(self.target().join("release").join(built), binaries.join(built));
            copied.map_err(|error| format!("copy {built}: {error}"))?;
        }
        self.forget()?;
        Ok(binaries)
    }

    /// Has target/release hold again what the tree itself makes.
    pub fn restore_binaries(&self) -> Result<(), String> {
        self.build_from(&self.root)
    }

    fn build_from(&self, tree: &Path) -> Result<(), String> {
        let mut command = cargo();
        // The same packages as everywhere, so that dependencies keep their features.
        command
            .args(["build", "--release", "--workspace", "--quiet"])
            .args(BUILT.iter().flat_map(|name| ["--bin", name]));
        run(command.arg("--target-dir").arg(self.target()).current_dir(tree)).map(drop)
    }

    /// Has cargo know nothing of what was built of the packages that a patch may change.
    fn forget(&self) -> Result<(), String> {
        let mut command = cargo();
        command.args(["clean", "--release", "--quiet"]).args(SPOILT.iter().flat_map(|name| ["--package", name]));
        run(command.arg("--target-dir").arg(self.target()).current_dir(&self.root)).map(drop)
    }

    fn target(&self) -> PathBuf {
        self.folder.parent().expect("it lies in the target folder").to_owned()
    }
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

fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("run {command:?}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)))
}
