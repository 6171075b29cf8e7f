//! Whose directory this is.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::Path;

const FORMAT: &str = "sluice-journal 1";

/// Takes the directory for this process, and checks that it is this broker's. Makes it where it is new.
/// The lock is held as long as the returned file lives.
///
/// # Errors
/// It cannot be used, is in use, is another broker's or has another format.
pub(crate) fn claim(directory: &Path, broker: &str) -> Result<File, String> {
    let at = directory.display();
    fs::create_dir_all(directory).map_err(|e| format!("cannot make {at}: {e}"))?;
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(directory.join("lock"))
        .map_err(|e| format!("cannot open the lock file in {at}: {e}"))?;
    lock.try_lock()
        .map_err(|e| format!("{at} is in use by another process ({e}); only one broker may open it"))?;
    let path = directory.join("identity");
    match fs::read_to_string(&path) {
        Ok(text) => check(&text, broker).map_err(|e| format!("{at}: {e}"))?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            write(directory, broker).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
        }
        Err(e) => return Err(format!("cannot read {}: {e}", path.display())),
    }
    Ok(lock)
}

/// Makes the names in a directory durable.
///
/// # Errors
/// What the system says.
pub(crate) fn sync_directory(directory: &Path) -> std::io::Result<()> {
    File::open(directory)?.sync_all()
}

fn check(text: &str, broker: &str) -> Result<(), String> {
    let mut lines = text.lines();
    let format = lines.next().unwrap_or_default();
    if format != FORMAT {
        return Err(format!("has format {format:?}, this program writes {FORMAT:?}"));
    }
    let owner = lines.next().unwrap_or_default();
    if owner != broker {
        return Err(format!(
            "belongs to broker {owner:?}, this one is {broker:?}; give each broker its own directory"
        ));
    }
    Ok(())
}

fn write(directory: &Path, broker: &str) -> std::io::Result<()> {
    let temporary = directory.join("identity.new");
    let mut file = File::create(&temporary)?;
    writeln!(file, "{FORMAT}\n{broker}")?;
    file.sync_all()?;
    fs::rename(&temporary, directory.join("identity"))?;
    sync_directory(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_brokers_directory_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        drop(claim(directory.path(), "orders-0").unwrap());
        drop(claim(directory.path(), "orders-0").unwrap());
        let refused = claim(directory.path(), "orders-1").unwrap_err();
        assert!(refused.contains("belongs to broker \"orders-0\""), "{refused}");
    }

    #[test]
    fn a_second_process_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let _held = claim(directory.path(), "orders-0").unwrap();
        let refused = claim(directory.path(), "orders-0").unwrap_err();
        assert!(refused.contains("in use"), "{refused}");
    }

    #[test]
    fn another_format_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("identity"), "sluice-journal 9\norders-0\n").unwrap();
        let refused = claim(directory.path(), "orders-0").unwrap_err();
        assert!(refused.contains("sluice-journal 9"), "{refused}");
    }
}
