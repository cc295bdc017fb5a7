//! Text to [`Config`] and back, and what must hold between its tables.

use std::ffi::OsString;

use super::environment;
use super::errors::{ConfigErrors, Problems};
use super::kinds::{did_you_mean, several, single};
use super::section::{Fields, Reader, Section, section};
use super::tree::{Node, Origin, Path, Value};
use super::{
    AuthMethod, Config, Limits, Listener, Log, Realm, database, database_inside, listener, print, realm,
};

/// The longest file that is read.
const TEXT_BYTES_MAX: usize = 16 << 20;

section! {
    Config {
        node: single(), super::Node::defaults();
        limits: single(), Limits::defaults();
        realms ["realm"]: several(realm::REALMS_MAX), vec![realm::default_realm()];
        listeners ["listener"]: several(listener::LISTENERS_MAX), vec![Listener::defaults()];
        databases ["database"]: several(database::DATABASES_MAX), Vec::new();
    }
}

/// Reads a configuration: TOML, with the variables of `environment` that begin with `CROSSPOINT__` above it. The file's
/// name is for the messages only.
///
/// # Errors
/// Everything that is wrong with it at once, but of a text that is no TOML only where its syntax first fails.
pub fn parse(
    file_name: &str,
    text: &str,
    environment: &[(String, OsString)],
) -> Result<Config, ConfigErrors> {
    let mut problems = Problems::new(file_name, text, environment);
    let mut root = match read_toml(text) {
        Ok(root) => root,
        Err((origin, problem)) => {
            problems.add_at(origin, &Path::default(), problem, None);
            return problems.into_result(Config::default());
        }
    };
    environment::apply(&mut root, environment, &mut problems);
    let Value::Table(table) = &root.value else { return problems.into_result(Config::default()) };
    let mut reader = Reader { root: &root, problems };
    let config = Config::read_at(&mut reader, &Path::default(), Some(table));
    reader.into_result(config)
}

pub(super) fn read_toml(text: &str) -> Result<Node, (Origin, String)> {
    if text.len() > TEXT_BYTES_MAX {
        return Err((Origin::Nowhere, format!("the file is longer than {TEXT_BYTES_MAX} bytes")));
    }
    Node::from_toml(text).map_err(|error| {
        let span = error.span().unwrap_or(0..0);
        (Origin::Text { start: span.start, end: span.end }, format!("this is not TOML: {}", error.message()))
    })
}

impl Config {
    /// The configuration as TOML with every key written out: what [`parse`] reads as the same configuration.
    #[must_use]
    pub fn to_toml(&self) -> String {
        print::print(&self.to_table())
    }
}

impl Section for Config {
    fn check(&mut self, fields: &mut Fields<'_, '_>) {
        for (key, is_empty) in [("realm", self.realms.is_empty()), ("listener", self.listeners.is_empty())] {
            if is_empty && fields.is_sound(key) {
                fields.problem(key, "the list is empty", "leave the key out to have the default");
            }
        }
        let names =
            self.realms.iter().map(|realm| Some((&realm.name, format!("the realm `{}`", realm.name))));
        fields.reader.refuse_duplicates(&fields.path.key("realm"), &["name"], names);
        for (index, realm) in self.realms.iter().enumerate() {
            let path = fields.path.key("realm").index(index);
            realm::check(realm, self.limits.uri_limits(), fields.reader, &path);
            self.check_cores(realm.home, fields, &path.key("home"));
            self.check_authenticator(realm, fields, &path.key("authenticator_realm"));
            self.check_cookies(realm, fields, &path.key("authmethods"));
        }
        self.check_listeners(fields);
        let names = self.databases.iter().map(|it| Some((&it.name, format!("the database `{}`", it.name))));
        fields.reader.refuse_duplicates(&fields.path.key("database"), &["name"], names);
        database_inside::check_doors(self, fields);
        if fields.is_sound("realm") {
            for (index, database) in self.databases.iter().enumerate() {
                let path = fields.path.key("database").index(index);
                database::check_realm(database, &self.realms, fields.reader, &path);
                database_inside::check_role(database, &self.realms, fields, &path);
                database_inside::check_topics(self, database, fields, &path);
            }
        }
    }
}

impl Config {
    fn check_listeners(&self, fields: &mut Fields<'_, '_>) {
        listener::check_all(&self.listeners, fields);
        let has_realms = fields.has("realm");
        // With a realm amiss nobody can tell which roles were meant to be there.
        let realms_are_sound = fields.is_sound("realm");
        for (index, listener) in self.listeners.iter().enumerate() {
            let path = fields.path.key("listener").index(index);
            if realms_are_sound {
                listener::check_role(listener, &self.realms, fields.reader, &path);
            }
            if !has_realms {
                listener::check_exposure(listener, fields.reader, &path);
            }
            self.check_cores(listener.cores.iter().flatten().copied(), fields, &path.key("cores"));
        }
    }

    /// An authenticator is registered in some realm.
    fn check_authenticator(&self, realm: &Realm, fields: &mut Fields<'_, '_>, path: &Path) {
        let Some(name) = realm.authenticator_realm.as_deref() else { return };
        if fields.reader.is_sound(path) && !self.realms.iter().any(|other| other.name == name) {
            let hint = did_you_mean(name, self.realms.iter().map(|other| other.name.as_str()));
            fields.reader.problem(path, format!("there is no realm `{name}`"), hint);
        }
    }

    /// Who may log in by a cookie must be able to get one.
    fn check_cookies(&self, realm: &Realm, fields: &mut Fields<'_, '_>, path: &Path) {
        let names_cookies =
            realm.authmethods.as_ref().is_some_and(|methods| methods.contains(&AuthMethod::Cookie));
        let is_given = self.listeners.iter().any(|listener| listener.cookie.is_some());
        if names_cookies && !is_given && fields.is_sound("listener") && fields.reader.is_sound(path) {
            let hint = "add a table [listener.cookie] to a listener: it may be empty";
            fields.reader.problem(path, "no listener gives a cookie", Some(hint.to_owned()));
        }
    }

    /// Cores of realms and listeners are indices into those of the node, which are known here if it lists them.
    fn check_cores(
        &self,
        indices: impl IntoIterator<Item = usize>,
        fields: &mut Fields<'_, '_>,
        path: &Path,
    ) {
        let Some(cores) = &self.node.cores else { return };
        if !fields.reader.is_sound(path) {
            return;
        }
        if let Some(index) = indices.into_iter().find(|index| *index >= cores.len()) {
            let problem = format!("there is no core {index}: `node.cores` lists {}", cores.len());
            let hint = format!("this counts the cores of the node from 0 to {}", cores.len() - 1);
            fields.reader.problem(path, problem, Some(hint));
        }
    }
}

/// [`Default`] is what an empty configuration means.
macro_rules! defaults {
    ($($section:ty),*) => {
        $(impl Default for $section {
            fn default() -> Self {
                <Self as Section>::defaults()
            }
        })*
    };
}

defaults!(Config, super::Node, Log, Limits, Listener);
