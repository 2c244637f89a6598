//! A patch that takes a protection out.

use std::fmt;
use std::path::{Path, PathBuf};

/// Who has to notice, and what it has to say then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noticer {
    /// What is run.
    pub by: By,
    /// A part of what it says, where it could fail of something else, too.
    pub says: Option<String>,
}

/// What is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum By {
    /// A chaos run with these arguments.
    Chaos(Vec<String>),
    /// A test of tests/tests, which runs the spoilt programs.
    Test {
        /// The program it is part of.
        program: String,
        /// Its name, with its modules.
        name: String,
    },
    /// A test that is linked with the spoilt code, and built with it: the unit tests of a package, or a program of tests.
    Linked {
        /// The package, or the program.
        of: String,
        /// Its name, with its modules.
        name: String,
    },
}

/// One file of tests/sabotage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patch {
    /// The file's name, without its ending.
    pub name: String,
    /// Which protection is gone then.
    pub takes_out: String,
    /// Who has to notice, each of them.
    pub noticers: Vec<Noticer>,
    /// Whether one of them runs the agents and the hub within the simulator, which is built from the copy then, too.
    pub in_simulator: bool,
    /// The file.
    pub file: PathBuf,
}

/// The line of a head that says so.
const IN_SIMULATOR: &str = "In the simulator, too.";

impl Patch {
    /// All of a folder, by name.
    pub fn all(folder: &Path) -> Result<Vec<Self>, String> {
        let listed = std::fs::read_dir(folder).map_err(|error| format!("list {}: {error}", folder.display()))?;
        let mut files: Vec<PathBuf> = listed.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.retain(|file| file.extension().is_some_and(|ending| ending == "patch"));
        files.sort();
        files.into_iter().map(Self::read).collect()
    }

    fn read(file: PathBuf) -> Result<Self, String> {
        let text = std::fs::read_to_string(&file).map_err(|error| format!("read {}: {error}", file.display()))?;
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let (takes_out, noticers) = head(&text).map_err(|error| format!("{}: {error}", file.display()))?;
        let in_simulator = text.lines().any(|line| line == IN_SIMULATOR);
        Ok(Self { name, takes_out, noticers, in_simulator, file })
    }
}

/// What the lines before the first `diff` or `---` say.
fn head(text: &str) -> Result<(String, Vec<Noticer>), String> {
    let lines: Vec<&str> =
        text.lines().take_while(|line| !line.starts_with("diff ") && !line.starts_with("--- ")).collect();
    let (mut takes_out, mut noticers) = (None, Vec::<Noticer>::new());
    for line in lines {
        match line.split_once(": ") {
            Some(("Takes out", text)) => takes_out = Some(text.trim().to_owned()),
            Some(("Noticed by", text)) => noticers.push(Noticer { by: by(text)?, says: None }),
            Some(("It says", text)) => {
                let noticer = noticers.last_mut().ok_or("\"It says: …\" stands below nobody")?;
                noticer.says = Some(text.trim().to_owned());
            }
            _ => {}
        }
    }
    let missing = |field: &str| format!("its head does not say \"{field}: …\"");
    if noticers.is_empty() {
        return Err(missing("Noticed by"));
    }
    Ok((takes_out.ok_or_else(|| missing("Takes out"))?, noticers))
}

fn by(text: &str) -> Result<By, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    match words[..] {
        ["chaos", ref arguments @ ..] => Ok(By::Chaos(arguments.iter().map(|&word| word.to_owned()).collect())),
        ["test", program, name] => Ok(By::Test { program: program.to_owned(), name: name.to_owned() }),
        ["linked", of, name] => Ok(By::Linked { of: of.to_owned(), name: name.to_owned() }),
        _ => Err(format!(
            "\"{text}\" is none of \"chaos ARGUMENTS\", \"test PROGRAM NAME\", \"linked PACKAGE|rule|external_broker NAME\""
        )),
    }
}

impl fmt::Display for Noticer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.by.fmt(f)
    }
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chaos(arguments) => write!(f, "chaos {}", arguments.join(" ")),
            Self::Test { program, name } => write!(f, "{program}::{name}"),
            Self::Linked { of, name } => write!(f, "{of}: {name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_says_what_is_taken_out_and_who_notices() {
        let (takes_out, noticers) =
            head("Takes out: the fsync\nNoticed by: chaos --seed 7\nNoticed by: test system power::cut\n\ndiff --git a/x b/x\n")
                .unwrap();
        assert_eq!(takes_out, "the fsync");
        assert_eq!(noticers[0].to_string(), "chaos --seed 7");
        assert_eq!(noticers[1].by, By::Test { program: "system".into(), name: "power::cut".into() });
        let (_, noticers) =
            head("Takes out: a\nNoticed by: linked onhand-hub lake::tests::x\nIt says: 2 rows\n--- a/x\n").unwrap();
        let by = By::Linked { of: "onhand-hub".into(), name: "lake::tests::x".into() };
        assert_eq!(noticers, [Noticer { by, says: Some("2 rows".into()) }]);
        for (wrong, reason) in [
            ("Noticed by: chaos\n", "\"Takes out: …\""),
            ("Takes out: a\n--- a/x\nNoticed by: chaos\n", "\"Noticed by: …\""),
            ("Takes out: a\nNoticed by: nobody\n", "none of"),
            ("Takes out: a\nNoticed by: test system\n", "none of"),
            ("Takes out: a\nIt says: b\nNoticed by: chaos\n", "below nobody"),
        ] {
            let said = head(wrong);
            assert!(said.as_ref().is_err_and(|error| error.contains(reason)), "{wrong}: {said:?}");
        }
    }
}
