//! The files of the repository, read once for all rules.

use std::io;
use std::path::{Path, PathBuf};

/// Folders that hold nothing we wrote.
const SKIPPED: &[&str] =
    &["target", ".git", ".venv", "node_modules", "__pycache__", "corpus", "artifacts", "robustmq-data"];

/// Endings of files that rules read as text; files without an ending (scripts) are read too.
const TEXT: &[&str] = &[
    "css", "html", "java", "js", "json", "md", "mjs", "proto", "py", "rs", "sh", "toml", "ts", "txt", "xml",
    "yaml", "yml",
];

/// Bound: larger files are data, not something a person reads.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// A text file of the repository.
pub(crate) struct File {
    /// Relative to the root, with `/` between levels.
    pub path: String,
    /// What it holds.
    pub text: String,
}

impl File {
    /// Whether it is Rust source.
    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// The levels of its path.
    pub(crate) fn levels(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.path.split('/')
    }

    /// The number (from 1) of the first line that `matches`, or 1.
    pub(crate) fn line_where(&self, matches: impl Fn(&str) -> bool) -> usize {
        self.text.lines().position(matches).map_or(1, |index| index + 1)
    }
}

/// All text files below a root, sorted by path.
pub(crate) struct Tree {
    /// The files.
    pub files: Vec<File>,
    root: PathBuf,
}

impl Tree {
    /// Reads everything below `root`.
    pub(crate) fn load(root: &Path) -> io::Result<Tree> {
        let mut tree = Tree { files: Vec::new(), root: root.to_owned() };
        tree.read_folder(root)?;
        tree.files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(tree)
    }

    /// The text file at `path`, if there is one.
    pub(crate) fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// Whether anything, text or not, is at `path`.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }

    fn read_folder(&mut self, folder: &Path) -> io::Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type()?;
            if kind.is_dir() && !SKIPPED.contains(&name.as_str()) {
                self.read_folder(&entry.path())?;
            } else if kind.is_file() && is_text(&name) && entry.metadata()?.len() <= FILE_BYTES_MAX {
                self.read_file(&entry.path())?;
            }
        }
        Ok(())
    }

    fn read_file(&mut self, path: &Path) -> io::Result<()> {
        let relative = path.strip_prefix(&self.root).expect("the walk began at the root");
        let relative = relative.to_string_lossy().replace('\\', "/");
        if relative == ".cargo/local.toml" {
            return Ok(());
        }
        // A file that is not UTF-8 is data.
        if let Ok(text) = String::from_utf8(std::fs::read(path)?) {
            self.files.push(File { path: relative, text });
        }
        Ok(())
    }
}

fn is_text(name: &str) -> bool {
    match name.rsplit_once('.') {
        Some((_, ending)) => TEXT.contains(&ending),
        None => true,
    }
}
