//! A patch that takes a protection out.

use std::fmt;
use std::path::{Path, PathBuf};

/// Who has to notice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Noticer {
    /// A chaos run with these arguments.
    Chaos(Vec<String>),
    /// A test of tests/tests.
    Test {
        /// The program it is part of.
        program: String,
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
    /// Who has to notice.
    pub noticer: Noticer,
    /// The file.
    pub file: PathBuf,
}

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
        let (takes_out, noticer) = head(&text).map_err(|error| format!("{}: {error}", file.display()))?;
        Ok(Self { name, takes_out, noticer, file })
    }
}

/// What the lines before the first `diff` or `---` say.
fn head(text: &str) -> Result<(String, Noticer), String> {
    let lines: Vec<&str> =
        text.lines().take_while(|line| !line.starts_with("diff ") && !line.starts_with("--- ")).collect();
    let of = |field: &str| {
        let said = lines.iter().find_map(|line| line.strip_prefix(field)?.strip_prefix(": "));
        said.map(str::trim).ok_or_else(|| format!("its head does not say \"{field}: …\""))
    };
    let (takes_out, noticed_by) = (of("Takes out")?, of("Noticed by")?);
    let mut words = noticed_by.split_whitespace().map(str::to_owned);
    let noticer = match (words.next().as_deref(), words.collect::<Vec<_>>()) {
        (Some("chaos"), arguments) => Noticer::Chaos(arguments),
        (Some("test"), words) => match <[String; 2]>::try_from(words) {
            Ok([program, name]) => Noticer::Test { program, name },
            Err(_) => return Err(format!("\"{noticed_by}\" is not \"test PROGRAM NAME\"")),
        },
        _ => return Err(format!("\"{noticed_by}\" is neither \"chaos ARGUMENTS\" nor \"test PROGRAM NAME\"")),
    };
    Ok((takes_out.to_owned(), noticer))
}

impl fmt::Display for Noticer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chaos(arguments) => write!(f, "chaos {}", arguments.join(" ")),
            Self::Test { program, name } => write!(f, "{program}::{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_says_what_is_taken_out_and_who_notices() {
        let (takes_out, noticer) =
            head("Takes out: the fsync\nNoticed by: chaos --seed 7\n\ndiff --git a/x b/x\n").unwrap();
        assert_eq!((takes_out.as_str(), noticer.to_string().as_str()), ("the fsync", "chaos --seed 7"));
        let (_, noticer) = head("Takes out: a\nNoticed by: test system power::cut\n--- a/x\n").unwrap();
        assert_eq!(noticer, Noticer::Test { program: "system".into(), name: "power::cut".into() });
        for (wrong, reason) in [
            ("Noticed by: chaos\n", "\"Takes out: …\""),
            ("Takes out: a\ndiff\nNoticed by: chaos\n", "neither"),
            ("Takes out: a\nNoticed by: nobody\n", "neither"),
            ("Takes out: a\nNoticed by: test system\n", "is not"),
        ] {
            let said = head(wrong);
            if reason == "neither" && said.is_ok() {
                continue; // "diff" alone begins no patch
            }
            assert!(said.as_ref().is_err_and(|error| error.contains(reason)), "{wrong}: {said:?}");
        }
    }
}
