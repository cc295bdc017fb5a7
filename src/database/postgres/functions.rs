//! The functions and procedures of a schema, and which of them a call means.

use std::collections::HashMap;

use super::values::{Kind, Types, oid};
use crate::wamp::codec::Datum;

/// All types, and what they are made of.
pub(super) const TYPES: &str = "
select t.oid, t.typtype, t.typelem, t.typbasetype, t.typcategory
from pg_catalog.pg_type t where t.typtype in ('c', 'd') or (t.typcategory = 'A' and t.typelem <> 0)";

/// The functions and procedures of some schemas that may be called by SQL.
pub(super) const FUNCTIONS: &str = "
select p.oid, n.nspname, p.proname, p.prokind, p.proretset, p.prorettype, p.provolatile, p.provariadic,
       p.pronargs, p.pronargdefaults,
       coalesce(p.proallargtypes, p.proargtypes::oid[])::text[],
       p.proargmodes::text[], p.proargnames,
       (select array_agg(pg_catalog.format_type(a.oid, null) order by a.place)
        from unnest(coalesce(p.proallargtypes, p.proargtypes::oid[])) with ordinality a(oid, place)),
       pg_catalog.obj_description(p.oid, 'pg_proc')
from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
where n.nspname = any ($1::text[]) and p.prokind in ('f', 'p')
  and p.prorettype not in ('trigger'::regtype, 'event_trigger'::regtype, 'internal'::regtype)
  and not ('internal'::regtype = any (p.proargtypes::oid[]))
order by n.nspname, p.proname, p.oid";

/// What changes when one of them does, or a comment on it, or a type.
pub(super) const FINGERPRINT: &str = "
select concat_ws(' ',
    (select concat_ws(':', count(*), sum(p.xmin::text::bigint), sum(p.oid::bigint))
     from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
     where n.nspname = any ($1::text[])),
    (select concat_ws(':', count(*), sum(d.xmin::text::bigint))
     from pg_catalog.pg_description d where d.classoid = 'pg_catalog.pg_proc'::regclass),
    (select concat_ws(':', count(*), sum(t.xmin::text::bigint))
     from pg_catalog.pg_type t where t.typtype in ('c', 'd') or t.typcategory = 'A'))";

/// A parameter that a call gives a value to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parameter {
    /// Empty where it has none.
    pub(super) name: String,
    pub(super) type_oid: u32,
    /// As SQL writes it.
    pub(super) type_name: String,
    pub(super) has_default: bool,
    pub(super) is_variadic: bool,
}

/// What a function gives back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Returns {
    Nothing,
    /// One value.
    Value,
    /// Values by name: OUT parameters, or a composite.
    Record,
    /// Rows of values.
    Values,
    /// Rows with names.
    Rows,
}

/// A function or procedure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) oid: u32,
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) is_procedure: bool,
    /// It promises to write nothing.
    pub(super) is_read_only: bool,
    pub(super) returns: Returns,
    pub(super) parameters: Vec<Parameter>,
    pub(super) comment: Option<String>,
    /// OUT parameters of a procedure, which CALL wants a place for; by position among all.
    pub(super) places: Vec<bool>,
}

/// The texts of a row of [`FUNCTIONS`].
pub(super) type Columns<'r> = Vec<Option<&'r str>>;

impl Function {
    /// Whether a call changes nothing, and gives one row at most.
    pub(super) fn changes_nothing(&self) -> bool {
        self.is_read_only
            && !self.is_procedure
            && matches!(self.returns, Returns::Nothing | Returns::Value | Returns::Record)
    }

    /// Reads a row of [`FUNCTIONS`].
    pub(super) fn read(row: &Columns<'_>, types: &Types) -> Option<Self> {
        let text = |index: usize| row.get(index).copied().flatten();
        let list = |index: usize| text(index).map(elements);
        let type_oids: Vec<u32> = list(10)?.iter().flatten().filter_map(|oid| oid.parse().ok()).collect();
        let modes = list(11);
        let names = list(12);
        let type_names = list(13).unwrap_or_default();
        let is_procedure = text(3)? == "p";
        let (returns_set, returned) = (text(4)? == "t", text(5)?.parse::<u32>().ok()?);
        let defaults: usize = text(9)?.parse().ok()?;
        let (mut parameters, mut outs, mut places) = (Vec::new(), 0, Vec::new());
        for (index, type_oid) in type_oids.iter().enumerate() {
            let mode = modes.as_ref().and_then(|modes| modes.get(index)?.as_deref()).unwrap_or("i");
            if matches!(mode, "o" | "b" | "t") {
                outs += 1;
            }
            places.push(mode == "o");
            if matches!(mode, "o" | "t") {
                continue;
            }
            let name = names.as_ref().and_then(|names| names.get(index)?.clone()).unwrap_or_default();
            let type_name = type_names.get(index)?.clone()?;
            let is_variadic = mode == "v";
            parameters.push(Parameter {
                name,
                type_oid: *type_oid,
                type_name,
                has_default: false,
                is_variadic,
            });
        }
        let first_default = parameters.len().saturating_sub(defaults);
        parameters[first_default..].iter_mut().for_each(|parameter| parameter.has_default = true);
        let is_composite = types.is_structured(returned) && !matches!(types.base(returned).1, Kind::Array(_));
        let has_names =
            outs > 1 || outs == 1 && is_procedure || is_composite || outs == 1 && returned == oid::RECORD;
        let returns = match (returns_set, has_names) {
            (true, true) => Returns::Rows,
            (true, false) => Returns::Values,
            (false, true) => Returns::Record,
            (false, false) if returned == oid::VOID || is_procedure => Returns::Nothing,
            (false, false) => Returns::Value,
        };
        Some(Self {
            oid: text(0)?.parse().ok()?,
            schema: text(1)?.to_owned(),
            name: text(2)?.to_owned(),
            is_procedure,
            is_read_only: matches!(text(6)?, "i" | "s"),
            returns,
            parameters,
            comment: text(14).map(str::to_owned),
            places,
        })
    }

    /// `name(integer, text)`, for people.
    pub(super) fn signature(&self) -> String {
        let types: Vec<_> = self.parameters.iter().map(|parameter| parameter.type_name.as_str()).collect();
        format!("{}.{}({})", self.schema, self.name, types.join(", "))
    }

    /// Which argument each parameter gets; what stands in the way of that.
    pub(super) fn assign(
        &self,
        args: &[Datum<'_>],
        kwargs: &[(std::borrow::Cow<'_, str>, Datum<'_>)],
    ) -> Result<Assigned, String> {
        let variadic = self.parameters.iter().position(|parameter| parameter.is_variadic);
        let fixed = variadic.unwrap_or(self.parameters.len());
        if args.len() > fixed && variadic.is_none() {
            return Err(format!("argument {}: there are {fixed} parameters", fixed + 1));
        }
        let mut given: Vec<Option<Given>> = vec![None; self.parameters.len()];
        for (place, slot) in given.iter_mut().enumerate().take(args.len().min(fixed)) {
            *slot = Some(Given::Arg(place));
        }
        if let Some(variadic) = variadic
            && args.len() > fixed
        {
            given[variadic] = Some(Given::Rest(fixed));
        }
        for (index, (name, _)) in kwargs.iter().enumerate() {
            let is_named = |parameter: &Parameter| !parameter.name.is_empty() && parameter.name == **name;
            let Some(place) = self.parameters.iter().position(is_named) else {
                return Err(format!("there is no parameter `{name}`"));
            };
            if matches!(given[place], Some(Given::Arg(_) | Given::Rest(_))) {
                return Err(format!("the argument `{name}` is given twice"));
            }
            given[place] = Some(Given::Kwarg(index));
        }
        let missing = self.parameters.iter().zip(&given).enumerate().find(|(_, (parameter, given))| {
            given.is_none() && !parameter.has_default && !parameter.is_variadic
        });
        if let Some((place, (parameter, _))) = missing {
            let name = &parameter.name;
            return Err(if name.is_empty() {
                format!("the argument {} is missing", place + 1)
            } else {
                format!("the argument `{name}` is missing")
            });
        }
        // No values are a list, too: there is no function without it.
        if let Some(variadic) = variadic
            && given[variadic].is_none()
            && !self.parameters[variadic].has_default
        {
            given[variadic] = Some(Given::Rest(args.len()));
        }
        // What has no name cannot be left out before what is given.
        let last = given.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        let is_in_the_way =
            |(parameter, given): (&Parameter, &Option<Given>)| given.is_none() && parameter.name.is_empty();
        if self.parameters.iter().zip(&given).take(last).any(is_in_the_way) {
            return Err("a parameter without a name cannot be left out before others".to_owned());
        }
        Ok(Assigned(given))
    }

    /// How well arguments fit by their kinds; the larger, the better.
    pub(super) fn likeness(
        &self,
        assigned: &Assigned,
        args: &[Datum<'_>],
        kwargs: &[(std::borrow::Cow<'_, str>, Datum<'_>)],
        types: &Types,
    ) -> usize {
        let fits = |parameter: &Parameter, datum: &Datum<'_>| {
            let (base, kind) = types.base(parameter.type_oid);
            match datum {
                Datum::Boolean(_) => base == oid::BOOL,
                Datum::Unsigned(_) | Datum::Negative(_) => {
                    matches!(base, oid::INT2 | oid::INT4 | oid::INT8 | oid::OID)
                }
                Datum::Float(_) | Datum::Literal(_) => matches!(base, oid::FLOAT4 | oid::FLOAT8 | 1700),
                Datum::Text(_) => matches!(base, 25 | 1043 | 1042),
                Datum::Bytes(_) => base == oid::BYTEA,
                Datum::List(_) => matches!(kind, Kind::Array(_)),
                Datum::Map(_) => {
                    types.is_structured(parameter.type_oid) || matches!(base, oid::JSON | oid::JSONB)
                }
                Datum::Null => false,
            }
        };
        let pairs = self.parameters.iter().zip(&assigned.0);
        pairs
            .filter(|(parameter, given)| match given {
                Some(Given::Arg(place)) => fits(parameter, &args[*place]),
                Some(Given::Kwarg(index)) => fits(parameter, &kwargs[*index].1),
                _ => false,
            })
            .count()
    }

    /// SQL of a call with these parameters, each as `$1`, `$2`, …
    pub(super) fn sql(&self, assigned: &Assigned, types: &Types) -> String {
        let mut number = 0;
        let mut list = Vec::new();
        let mut given = self.parameters.iter().zip(&assigned.0);
        let mut is_named = false;
        for is_out in &self.places {
            // CALL has a place for what only comes out.
            if *is_out {
                if self.is_procedure {
                    list.push("null".to_owned());
                }
                continue;
            }
            let Some((parameter, given)) = given.next() else { break };
            if given.is_none() {
                // From here on the others say who they are.
                is_named = true;
                continue;
            }
            number += 1;
            let value = place(number, parameter, types);
            list.push(match (parameter.is_variadic, is_named && !parameter.name.is_empty()) {
                (true, true) => format!("variadic {} => {value}", quoted(&parameter.name)),
                (true, false) => format!("variadic {value}"),
                (false, true) => format!("{} => {value}", quoted(&parameter.name)),
                (false, false) => value,
            });
        }
        let call = format!("{}.{}({})", quoted(&self.schema), quoted(&self.name), list.join(", "));
        match self.returns {
            _ if self.is_procedure => format!("call {call}"),
            Returns::Nothing | Returns::Value => format!("select {call}"),
            Returns::Record | Returns::Values | Returns::Rows => format!("select * from {call}"),
        }
    }
}

/// Which argument a parameter gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Given {
    Arg(usize),
    Kwarg(usize),
    /// All from here on.
    Rest(usize),
}

/// By parameter; `None` is its default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Assigned(pub(super) Vec<Option<Given>>);

/// Where a value goes: cast to its type, or made of JSON where it has fields.
fn place(number: usize, parameter: &Parameter, types: &Types) -> String {
    let (name, type_oid) = (&parameter.type_name, parameter.type_oid);
    if !types.is_structured(type_oid) {
        return format!("${number}::{name}");
    }
    match types.base(type_oid).1 {
        Kind::Array(_) => {
            let element = name.strip_suffix("[]").unwrap_or(name);
            format!(
                "(select coalesce(array_agg(jsonb_populate_record(null::{element}, e)), '{{}}'::{name}) \
                 from jsonb_array_elements(${number}::jsonb) e)"
            )
        }
        _ => format!("jsonb_populate_record(null::{name}, ${number}::jsonb)"),
    }
}

pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// What a comment says of a function: the words behind `@wamp` in its last paragraph.
pub(super) fn annotations(comment: &str) -> HashMap<&str, &str> {
    let Some(at) = comment.rfind("@wamp") else { return HashMap::new() };
    let words = comment[at + 5..].split_whitespace();
    words.map(|word| word.split_once('=').unwrap_or((word, ""))).collect()
}

/// The elements of an array of texts, as the server writes it; `None` is null.
fn elements(text: &str) -> Vec<Option<String>> {
    let (mut all, mut element, mut is_quoted) = (Vec::new(), String::new(), false);
    let (mut in_quotes, mut escaped) = (false, false);
    // Those of vectors begin at 0: `[0:1]={…}`.
    let text = text.split_once("]=").map_or(text, |(_, rest)| rest);
    let inner = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or_default();
    if inner.is_empty() {
        return all;
    }
    for character in inner.chars().chain([',']) {
        match character {
            _ if escaped => {
                element.push(character);
                escaped = false;
            }
            '\\' if in_quotes => escaped = true,
            '"' => {
                in_quotes = !in_quotes;
                is_quoted = true;
            }
            ',' if !in_quotes => {
                let is_null = element == "NULL" && !is_quoted;
                all.push((!is_null).then(|| std::mem::take(&mut element)));
                element.clear();
                is_quoted = false;
            }
            _ => element.push(character),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_of_texts() {
        assert_eq!(elements("{}"), Vec::<Option<String>>::new());
        assert_eq!(elements("[0:1]={23,25}"), [Some("23".to_owned()), Some("25".to_owned())]);
        let all = elements(r#"{a,"",NULL,"NULL","b,\"c\\"}"#);
        let all: Vec<_> = all.iter().map(Option::as_deref).collect();
        assert_eq!(all, [Some("a"), Some(""), None, Some("NULL"), Some("b,\"c\\")]);
    }

    #[test]
    fn comments_say_what_they_want() {
        let found = annotations("Adds.\n\n@wamp uri=com.add timeout_ms=50 ignore");
        assert_eq!((found["uri"], found["timeout_ms"], found["ignore"]), ("com.add", "50", ""));
        assert!(annotations("nothing").is_empty());
    }

    fn function(parameters: &[(&str, bool, bool)]) -> Function {
        let parameter = |&(name, has_default, is_variadic): &(&str, bool, bool)| Parameter {
            name: name.to_owned(),
            type_oid: if is_variadic { 1007 } else { oid::INT4 },
            type_name: if is_variadic { "integer[]" } else { "integer" }.to_owned(),
            has_default,
            is_variadic,
        };
        Function {
            oid: 1,
            schema: "api".to_owned(),
            name: "f\"x".to_owned(),
            is_procedure: false,
            is_read_only: false,
            returns: Returns::Value,
            parameters: parameters.iter().map(parameter).collect(),
            comment: None,
            places: vec![false; parameters.len()],
        }
    }

    #[test]
    fn arguments_find_their_parameters() {
        let types = Types::default();
        let f = function(&[("a", false, false), ("b", true, false), ("c", true, false)]);
        let one = [Datum::Unsigned(1)];
        let c = [("c".into(), Datum::Unsigned(3))];
        let assigned = f.assign(&one, &c).unwrap();
        assert_eq!(assigned.0, [Some(Given::Arg(0)), None, Some(Given::Kwarg(0))]);
        assert_eq!(f.sql(&assigned, &types), "select \"api\".\"f\"\"x\"($1::integer, \"c\" => $2::integer)");
        assert_eq!(f.assign(&[], &c), Err("the argument `a` is missing".to_owned()));
        assert_eq!(f.assign(&one, &[("x".into(), Datum::Null)]), Err("there is no parameter `x`".to_owned()));
        assert_eq!(
            f.assign(&one, &[("a".into(), Datum::Null)]),
            Err("the argument `a` is given twice".to_owned())
        );
        let four = [const { Datum::Null }; 4];
        assert_eq!(f.assign(&four, &[]), Err("argument 4: there are 3 parameters".to_owned()));
        let v = function(&[("a", false, false), ("rest", false, true)]);
        let assigned = v.assign(&four, &[]).unwrap();
        assert_eq!(assigned.0, [Some(Given::Arg(0)), Some(Given::Rest(1))]);
        assert_eq!(
            v.sql(&assigned, &types),
            "select \"api\".\"f\"\"x\"($1::integer, variadic $2::integer[])"
        );
        let assigned = v.assign(&one, &[]).unwrap();
        assert_eq!(assigned.0, [Some(Given::Arg(0)), Some(Given::Rest(1))]);
    }
}
