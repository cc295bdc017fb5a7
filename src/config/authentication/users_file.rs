//! Users in a file of their own, beside the configuration: other people may look after them.

use std::collections::BTreeMap;

use super::{KEY_NAMES_USER, USERS_MAX, User, check_users, key_is_taken};
use crate::config::Realm;
use crate::config::errors::{ConfigErrors, Problems};
use crate::config::kinds::several;
use crate::config::parse::read_toml;
use crate::config::section::{Fields, Reader, Section, section};
use crate::config::tree::{Path, Value};

/// `[[user]]`, with the keys of `[[realm.user]]`.
struct UsersFile {
    users: Vec<User>,
}

section! {
    UsersFile {
        users ["user"]: several(USERS_MAX), Vec::new();
    }
}

impl Section for UsersFile {}

impl Realm {
    /// Adds the users of `users_file`, whose text this is, to those of the configuration.
    ///
    /// # Errors
    /// Everything that is wrong with them at once. Nobody is added then.
    pub fn add_users(&mut self, file_name: &str, text: &str) -> Result<(), ConfigErrors> {
        let mut problems = Problems::new(file_name, text, &[]);
        let root = match read_toml(text) {
            Ok(root) => root,
            Err((origin, problem)) => {
                problems.add_at(origin, &Path::default(), problem, None);
                return problems.into_result(());
            }
        };
        let Value::Table(table) = &root.value else { return problems.into_result(()) };
        let mut reader = Reader { root: &root, problems };
        let path = Path::default();
        let UsersFile { users } = UsersFile::read_at(&mut reader, &path, Some(table));
        let mut fields = Fields::of(&mut reader, &path, Some(table));
        check_users(self, &users, &mut fields);
        let list = path.key("user");
        let keys =
            self.users.iter().flat_map(|user| user.authorized_keys.iter().map(|key| (*key, &*user.authid)));
        let owners: BTreeMap<_, _> = keys.collect();
        for (index, user) in users.iter().enumerate() {
            if self.users.iter().any(|known| known.authid == user.authid) {
                let problem = format!("the user `{}` is in the configuration already", user.authid);
                reader.problem(&list.index(index).key("authid"), problem, None);
            }
            for (place, key) in user.authorized_keys.iter().enumerate() {
                if let Some(owner) = owners.get(key) {
                    let path = list.index(index).key("authorized_keys").index(place);
                    reader.problem(&path, key_is_taken(owner), Some(KEY_NAMES_USER.to_owned()));
                }
            }
        }
        self.users.extend(reader.into_result(users)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::config::tests::with_users;

    const JOE: &str = "[[realm.user]]\nauthid = \"joe\"\nrole = \"anonymous\"\nticket = \"secret\"";

    #[test]
    fn users_of_the_file_are_users_like_others() {
        let mut config = with_users(JOE);
        let text = "[[user]]\nauthid = \"bob\"\nrole = \"anonymous\"\nticket_env = \"BOB\"\n";
        config.realms[0].add_users("users.toml", text).unwrap();
        config.read_secrets(|_| Some("of bob".to_owned()), |_| Err(String::new())).unwrap();
        let users: Vec<_> = config.realms[0].users.iter().map(|user| user.authid.as_str()).collect();
        assert_eq!(users, ["joe", "bob"]);
        assert_eq!(config.realms[0].users[1].ticket.as_ref().unwrap().expose(), "of bob");
    }

    /// A key names its user to a client that sends no authid.
    #[test]
    fn a_key_of_a_configured_user_is_nobody_elses() {
        let key = "01".repeat(32);
        let mut config =
            with_users(&JOE.replace("ticket = \"secret\"", &format!("authorized_keys = [\"{key}\"]")));
        let other = "02".repeat(32);
        let text = format!(
            "[[user]]\nauthid = \"eve\"\nrole = \"anonymous\"\nauthorized_keys = [\"{other}\", \"{key}\"]\n"
        );
        let errors = config.realms[0].add_users("users.toml", &text).unwrap_err().to_string();
        assert!(
            errors.contains("users.toml:4") && errors.contains("the user `joe` has this key already"),
            "{errors}"
        );
        assert_eq!(config.realms[0].users.len(), 1);
        config.realms[0].add_users("users.toml", &text.replace(&format!(", \"{key}\""), "")).unwrap();
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once_and_nobody_is_added() {
        let text = "[[user]]\nauthid = \"joe\"\nrole = \"anonymous\"\nticket = \"a\"\n\
                    [[user]]\nauthid = \"bob\"\nrole = \"emperor\"\nticket = \"b\"\n\
                    [[user]]\nauthid = \"bob\"\nrole = \"anonymous\"\ntiket = \"c\"\n";
        let mut config = with_users(JOE);
        let errors = config.realms[0].add_users("users.toml", text).unwrap_err().to_string();
        for part in [
            "users.toml:2:10",
            "the user `joe` is in the configuration already",
            "the realm has no role `emperor`",
            "the user `bob`",
            "tiket",
        ] {
            assert!(errors.contains(part), "{part} is not in:\n{errors}");
        }
        assert_eq!(config.realms[0].users.len(), 1);
        assert!(config.realms[0].add_users("users.toml", "what").is_err());
    }
}
