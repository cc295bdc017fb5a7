//! Variables that begin with `CROSSPOINT__` stand above the file: `CROSSPOINT__LISTENER__0__PORT=9000`.

use std::ffi::OsString;

use super::errors::Problems;
use super::tree::{Entry, Node, Origin, Path, Step, Table, Value, Wanted};

/// What the variables of the configuration begin with.
pub const PREFIX: &str = "CROSSPOINT__";
/// Between the keys of a path.
pub(super) const SEPARATOR: &str = "__";
/// How many keys deep a variable may lead; the deepest key there is has five.
const STEPS_MAX: usize = 16;

/// Lays the variables over the tree of the file. A key that nobody knows is found later, when the tree is read.
pub(super) fn apply(root: &mut Node, environment: &[(String, OsString)], problems: &mut Problems<'_>) {
    let mut variables: Vec<(Vec<Step>, usize, &str)> = Vec::new();
    for (index, (name, words)) in environment.iter().enumerate() {
        let Some(path) = name.strip_prefix(PREFIX) else { continue };
        match (steps(path), words.to_str()) {
            (Ok(steps), Some(words)) => variables.push((steps, index, words)),
            (Ok(steps), None) => {
                let path = steps.into_iter().fold(Path::default(), |path, step| path.with(step));
                let problem = "the value is not UTF-8".to_owned();
                problems.add_at(Origin::Variable(index), &path, problem, None);
            }
            (Err((problem, hint)), _) => {
                problems.add_at(Origin::Variable(index), &Path::default(), problem, Some(hint));
            }
        }
    }
    // Tables before what is in them and the first element of a list before the second, in whatever order they were set.
    variables.sort();
    for (steps, index, words) in variables {
        if let Err((path, problem)) = set(root, &steps, Origin::Variable(index), words.to_owned()) {
            problems.add_at(Origin::Variable(index), &path, problem, None);
        }
    }
}

/// The path that a variable names, or what is wrong with it and what to do.
fn steps(path: &str) -> Result<Vec<Step>, (String, String)> {
    if path.bytes().any(|byte| byte.is_ascii_lowercase()) {
        let hint = format!("write {PREFIX}{}", path.to_ascii_uppercase().escape_debug());
        return Err(("the name must be in upper case".to_owned(), hint));
    }
    let parts: Vec<&str> = path.split(SEPARATOR).collect();
    if parts.len() > STEPS_MAX || parts.iter().any(|part| part.is_empty()) {
        let hint = format!("write the path with two underscores between its keys, as in {PREFIX}NODE__CORES");
        return Err(("the name leads to no key".to_owned(), hint));
    }
    let is_index = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let steps = parts.iter().map(|part| match part.parse() {
        Ok(index) if is_index(part) => Step::Index(index),
        _ => Step::Key(part.to_ascii_lowercase()),
    });
    Ok(steps.collect())
}

/// Puts the words of a variable where the steps lead; the error is the path that cannot be entered, and why.
fn set(root: &mut Node, steps: &[Step], origin: Origin, words: String) -> Result<(), (Path, String)> {
    let mut node = root;
    let mut path = Path::default();
    for step in steps {
        node = enter(node, step, origin).map_err(|problem| (path.clone(), problem))?;
        path = path.with(step.clone());
    }
    *node = Node { value: Value::Words(words), origin };
    Ok(())
}

/// One step down; what is not there yet is made.
fn enter<'n>(node: &'n mut Node, step: &Step, origin: Origin) -> Result<&'n mut Node, String> {
    // Nothing is here yet, or the text of a variable, which is now seen to be a table or a list.
    if let Value::Words(words) = &node.value {
        node.value = match step {
            Step::Key(_) if words.is_empty() => Value::Table(Table::default()),
            Step::Key(_) => node.as_wanted(Wanted::Value).into_owned().value,
            Step::Index(_) => node.as_wanted(Wanted::List).into_owned().value,
        };
    }
    let nothing = || Node { value: Value::Words(String::new()), origin };
    let type_name = node.type_name();
    match (step, &mut node.value) {
        (Step::Key(key), Value::Table(table)) => {
            let at = table.entries.iter().position(|entry| entry.key == *key).unwrap_or_else(|| {
                table.entries.push(Entry { key: key.clone(), key_origin: origin, node: nothing() });
                table.entries.len() - 1
            });
            Ok(&mut table.entries[at].node)
        }
        (Step::Index(index), Value::Array(nodes)) => {
            if *index > nodes.len() {
                return Err(format!("element {index} cannot be set: the list has {}", nodes.len()));
            }
            if *index == nodes.len() {
                nodes.push(nothing());
            }
            Ok(&mut nodes[*index])
        }
        (Step::Key(key), Value::Array(_)) => Err(format!(
            "this is a list: the number of an element must stand before `{}`",
            key.escape_debug()
        )),
        _ => Err(format!("nothing can be set inside {type_name}")),
    }
}
