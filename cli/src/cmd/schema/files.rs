//! Schema files: `NAME.avsc`, or `NAME.vN.avsc` for one version of several.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// A schema file.
#[derive(Debug)]
pub(super) struct SchemaFile {
    /// Its name without the folder.
    pub(super) name: String,
    pub(super) json: String,
}

impl SchemaFile {
    pub(super) fn read(path: &Path) -> anyhow::Result<SchemaFile> {
        let json = std::fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(SchemaFile { name, json })
    }

    /// `audit_event` and 2 of `audit_event.v2.avsc`.
    pub(super) fn version(&self) -> Option<(&str, u32)> {
        version(&self.name)
    }
}

/// `audit_event` and 2 of `audit_event.v2.avsc`.
pub(super) fn version(name: &str) -> Option<(&str, u32)> {
    let (stem, number) = name.strip_suffix(".avsc")?.rsplit_once(".v")?;
    Some((stem, number.parse().ok()?))
}

/// The files named, and every `.avsc` of the folders named, earlier versions first.
pub(super) fn read_all(paths: &[PathBuf]) -> anyhow::Result<Vec<SchemaFile>> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(SchemaFile::read(path)?);
            continue;
        }
        let listed = std::fs::read_dir(path).with_context(|| format!("can't read {}", path.display()))?;
        let mut found = Vec::new();
        for entry in listed {
            let path = entry.with_context(|| format!("can't read {}", path.display()))?.path();
            if path.extension().is_some_and(|extension| extension == "avsc") {
                found.push(SchemaFile::read(&path)?);
            }
        }
        if found.is_empty() {
            bail!("{} holds no .avsc file", path.display());
        }
        files.extend(found);
    }
    files.sort_by(|a, b| {
        let key = |file: &SchemaFile| file.version().map(|(stem, number)| (stem.to_owned(), number));
        (key(a), &a.name).cmp(&(key(b), &b.name))
    });
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn a_version_is_in_the_name() {
        assert_eq!(version("audit_event.v12.avsc"), Some(("audit_event", 12)));
        for other in ["audit_event.avsc", "audit_event.v1.json", "audit_event.vx.avsc"] {
            assert_eq!(version(other), None, "{other}");
        }
    }
}
