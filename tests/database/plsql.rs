//! What can be said of SQL and PL/SQL without a server: whether quotes, brackets and blocks are closed, whether statements end as
//! they are to be run, and whether what is called of our packages is there, with so many parameters and of those names.
//!
//! It knows the words that open and close blocks, and not the language.
#![allow(dead_code, reason = "each test takes what it needs")]

use std::collections::{BTreeMap, BTreeSet};

/// A part of a statement, without comments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// In small letters.
    Word(String),
    /// A name in double quotes.
    Name(String),
    Text(String),
    Placeholder(String),
    Symbol(&'static str),
}

const SYMBOLS: [&str; 27] = [
    ":=", "=>", "||", "<>", "<=", ">=", "!=", "..", "(", ")", ",", ";", ".", "+", "-", "*", "/", "=", "<",
    ">", "%", "[", "]", "?", "@", "!", "|",
];

/// Words that no placeholder may be called by (ORA-01745).
const RESERVED: [&str; 66] = [
    "access", "add", "all", "alter", "and", "any", "as", "asc", "audit", "between", "by", "char", "check",
    "column", "comment", "connect", "create", "current", "date", "decimal", "default", "delete", "desc",
    "distinct", "drop", "else", "exists", "file", "float", "for", "from", "grant", "group", "having", "in",
    "index", "insert", "integer", "into", "is", "level", "like", "lock", "long", "mode", "modify", "not",
    "null", "number", "of", "on", "option", "or", "order", "public", "raw", "rename", "row", "select",
    "session", "set", "size", "start", "table", "user", "values",
];

/// The parts of a statement.
pub(crate) fn tokens(sql: &str) -> Result<Vec<Token>, String> {
    let (mut found, mut rest) = (Vec::new(), sql.trim_start());
    let is_of_word = |character: char| character.is_alphanumeric() || matches!(character, '_' | '$' | '#');
    while let Some(first) = rest.chars().next() {
        if let Some(comment) = rest.strip_prefix("--") {
            rest = comment.find('\n').map_or("", |end| &comment[end..]);
        } else if let Some(comment) = rest.strip_prefix("/*") {
            rest = &comment[comment.find("*/").ok_or("a comment is not closed")? + 2..];
        } else if first == '\'' {
            let (text, behind) = quoted(&rest[1..], '\'').ok_or("a text is not closed")?;
            found.push(Token::Text(text));
            rest = behind;
        } else if first == '"' {
            let (name, behind) = quoted(&rest[1..], '"').ok_or("a name is not closed")?;
            found.push(Token::Name(name));
            rest = behind;
        } else if is_of_word(first) {
            let end = rest.find(|character| !is_of_word(character)).unwrap_or(rest.len());
            found.push(Token::Word(rest[..end].to_lowercase()));
            rest = &rest[end..];
        } else if first == ':' && rest[1..].starts_with(is_of_word) {
            let end = rest[1..].find(|character| !is_of_word(character)).map_or(rest.len(), |end| end + 1);
            found.push(Token::Placeholder(rest[1..end].to_lowercase()));
            rest = &rest[end..];
        } else {
            let symbol = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol));
            let symbol = symbol.ok_or_else(|| format!("{first:?} means nothing"))?;
            found.push(Token::Symbol(symbol));
            rest = &rest[symbol.len()..];
        }
        rest = rest.trim_start();
    }
    Ok(found)
}

/// Up to the quote that closes; two of them are one that does not.
fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let (mut inner, mut rest) = (String::new(), text);
    loop {
        let end = rest.find(quote)?;
        inner.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix(quote) {
            Some(behind) => {
                inner.push(quote);
                rest = behind;
            }
            None => return Some((inner, rest)),
        }
    }
}

pub(crate) fn is_word(token: Option<&Token>, words: &[&str]) -> bool {
    matches!(token, Some(Token::Word(word)) if words.contains(&&**word))
}

fn is_symbol(token: Option<&Token>, symbol: &str) -> bool {
    matches!(token, Some(Token::Symbol(other)) if *other == symbol)
}

/// Whether a statement is PL/SQL, which keeps its last semicolon.
pub(crate) fn is_block(tokens: &[Token]) -> bool {
    let defines = is_word(tokens.first(), &["create"])
        && tokens
            .iter()
            .take(5)
            .any(|it| is_word(Some(it), &["package", "procedure", "function", "trigger"]));
    is_word(tokens.first(), &["begin", "declare"]) || defines
}

/// What is wrong with a statement as it is given to the server; nothing, if nothing is.
pub(crate) fn wrong_with(sql: &str) -> Vec<String> {
    let tokens = match tokens(sql) {
        Ok(tokens) if tokens.is_empty() => return vec!["it is empty".to_owned()],
        Ok(tokens) => tokens,
        Err(wrong) => return vec![wrong],
    };
    let mut wrong = Vec::new();
    let mut brackets = 0_i32;
    for token in &tokens {
        brackets += i32::from(is_symbol(Some(token), "(")) - i32::from(is_symbol(Some(token), ")"));
        if brackets < 0 {
            break;
        }
        if let Token::Placeholder(name) = token
            && RESERVED.contains(&&**name)
        {
            wrong.push(format!("a placeholder cannot be called {name}"));
        }
    }
    if brackets != 0 {
        wrong.push("its brackets are not closed".to_owned());
    }
    if is_block(&tokens) {
        wrong.extend(wrong_with_block(&tokens));
    } else if tokens.iter().any(|token| is_symbol(Some(token), ";")) {
        wrong.push("a statement of SQL has no semicolon".to_owned());
    }
    wrong
}

fn wrong_with_block(tokens: &[Token]) -> Vec<String> {
    let mut depth = 0_i32;
    let mut is_package = is_word(tokens.first(), &["create"])
        && tokens.iter().take(5).any(|it| is_word(Some(it), &["package"]));
    for (place, token) in tokens.iter().enumerate() {
        let Token::Word(word) = token else { continue };
        let before = place.checked_sub(1).and_then(|before| tokens.get(before));
        let is_closing = is_word(before, &["end"]);
        match &**word {
            "is" | "as" if is_package => {
                is_package = false;
                depth += 1;
            }
            "begin" => depth += 1,
            "case" | "loop" | "if" if !is_closing => depth += 1,
            "end" => depth -= 1,
            _ => {}
        }
        if depth < 0 {
            return vec![format!("an end too many, behind {:?}", &tokens[place.saturating_sub(4)..place])];
        }
    }
    let mut wrong = Vec::new();
    if depth > 0 {
        wrong.push(format!("{depth} blocks are not closed"));
    }
    let mut last = tokens.iter().rev();
    if !is_symbol(last.next(), ";") {
        wrong.push("a block ends with a semicolon".to_owned());
    }
    let end = (last.next(), last.next());
    if !is_word(end.0, &["end"]) && !is_word(end.1, &["end"]) {
        wrong.push("a block ends with its end".to_owned());
    }
    wrong
}

/// A function or procedure: its parameters in their order, and how many of them must be given.
#[derive(Clone, Debug)]
pub(crate) struct Declared {
    parameters: Vec<String>,
    required: usize,
}

/// What is there to be called: by package, or none, and name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Library(BTreeMap<(String, String), Vec<Declared>>);

impl Library {
    /// What these statements define for others.
    pub(crate) fn of<'s>(statements: impl IntoIterator<Item = &'s str>) -> Self {
        let mut library = Self::default();
        for sql in statements {
            let Ok(tokens) = tokens(sql) else { continue };
            if !is_word(tokens.first(), &["create"]) || !is_block(&tokens) {
                continue;
            }
            let kinds = ["package", "procedure", "function"];
            let Some(kind) = tokens.iter().position(|token| is_word(Some(token), &kinds)) else { continue };
            let Some(Token::Word(name)) = tokens.get(kind + 1) else { continue };
            if !is_word(tokens.get(kind), &["package"]) {
                library.add("", &tokens[kind + 1..]);
            } else if name != "body" {
                for (place, token) in tokens.iter().enumerate() {
                    if is_word(Some(token), &["function", "procedure"]) {
                        library.add(name, &tokens[place + 1..]);
                    }
                }
            }
        }
        library
    }

    /// A name, and its parameters behind it.
    fn add(&mut self, package: &str, tokens: &[Token]) {
        let Some(Token::Word(name)) = tokens.first() else { return };
        let (mut parameters, mut required) = (Vec::new(), 0);
        for parameter in arguments(&tokens[1..]).unwrap_or_default() {
            let Some(Token::Word(name)) = parameter.first() else { continue };
            let is_optional =
                parameter.iter().any(|it| is_word(Some(it), &["default"]) || is_symbol(Some(it), ":="));
            required += usize::from(!is_optional);
            parameters.push(name.clone());
        }
        let declared = Declared { parameters, required };
        self.0.entry((package.to_owned(), name.clone())).or_default().push(declared);
    }

    pub(crate) fn has(&self, package: &str, name: &str) -> bool {
        self.0.contains_key(&(package.to_owned(), name.to_owned()))
    }

    /// What a statement calls of it that is not there, or not with such parameters; how much it calls.
    pub(crate) fn wrong_calls(&self, sql: &str) -> (usize, Vec<String>) {
        let tokens = tokens(sql).unwrap_or_default();
        let packages: BTreeSet<&str> = self.0.keys().map(|(package, _)| &**package).collect();
        let (mut count, mut wrong) = (0, Vec::new());
        for (place, token) in tokens.iter().enumerate() {
            let Token::Word(word) = token else { continue };
            let (package, name, behind) = match (tokens.get(place + 1), tokens.get(place + 2)) {
                (Some(Token::Symbol(".")), Some(Token::Word(name))) if packages.contains(&&**word) => {
                    (&**word, name, place + 3)
                }
                _ if self.has("", word) => ("", word, place + 1),
                _ => continue,
            };
            let is_of_another = place > 0 && is_symbol(tokens.get(place - 1), ".");
            let is_defined = place > 0
                && is_word(tokens.get(place - 1), &["package", "body", "procedure", "function", "on"]);
            if is_defined || package.is_empty() && is_of_another {
                continue;
            }
            count += 1;
            let call = format!("{package}.{name}");
            let Some(known) = self.0.get(&(package.to_owned(), name.clone())) else {
                wrong.push(format!("{call} is not there"));
                continue;
            };
            let given = arguments(&tokens[behind..]).unwrap_or_default();
            if !known.iter().any(|declared| declared.takes(&given)) {
                wrong.push(format!("{call} does not take {given:?}"));
            }
        }
        (count, wrong)
    }
}

impl Declared {
    fn takes(&self, given: &[&[Token]]) -> bool {
        let mut missing: BTreeSet<&str> = self.parameters[..].iter().map(String::as_str).collect();
        if given.len() > self.parameters.len() || given.len() < self.required {
            return false;
        }
        given.iter().enumerate().all(|(place, tokens)| {
            let name = match (tokens.first(), tokens.get(1)) {
                (Some(Token::Word(name)), Some(Token::Symbol("=>"))) => name,
                _ => &self.parameters[place],
            };
            missing.remove(&**name)
        })
    }
}

/// What stands in the brackets that open here, between commas; `None`: none open.
fn arguments(tokens: &[Token]) -> Option<Vec<&[Token]>> {
    if !is_symbol(tokens.first(), "(") {
        return None;
    }
    let (mut depth, mut begin, mut found) = (0, 1, Vec::new());
    for (place, token) in tokens.iter().enumerate() {
        match token {
            Token::Symbol("(") => depth += 1,
            Token::Symbol(")") => depth -= 1,
            Token::Symbol(",") if depth == 1 => {
                found.push(&tokens[begin..place]);
                begin = place + 1;
            }
            _ => {}
        }
        if depth == 0 {
            if place > begin {
                found.push(&tokens[begin..place]);
            }
            return Some(found);
        }
    }
    None
}

/// Functions that stand in the body of a package alone and are used by its SQL, which does not know them (PLS-00231).
pub(crate) fn private_functions_in_sql(body: &str, library: &Library) -> Vec<String> {
    let Ok(tokens) = tokens(body) else { return Vec::new() };
    let Some(at) = tokens.iter().position(|token| is_word(Some(token), &["body"])) else { return Vec::new() };
    let Some(Token::Word(package)) = tokens.get(at + 1) else { return Vec::new() };
    let mut private = BTreeSet::new();
    for pair in tokens.windows(2) {
        if let [Token::Word(word), Token::Word(name)] = pair
            && word == "function"
            && !library.has(package, name)
        {
            private.insert(name.clone());
        }
    }
    let (mut found, mut is_sql) = (Vec::new(), false);
    for (place, token) in tokens.iter().enumerate() {
        let before = place.checked_sub(1).and_then(|before| tokens.get(before));
        match token {
            Token::Symbol(";") => is_sql = false,
            Token::Word(word) if word == "loop" => is_sql = false,
            Token::Word(word) if matches!(&**word, "select" | "insert" | "update" | "delete") => {
                is_sql |= !is_word(before, &["for", "or", "after", "before"]);
            }
            Token::Word(word) if is_sql && private.contains(word) && !is_symbol(before, ".") => {
                found.push(format!("{package}: {word}"));
            }
            _ => {}
        }
    }
    found
}

#[test]
fn statements_are_judged() {
    for good in [
        "select 'it''s; not' from dual -- the end;",
        "begin null; end;",
        "begin if a then x := case when b then 1 end; end if; for i in 1 .. 2 loop null; end loop; end;",
        "create or replace package p as function f(a number default 1) return number; end;",
        "create or replace package body p as function f return number is begin return 1; end; end p;",
        "create or replace trigger t before insert on x for each row begin null; end;",
    ] {
        assert_eq!(wrong_with(good), Vec::<String>::new(), "{good}");
    }
    for (bad, part) in [
        ("", "it is empty"),
        ("select 'x from dual", "a text is not closed"),
        ("select (1 from dual", "brackets"),
        ("select 1 from dual;", "no semicolon"),
        ("select :number from dual", "cannot be called number"),
        ("begin null; end", "ends with a semicolon"),
        ("begin if a then null; end;", "1 blocks are not closed"),
        ("begin null; end; end;", "an end too many"),
        ("create or replace package body p as procedure f is begin null; end;", "1 blocks are not closed"),
        ("begin null; end; commit;", "ends with its end"),
    ] {
        assert!(wrong_with(bad).concat().contains(part), "{bad}: {:?}", wrong_with(bad));
    }
}

#[test]
fn calls_are_judged() {
    let spec = "create or replace package p as procedure f(a number, b clob default null); function g return number; \
                procedure f(c varchar2, d number, e number); end;";
    let alone = "create or replace procedure lonely(x varchar2) as begin null; end;";
    let library = Library::of([spec, alone]);
    for good in [
        "begin p.f(1); p.f(a => 1, b => :x); p.f(1, b => null); p.f('x', 2, 3); end;",
        "select p.g from dual",
        "begin lonely('(,'); end;",
        "begin other.f; end;",
    ] {
        assert_eq!(library.wrong_calls(good).1, Vec::<String>::new(), "{good}");
    }
    assert_eq!(library.wrong_calls("begin p.f(1); lonely(1); other.lonely(1); end;").0, 2);
    for bad in
        ["begin p.h(1); end;", "begin p.f; end;", "begin p.f(b => 1, c => 2); end;", "begin lonely; end;"]
    {
        assert_eq!(library.wrong_calls(bad).1.len(), 1, "{bad}");
    }
    let body = "create or replace package body p as function me return number is begin return 1; end; \
                procedure f(a number, b clob default null) is begin if me = 1 then null; end if; \
                update t set n = me where m = a; end; end;";
    assert_eq!(private_functions_in_sql(body, &library), ["p: me"]);
}
