//! Files with the keys of tokens, read again when they change.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::cores::Core;
use crate::config::Config;
use crate::config::authentication::{SECRET_BYTES_MAX, Secret};
use crate::router::peer::RealmIndex;
use crate::token::Keys;

/// How often the files are looked at.
const INTERVAL: Duration = Duration::from_secs(2);

/// All of them.
#[derive(Debug)]
pub(super) struct SigningKeyFiles {
    files: Vec<KeyFile>,
    next_us: u64,
}

#[derive(Debug)]
struct KeyFile {
    realm: RealmIndex,
    name: String,
    path: PathBuf,
    /// What the realm takes beside.
    secret: Option<Secret>,
    /// What was read last, good or not.
    text: String,
}

impl SigningKeyFiles {
    pub(super) fn new(config: &Config) -> Self {
        let files = (0..).zip(&config.realms).filter_map(|(index, realm)| {
            let token = realm.token.as_ref()?;
            Some(KeyFile {
                realm: RealmIndex(index),
                name: realm.name.clone(),
                path: token.keys_file.clone()?,
                secret: token.secret.clone(),
                text: token.keys.to_string(),
            })
        });
        Self { files: files.collect(), next_us: 0 }
    }

    /// Looks, when it is time to, and tells the cores what is new. Keys that make no sense change nothing.
    pub(super) fn watch(&mut self, now_us: u64, cores: &[Core]) {
        if self.files.is_empty() || now_us < self.next_us {
            return;
        }
        self.next_us = now_us + INTERVAL.as_micros() as u64;
        for file in &mut self.files {
            // The whole of it: a time of change says too little, and it is short.
            let Ok(text) = read(&file.path) else { continue };
            if text == file.text {
                continue;
            }
            file.text = text;
            match Keys::parse(&file.text) {
                Ok(mut keys) => {
                    if let Some(secret) = &file.secret {
                        keys = keys.with_secret(secret.expose());
                    }
                    let keys = Arc::new(keys);
                    for core in cores {
                        core.control.set_signing_keys(file.realm, Arc::clone(&keys));
                        core.waker.wake();
                    }
                    info!(realm = file.name, "the keys of tokens were read again");
                }
                Err(problem) => {
                    let path = file.path.display();
                    warn!(realm = file.name, "the keys of tokens stay as they were: {path}: {problem}");
                }
            }
        }
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(SECRET_BYTES_MAX as u64).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_of_tokens_is_shown_nowhere() {
        let text = "[[realm]]\nname = \"realm1\"\n[[realm.role]]\nname = \"anonymous\"\n\
                    [realm.token]\nsecret = \"do not show this\"\nkeys_file = \"/keys\"\n";
        let config = crate::config::parse("", text, &[]).unwrap();
        let shown = format!("{:?}", SigningKeyFiles::new(&config));
        assert!(shown.contains("/keys") && !shown.contains("do not"), "{shown}");
    }
}
