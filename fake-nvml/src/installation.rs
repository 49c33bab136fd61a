//! A copy of the library in a directory of its own, with its scenario beside it. Each copy has its own state, so tests
//! in one process do not affect each other.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::scenario::Scenario;

/// A library with its scenario.
#[derive(Debug)]
pub struct Installation {
    library: PathBuf,
    scenario: PathBuf,
}

impl Installation {
    /// Copies the library into this directory and writes its scenario beside it.
    ///
    /// # Errors
    ///
    /// The library could not be copied, or the scenario could not be written.
    pub fn new(library: &Path, directory: &Path, scenario: &Scenario) -> io::Result<Self> {
        let installation =
            Self { library: directory.join("libnvidia-ml.so.1"), scenario: directory.join("scenario.json") };
        fs::copy(library, &installation.library)?;
        installation.set(scenario)?;
        Ok(installation)
    }

    /// The library that cargo built for the running test.
    ///
    /// # Errors
    ///
    /// The running program has no path.
    pub fn built_for_this_test() -> io::Result<PathBuf> {
        Ok(std::env::current_exe()?.with_file_name("libfake_nvml.so"))
    }

    /// The path of the library.
    pub fn library(&self) -> &Path {
        &self.library
    }

    /// Replaces the scenario atomically.
    ///
    /// # Errors
    ///
    /// The file could not be written.
    pub fn set(&self, scenario: &Scenario) -> io::Result<()> {
        let next = self.scenario.with_extension("next");
        fs::write(&next, serde_json::to_vec_pretty(scenario)?)?;
        fs::rename(next, &self.scenario)
    }
}
