//! A copy of the tree, to be spoilt.
//!
//! What the workspace depends on is lent to it from target/release, so that it is not built again. The workspace's own packages are
//! built into a target folder of the copy's, since to cargo those of copy and tree are the same; and without optimisation: that
//! takes seconds instead of minutes, and nobody measures a spoilt hub.

use crate::patch::Patch;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The tree, and where its copy and what is built from that lie.
pub struct Tree {
    root: PathBuf,
    folder: PathBuf,
}

/// The packages that a patch may change, as cargo names them.
const SPOILT: [&str; 5] = ["onhand-common", "onhand-http", "onhand-agent", "onhand-hub", "onhand-simulator"];
/// The workspace's other packages that are built with those.
const WITH_THEM: [&str; 1] = ["onhand-tests"];
/// What is built of them.
const BUILT: [&str; 2] = ["onhand-agent", "onhand-hub"];
/// It has agents and a hub within it, which a few tests run. For the others it is the one that the tree has: to build it takes
/// half as long again as the rest.
const SIMULATOR: &str = "onhand-simulator";
/// What cargo keeps in a target folder of what it has built.
const KEPT: [&str; 3] = ["deps", "build", ".fingerprint"];

impl Tree {
    /// Of the workspace at `root`, with everything in `folder`.
    pub fn new(root: PathBuf, folder: PathBuf) -> Self {
        Self { root, folder }
    }

    /// Builds what the noticers are and run, as the tree has it, and lends the copy what that depends on. `release` is where
    /// cargo puts it.
    ///
    /// # Errors
    /// If it does not build, or cannot be lent.
    pub fn prepare(&self, release: &Path) -> Result<(), String> {
        let mut command = cargo();
        command.args(["build", "--release", "--workspace", "--bins", "--quiet"]).current_dir(&self.root);
        run(&mut command)?;
        let lent = self.target().join("release");
        for kept in KEPT {
            lend(&release.join(kept), &lent.join(kept)).map_err(|error| format!("lend {kept}: {error}"))?;
        }
        Ok(())
    }

    fn copy(&self) -> PathBuf {
        self.folder.join("tree")
    }

    fn target(&self) -> PathBuf {
        self.folder.join("target")
    }

    /// Makes the copy what the tree is but for a patch, if there is one.
    pub fn with(&self, patch: Option<&Patch>) -> Result<(), String> {
        let listed = run(Command::new("git").args(["ls-files", "-z"]).current_dir(&self.root))?;
        let names: BTreeSet<&Path> = listed.split('\0').filter(|name| !name.is_empty()).map(Path::new).collect();
        for name in &names {
            self.refresh(name).map_err(|error| format!("copy {}: {error}", name.display()))?;
        }
        // What the tree no longer has, and what another patch has made.
        remove_others(&self.copy(), Path::new(""), &names).map_err(|error| format!("clear the copy: {error}"))?;
        let Some(patch) = patch else { return Ok(()) };
        let mut apply = Command::new("git");
        // The copy lies in the tree's own target folder, but is no part of it.
        apply.env("GIT_CEILING_DIRECTORIES", &self.folder).current_dir(self.copy());
        run(apply.arg("apply").arg(&patch.file)).map(drop)
    }

    /// Writes a file where it differs, so that nothing is built again for its time alone.
    fn refresh(&self, name: &Path) -> io::Result<()> {
        let (from, to) = (self.root.join(name), self.copy().join(name));
        let Ok(content) = fs::read(from) else { return Ok(()) };
        if fs::read(&to).is_ok_and(|there| there == content) {
            return Ok(());
        }
        fs::create_dir_all(to.parent().expect("a file lies in a folder"))?;
        fs::write(to, content)
    }

    /// The folder for what a patch leads to.
    pub fn folder_of(&self, name: &str) -> Result<PathBuf, String> {
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder).map_err(|error| format!("make {}: {error}", folder.display()))?;
        Ok(folder)
    }

    /// Builds agent and hub from the copy, and the simulator if it is asked for, and puts them into a folder. The simulator is
    /// the one in `release` otherwise.
    pub fn build(&self, into: &Path, release: &Path, simulator: bool) -> Result<(), String> {
        let built: Vec<&str> = BUILT.into_iter().chain(simulator.then_some(SIMULATOR)).collect();
        run(self.spoilt(&["build", "--quiet"]).args(built.iter().flat_map(|name| ["--bin", name])))?;
        for program in BUILT.into_iter().chain([SIMULATOR]) {
            let from = if built.contains(&program) { &self.target().join("release") } else { release };
            fs::copy(from.join(program), into.join(program)).map_err(|error| format!("copy {program}: {error}"))?;
        }
        Ok(())
    }

    /// cargo, in the copy.
    fn spoilt(&self, arguments: &[&str]) -> Command {
        let mut command = cargo();
        // The same packages as everywhere, so that dependencies keep their features.
        command.args(arguments).args(["--release", "--workspace", "--target-dir"]).arg(self.target());
        for package in SPOILT.iter().chain(&WITH_THEM) {
            for setting in ["opt-level=0", "codegen-units=256"] {
                command.args(["--config", &format!("profile.release.package.{package}.{setting}")]);
            }
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

    /// A test program that is linked with what the copy is, and the folder in which cargo would run it: a package's unit tests,
    /// `rule` of tests/tests, or `external_broker` of hub/tests. (The others of tests/tests look for what is installed beside them,
    /// and run programs.)
    pub fn spoilt_test_program(&self, of: &str) -> Result<(PathBuf, PathBuf), String> {
        let mut command = self.spoilt(&["test", "--no-run"]);
        let folder = match (SPOILT.contains(&of), of) {
            (true, package) => {
                command.arg("--lib");
                package.trim_start_matches("onhand-")
            }
            (false, "rule") => {
                command.args(["--test", "rule"]);
                "tests"
            }
            (false, "external_broker") => {
                command.args(["--test", "external_broker"]);
                "hub"
            }
            (false, _) => return Err(format!("nothing of {of} is linked with what is spoilt")),
        };
        let program = executable(&mut command, &of.replace('-', "_"))?;
        Ok((program, self.copy().join(folder)))
    }

    /// Removes what [`Tree::build`] put there: it is large, and each patch has its own.
    pub fn remove_binaries(&self, from: &Path) {
        for program in BUILT.into_iter().chain([SIMULATOR]) {
            let _ = fs::remove_file(from.join(program));
        }
    }
}

/// Gives another folder what is in a folder and not of the workspace's own packages. What compilers made is linked: they write
/// anew, never into a file. cargo's own notes are copied with their times, by which it tells what is fresh.
fn lend(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    let libraries = from.ends_with("deps");
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, there) = (entry.path(), to.join(entry.file_name()));
        let name = entry.file_name().to_string_lossy().into_owned();
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        let library = matches!(ending, "rlib" | "rmeta" | "so");
        // Programs among the libraries are the workspace's own.
        if name.starts_with("onhand") || name.starts_with("libonhand") || (libraries && !library && ending != "d") {
            continue;
        }
        if metadata.is_dir() {
            lend(&path, &there)?;
            continue;
        }
        let same =
            |other: fs::Metadata| other.len() == metadata.len() && other.modified().ok() == metadata.modified().ok();
        if fs::metadata(&there).is_ok_and(same) {
            continue;
        }
        let _ = fs::remove_file(&there);
        if library {
            fs::hard_link(&path, &there)?;
        } else {
            fs::copy(&path, &there)?;
            fs::File::options().write(true).open(&there)?.set_modified(metadata.modified()?)?;
        }
    }
    Ok(())
}

/// Removes the files below `folder` that are none of `names`, which are relative to `root`.
fn remove_others(root: &Path, folder: &Path, names: &BTreeSet<&Path>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let name = folder.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            remove_others(root, &name, names)?;
        } else if !names.contains(name.as_path()) {
            fs::remove_file(entry.path())?;
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
    let (program, said) = (command.get_program().to_string_lossy(), String::from_utf8_lossy(&output.stderr));
    Err(format!("{program}: {}\n{said}", output.status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_lent_and_the_workspaces_own_packages_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from/deps"), folder.path().join("to/deps"));
        fs::create_dir_all(from.join("onhand-hub-1")).unwrap();
        for (name, content) in
            [("libserde-1.rlib", "serde"), ("libonhand_hub-1.rlib", "hub"), ("system-1", "a program")]
        {
            fs::write(from.join(name), content).unwrap();
        }
        fs::write(from.join("serde-1.d"), "first").unwrap();
        for said in ["first", "then"] {
            fs::write(from.join("serde-1.d"), said).unwrap();
            lend(&from, &to).unwrap();
            assert_eq!(fs::read_to_string(to.join("libserde-1.rlib")).unwrap(), "serde");
            assert_eq!(fs::read_to_string(to.join("serde-1.d")).unwrap(), said);
            let times = [&from, &to].map(|folder| fs::metadata(folder.join("serde-1.d")).unwrap().modified().unwrap());
            assert_eq!(times[0], times[1]);
            assert_eq!(fs::read_dir(&to).unwrap().count(), 2);
        }
    }

    #[test]
    fn what_is_not_named_goes() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("src/old")).unwrap();
        for name in ["src/kept.rs", "src/old/gone.rs"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        remove_others(folder.path(), Path::new(""), &[Path::new("src/kept.rs")].into()).unwrap();
        assert!(folder.path().join("src/kept.rs").exists() && !folder.path().join("src/old/gone.rs").exists());
    }
}
