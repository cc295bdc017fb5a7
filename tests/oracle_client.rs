//! A router on a machine without the client library of Oracle says so, and finds it once it is there. A process loads it once,
//! so this is a process of its own.

#![cfg(feature = "oracle")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use crosspoint::database::{Driver as _, Problem};

#[path = "database/oracle.rs"]
mod oracle;

#[test]
fn a_missing_client_library_is_said_with_what_to_install() {
    let script = oracle::Script::new("");
    let folder = std::env::temp_dir().join(format!("crosspoint-no-oracle-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let mut driver = script.driver();
    driver.client = Some(folder.clone());
    let Err(Problem(text)) = driver.connect(0) else { panic!("it has found one") };
    for part in ["no client library of Oracle", "DPI-1047", "install Oracle Instant Client", "`client_path`"]
    {
        assert!(text.contains(part), "{text}");
    }
    // It is installed, and nothing was started again.
    std::fs::copy(oracle::client().join("libclntsh.so"), folder.join("libclntsh.so")).unwrap();
    assert!(driver.connect(0).is_ok());
    std::fs::remove_dir_all(folder).unwrap();

    // A server that does not answer is another problem.
    let mut nowhere = oracle::Script::new("").driver();
    nowhere.settings.connect.push_str("-nowhere");
    let Err(Problem(text)) = nowhere.connect(0) else { panic!("there is none") };
    assert_eq!(text, "ORA-12541: TNS:no listener");
}
