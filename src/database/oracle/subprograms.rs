//! The functions and procedures of schemas and packages, which of them a call means, and the block that calls it.

use crate::database::arguments::Named;
use crate::wamp::codec::Datum;

/// All that a schema offers to who asks, or one package of it: a row for each argument and one for a subprogram without any.
/// What it returns stands in position 0. The rows of an argument of a composite type that tell of its parts are left out.
pub(super) const SUBPROGRAMS: &str = "
select p.object_type, p.object_name, p.procedure_name, p.subprogram_id, p.pipelined,
       a.argument_name, a.position, a.data_type, a.defaulted, a.in_out, a.data_precision, a.data_scale,
       a.type_name, a.type_owner, a.type_subname
from all_procedures p left join all_arguments a
  on a.object_id = p.object_id and a.subprogram_id = p.subprogram_id and a.data_level = 0
where p.owner = :owner and (:package is null or p.object_name = :package)
  and (p.object_type in ('FUNCTION', 'PROCEDURE') or p.object_type = 'PACKAGE' and p.procedure_name is not null)
order by p.object_name, p.subprogram_id, a.sequence";

/// What changes when one of them does.
pub(super) const FINGERPRINT: &str = "
select count(*) || ' ' || to_char(max(last_ddl_time), 'YYYYMMDDHH24MISS') from all_objects
where owner = :owner and object_type in ('PACKAGE', 'FUNCTION', 'PROCEDURE')";

/// What a value is, as far as calls care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    NationalText,
    Number,
    /// A number that an integer of 64 bits holds.
    Integer,
    Double,
    Date,
    Timestamp,
    TimestampZone,
    DaySecond,
    YearMonth,
    Raw,
    Clob,
    NationalClob,
    Blob,
    Boolean,
    Json,
    /// Of an object type, or a collection: one that SQL knows.
    Object,
    Cursor,
}

impl Kind {
    /// Of a row of [`SUBPROGRAMS`]; `None` is one that calls cannot carry.
    fn read(data_type: &str, precision: Option<i64>, scale: Option<i64>) -> Option<Self> {
        // TIMESTAMP(6), INTERVAL DAY(2) TO SECOND(6)
        let mut name = String::new();
        let mut is_inside = false;
        for character in data_type.chars() {
            match character {
                '(' => is_inside = true,
                ')' => is_inside = false,
                _ if is_inside => {}
                other => name.push(other),
            }
        }
        Some(match name.trim() {
            "VARCHAR2" | "VARCHAR" | "CHAR" | "ROWID" | "UROWID" | "LONG" => Self::Text,
            "NVARCHAR2" | "NCHAR" => Self::NationalText,
            "NUMBER" if precision.is_some_and(|digits| (1..=18).contains(&digits)) && scale == Some(0) => {
                Self::Integer
            }
            "NUMBER" | "FLOAT" => Self::Number,
            "PLS_INTEGER" | "BINARY_INTEGER" => Self::Integer,
            "BINARY_FLOAT" | "BINARY_DOUBLE" => Self::Double,
            "DATE" => Self::Date,
            "TIMESTAMP" => Self::Timestamp,
            "TIMESTAMP WITH TIME ZONE" | "TIMESTAMP WITH LOCAL TIME ZONE" => Self::TimestampZone,
            "INTERVAL DAY TO SECOND" => Self::DaySecond,
            "INTERVAL YEAR TO MONTH" => Self::YearMonth,
            "RAW" | "LONG RAW" => Self::Raw,
            "CLOB" => Self::Clob,
            "NCLOB" => Self::NationalClob,
            "BLOB" => Self::Blob,
            "PL/SQL BOOLEAN" | "BOOLEAN" => Self::Boolean,
            "JSON" => Self::Json,
            "REF CURSOR" => Self::Cursor,
            _ => return None,
        })
    }

    /// Whether it is read from the server behind the call, which must not have ended its transaction by then.
    pub(super) fn is_read_later(self) -> bool {
        matches!(
            self,
            Self::Cursor | Self::Clob | Self::NationalClob | Self::Blob | Self::Json | Self::Object
        )
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parameter {
    pub(super) name: String,
    pub(super) kind: Kind,
    /// Its type, as SQL names it.
    pub(super) object: Option<String>,
    pub(super) is_in: bool,
    pub(super) is_out: bool,
    pub(super) has_default: bool,
}

/// A function or procedure, alone or of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subprogram {
    pub(super) schema: String,
    pub(super) package: Option<String>,
    pub(super) name: String,
    pub(super) parameters: Vec<Parameter>,
    pub(super) returns: Option<Kind>,
    /// The type of what it returns, as SQL names it.
    pub(super) returned_object: Option<String>,
}

/// A row of [`SUBPROGRAMS`].
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    pub(super) is_package: bool,
    pub(super) object: String,
    pub(super) procedure: Option<String>,
    pub(super) subprogram: i64,
    pub(super) is_pipelined: bool,
    pub(super) argument: Option<String>,
    pub(super) position: Option<i64>,
    pub(super) data_type: Option<String>,
    pub(super) is_defaulted: bool,
    pub(super) in_out: Option<String>,
    pub(super) precision: Option<i64>,
    pub(super) scale: Option<i64>,
    pub(super) type_name: Option<String>,
    pub(super) type_owner: Option<String>,
    pub(super) type_subname: Option<String>,
}

impl Row {
    /// The name of an object type or collection. Types that are declared in packages are unknown to SQL.
    fn object(&self) -> Option<String> {
        let is_one = matches!(self.data_type.as_deref(), Some("OBJECT" | "TABLE" | "VARRAY"));
        let (owner, name) = self.type_owner.as_ref().zip(self.type_name.as_ref())?;
        (is_one && self.type_subname.is_none()).then(|| format!("{}.{}", quoted(owner), quoted(name)))
    }
}

/// Puts rows together, in their order; what is not offered, and why, goes to `problems`. `takes_objects`: the server makes JSON of
/// objects and objects of JSON.
pub(super) fn read(
    schema: &str,
    rows: Vec<Row>,
    takes_objects: bool,
    problems: &mut Vec<String>,
) -> Vec<Subprogram> {
    let mut all: Vec<(Subprogram, (String, i64), Option<String>)> = Vec::new();
    for row in rows {
        let key = (row.object.clone(), row.subprogram);
        if all.last().is_none_or(|(_, last, _)| *last != key) {
            let (package, name) = match &row.procedure {
                Some(procedure) if row.is_package => (Some(row.object.clone()), procedure.clone()),
                _ => (None, row.object.clone()),
            };
            let subprogram = Subprogram {
                schema: schema.to_owned(),
                package,
                name,
                parameters: Vec::new(),
                returns: None,
                returned_object: None,
            };
            let wrong =
                row.is_pipelined.then(|| "it is pipelined: select from it in SQL of your own".to_owned());
            all.push((subprogram, key, wrong));
        }
        let Some((subprogram, _, wrong)) = all.last_mut() else { continue };
        // Without arguments there is no row, or one that says nothing.
        let Some(data_type) = &row.data_type else { continue };
        let object = row.object().filter(|_| takes_objects);
        let kind = match &object {
            Some(_) => Some(Kind::Object),
            None => Kind::read(data_type, row.precision, row.scale),
        };
        let Some(kind) = kind else {
            let what = row.argument.clone().unwrap_or_else(|| "its result".to_owned());
            let of = row.type_name.as_ref().unwrap_or(data_type);
            let text =
                format!("{what} is of the type {of}, which calls cannot carry: use JSON or a REF CURSOR");
            wrong.get_or_insert(text);
            continue;
        };
        let in_out = row.in_out.as_deref().unwrap_or("IN");
        let (is_in, is_out) = (in_out != "OUT", in_out != "IN");
        match row.argument {
            None if row.position == Some(0) => {
                (subprogram.returns, subprogram.returned_object) = (Some(kind), object);
            }
            None => {}
            Some(name) => {
                if kind == Kind::Cursor && is_in {
                    wrong.get_or_insert(format!("{name} takes a cursor, and calls have none to give"));
                }
                let has_default = row.is_defaulted;
                subprogram.parameters.push(Parameter { name, kind, object, is_in, is_out, has_default });
            }
        }
    }
    let mut found = Vec::with_capacity(all.len());
    for (subprogram, _, wrong) in all {
        match wrong {
            None => found.push(subprogram),
            Some(wrong) => problems.push(format!("{} is not offered: {wrong}", subprogram.signature())),
        }
    }
    found
}

/// Which argument a parameter gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Given {
    Arg(usize),
    Kwarg(usize),
}

/// What is to be bound to a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bind {
    /// Index of the parameter; `None` is what the function returns.
    pub(super) parameter: Option<usize>,
    pub(super) kind: Kind,
    pub(super) is_out: bool,
}

/// An anonymous block, and what its placeholders `:a0`, `:a1`, … are; `:r` is what the function returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) sql: String,
    pub(super) binds: Vec<Bind>,
    /// It ends its transaction itself.
    pub(super) commits: bool,
}

impl Bind {
    pub(super) fn placeholder(&self) -> String {
        self.parameter.map_or_else(|| "r".to_owned(), |index| format!("a{index}"))
    }
}

impl Subprogram {
    /// `pkg_vote.vote(P_ITEM, P_USER)`, for people.
    pub(super) fn signature(&self) -> String {
        let names: Vec<_> = self.parameters.iter().map(|parameter| parameter.name.to_lowercase()).collect();
        let package = self.package.iter().map(|package| format!("{}.", package.to_lowercase()));
        format!("{}{}({})", package.collect::<String>(), self.name.to_lowercase(), names.join(", "))
    }

    /// As PL/SQL names it.
    pub(super) fn path(&self) -> String {
        let package = self.package.iter().map(|package| format!("{}.", quoted(package)));
        format!("{}.{}{}", quoted(&self.schema), package.collect::<String>(), quoted(&self.name))
    }

    /// What stands behind the prefix of its URI.
    pub(super) fn uri_name(&self, is_within_package: bool) -> String {
        let plain =
            |name: &str| if name == name.to_uppercase() { name.to_lowercase() } else { name.to_owned() };
        match &self.package {
            Some(package) if !is_within_package => format!("{}.{}", plain(package), plain(&self.name)),
            _ => plain(&self.name),
        }
    }

    /// Which argument each parameter gets; what stands in the way of that.
    pub(super) fn assign(
        &self,
        args: &[Datum<'_>],
        kwargs: &Named<'_>,
    ) -> Result<Vec<Option<Given>>, String> {
        let mut given: Vec<Option<Given>> = vec![None; self.parameters.len()];
        let mut places =
            self.parameters.iter().enumerate().filter(|(_, it)| it.is_in).map(|(place, _)| place);
        for arg in 0..args.len() {
            let place = places.next().ok_or_else(|| {
                format!("argument {}: there are {arg} parameters that take a value", arg + 1)
            })?;
            given[place] = Some(Given::Arg(arg));
        }
        for (index, (name, _)) in kwargs.iter().enumerate() {
            let upper = name.to_uppercase();
            let is_it = |it: &Parameter| it.is_in && (it.name == **name || it.name == upper);
            let place = self.parameters.iter().position(is_it);
            let place = place.ok_or_else(|| format!("there is no parameter `{name}`"))?;
            if given[place].is_some() {
                return Err(format!("the argument `{name}` is given twice"));
            }
            given[place] = Some(Given::Kwarg(index));
        }
        let missing = self.parameters.iter().zip(&given);
        match missing.into_iter().find(|(it, given)| it.is_in && given.is_none() && !it.has_default) {
            Some((it, _)) => Err(format!("the argument `{}` is missing", it.name.to_lowercase())),
            None => Ok(given),
        }
    }

    /// How well arguments fit by their kinds; the larger, the better.
    pub(super) fn likeness(&self, given: &[Option<Given>], args: &[Datum<'_>], kwargs: &Named<'_>) -> usize {
        let fits = |kind: Kind, datum: &Datum<'_>| match datum {
            Datum::Boolean(_) => kind == Kind::Boolean,
            Datum::Unsigned(_) | Datum::Negative(_) | Datum::Literal(_) => {
                matches!(kind, Kind::Number | Kind::Integer)
            }
            Datum::Float(_) => matches!(kind, Kind::Number | Kind::Double),
            Datum::Text(_) => {
                matches!(kind, Kind::Text | Kind::NationalText | Kind::Clob | Kind::NationalClob)
            }
            Datum::Bytes(_) => matches!(kind, Kind::Raw | Kind::Blob),
            Datum::List(_) | Datum::Map(_) => matches!(kind, Kind::Json | Kind::Object),
            Datum::Null => false,
        };
        let pairs = self.parameters.iter().zip(given);
        pairs
            .filter(|(parameter, given)| match given {
                Some(Given::Arg(place)) => fits(parameter.kind, &args[*place]),
                Some(Given::Kwarg(index)) => fits(parameter.kind, &kwargs[*index].1),
                None => false,
            })
            .count()
    }

    /// The block of a call in which these parameters have values. Those that have none are not named, so that their defaults
    /// apply. `identity` is the schema whose `wamp_ctx` is told who calls, in the same block. Numbers for which `is_text` says so
    /// are bound as texts.
    pub(super) fn block(
        &self,
        given: &[Option<Given>],
        identity: Option<&str>,
        is_text: impl Fn(usize) -> bool,
    ) -> Block {
        let (mut binds, mut list, mut variables) = (Vec::new(), Vec::new(), Vec::new());
        let (mut before, mut after) = (String::new(), String::new());
        // JSON goes in and out as text: the client knows no other way. So do objects and collections: as a list of one, where null
        // has its place.
        let mut variable = |name: &str, object: Option<&String>, bind: &Bind, after: &mut String| {
            let written = match object {
                Some(object) => {
                    variables.push(format!("{name} {object};"));
                    format!("json_array({name} null on null returning clob)")
                }
                None => {
                    variables.push(format!("{name} json;"));
                    format!("json_serialize({name} returning clob)")
                }
            };
            if bind.is_out {
                after.push_str(&format!("select {written} into :{} from dual;\n", bind.placeholder()));
            }
        };
        for (index, (parameter, given)) in self.parameters.iter().zip(given).enumerate() {
            // What is OUT alone always has a place.
            if given.is_none() && parameter.is_in {
                continue;
            }
            let (kind, is_out) = (parameter.kind, parameter.is_out);
            let bind = Bind { parameter: Some(index), kind, is_out };
            let place = bind.placeholder();
            let value = match (kind, is_out) {
                (Kind::Json, false) => format!("json(:{place})"),
                (Kind::Json, true) => {
                    let name = format!("j{index}");
                    variable(&name, None, &bind, &mut after);
                    if given.is_some() {
                        before.push_str(&format!("{name} := json(:{place});\n"));
                    }
                    name
                }
                (Kind::Object, _) => {
                    let (name, object) = (format!("o{index}"), parameter.object.as_ref());
                    variable(&name, object, &bind, &mut after);
                    if let (Some(_), Some(object)) = (given, object) {
                        before.push_str(&format!(
                            "if :{place} is not null then\nselect json_value(:{place}, '$' returning {object} \
                             error on error) into {name} from dual;\nend if;\n"
                        ));
                    }
                    name
                }
                // Without that an overload for texts could be meant.
                (Kind::Number | Kind::Integer, false) if is_text(index) => format!("to_number(:{place})"),
                _ => format!(":{place}"),
            };
            list.push(format!("{} => {value}", quoted(&parameter.name)));
            binds.push(bind);
        }
        let mut result = String::new();
        if let Some(kind) = self.returns {
            let bind = Bind { parameter: None, kind, is_out: true };
            result = match kind {
                Kind::Json => {
                    variable("jr", None, &bind, &mut after);
                    "jr := "
                }
                Kind::Object => {
                    variable("o_r", self.returned_object.as_ref(), &bind, &mut after);
                    "o_r := "
                }
                _ => ":r := ",
            }
            .to_owned();
            binds.insert(0, bind);
        }
        let commits = !binds.iter().any(|bind| bind.is_out && bind.kind.is_read_later());
        let declare =
            if variables.is_empty() { String::new() } else { format!("declare {}\n", variables.join(" ")) };
        let identity = identity.map(|owner| format!("{}.wamp_ctx.set({IDENTITY});\n", quoted(owner)));
        let name = self.path();
        let list = if list.is_empty() { String::new() } else { format!("({})", list.join(", ")) };
        let commit = if commits { "commit;\n" } else { "" };
        let sql = format!(
            "{declare}begin\n{}{before}{result}{name}{list};\n{after}{commit}end;",
            identity.unwrap_or_default()
        );
        Block { sql, binds, commits }
    }
}

/// The placeholders that say who calls.
pub(super) const IDENTITY: &str = ":w_realm, :w_session, :w_authid, :w_authrole, :w_details";

pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(subprogram: i64, argument: Option<&str>, position: i64, data_type: &str, in_out: &str) -> Row {
        Row {
            is_package: true,
            object: "PKG".to_owned(),
            procedure: Some("F".to_owned()),
            subprogram,
            argument: argument.map(str::to_owned),
            position: Some(position),
            data_type: (!data_type.is_empty()).then(|| data_type.to_owned()),
            in_out: Some(in_out.to_owned()),
            ..Row::default()
        }
    }

    #[test]
    fn rows_become_subprograms() {
        let mut problems = Vec::new();
        let defaulted = |row: Row| Row { is_defaulted: true, ..row };
        let found = read(
            "SHOP",
            vec![
                row(1, None, 0, "NUMBER", "OUT"),
                row(1, Some("P_ITEM"), 1, "VARCHAR2", "IN"),
                defaulted(row(1, Some("P_COUNT"), 2, "PLS_INTEGER", "IN")),
                row(1, Some("P_WHEN"), 3, "TIMESTAMP(6) WITH TIME ZONE", "OUT"),
                row(2, None, 0, "", ""),
                row(3, Some("P_ALL"), 1, "PL/SQL RECORD", "IN"),
                Row { is_pipelined: true, ..row(4, None, 0, "TABLE", "OUT") },
            ],
            true,
            &mut problems,
        );
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].signature(), "pkg.f(p_item, p_count, p_when)");
        assert_eq!(found[0].returns, Some(Kind::Number));
        let kinds: Vec<_> = found[0].parameters.iter().map(|it| it.kind).collect();
        assert_eq!(kinds, [Kind::Text, Kind::Integer, Kind::TimestampZone]);
        assert!(found[1].parameters.is_empty() && found[1].returns.is_none());
        assert!(problems[0].contains("P_ALL is of the type PL/SQL RECORD"), "{problems:?}");
        assert!(problems[1].contains("pipelined"));
        assert_eq!(found[0].uri_name(false), "pkg.f");
        assert_eq!(found[0].uri_name(true), "f");

        let args = [Datum::Text("x".into())];
        let given = found[0].assign(&args, &Vec::new()).unwrap();
        assert_eq!(given, [Some(Given::Arg(0)), None, None]);
        let block = found[0].block(&given, None, |_| false);
        assert_eq!(
            block.sql,
            "begin\n:r := \"SHOP\".\"PKG\".\"F\"(\"P_ITEM\" => :a0, \"P_WHEN\" => :a2);\ncommit;\nend;"
        );
        assert_eq!(block.binds.iter().map(Bind::placeholder).collect::<Vec<_>>(), ["r", "a0", "a2"]);
        let by_name = vec![("p_count".into(), Datum::Unsigned(2))];
        let given = found[0].assign(&args, &by_name).unwrap();
        assert_eq!(given, [Some(Given::Arg(0)), Some(Given::Kwarg(0)), None]);
        assert_eq!(found[0].likeness(&given, &args, &by_name), 2);

        let wrong = |args: &[Datum<'_>], kwargs: &Named<'_>| found[0].assign(args, kwargs).unwrap_err();
        assert_eq!(wrong(&[], &by_name), "the argument `p_item` is missing");
        assert_eq!(wrong(&args, &vec![("p_when".into(), Datum::Null)]), "there is no parameter `p_when`");
        assert_eq!(
            wrong(&args, &vec![("P_ITEM".into(), Datum::Null)]),
            "the argument `P_ITEM` is given twice"
        );
        let three = [const { Datum::Null }; 3];
        assert_eq!(wrong(&three, &Vec::new()), "argument 3: there are 2 parameters that take a value");
    }

    #[test]
    fn json_and_cursors_keep_the_transaction_open() {
        let parameter = |name: &str, kind, is_in, is_out| Parameter {
            name: name.to_owned(),
            kind,
            object: None,
            is_in,
            is_out,
            has_default: false,
        };
        let subprogram = Subprogram {
            schema: "SHOP".to_owned(),
            package: None,
            name: "f".to_owned(),
            parameters: vec![parameter("A", Kind::Json, true, false), parameter("B", Kind::Json, true, true)],
            returns: Some(Kind::Json),
            returned_object: None,
        };
        let block = subprogram.block(&[Some(Given::Arg(0)), Some(Given::Arg(1))], Some("WAMP"), |_| false);
        assert_eq!(
            block.sql,
            "declare j1 json; jr json;\nbegin\n\
             \"WAMP\".wamp_ctx.set(:w_realm, :w_session, :w_authid, :w_authrole, :w_details);\n\
             j1 := json(:a1);\njr := \"SHOP\".\"f\"(\"A\" => json(:a0), \"B\" => j1);\n\
             select json_serialize(j1 returning clob) into :a1 from dual;\n\
             select json_serialize(jr returning clob) into :r from dual;\nend;"
        );
        assert!(!block.commits);
        assert_eq!(subprogram.uri_name(false), "f");
    }

    #[test]
    fn objects_and_collections_go_as_json() {
        let of_type = |row: Row, owner: &str, name: &str, subname: Option<&str>| Row {
            type_owner: Some(owner.to_owned()),
            type_name: Some(name.to_owned()),
            type_subname: subname.map(str::to_owned),
            ..row
        };
        let rows = || {
            vec![
                of_type(row(1, None, 0, "VARRAY", "OUT"), "SHOP", "T_NAMES", None),
                of_type(row(1, Some("P_ITEM"), 1, "OBJECT", "IN"), "SHOP", "T_ITEM", None),
                of_type(row(1, Some("P_ALL"), 2, "TABLE", "IN OUT"), "SHOP", "T_ITEMS", None),
                of_type(row(2, Some("P_ALL"), 1, "TABLE", "IN"), "SHOP", "PKG", Some("T_OWN")),
            ]
        };
        let mut problems = Vec::new();
        let found = read("SHOP", rows(), true, &mut problems);
        assert_eq!(found.len(), 1);
        assert_eq!(
            problems,
            [
                "pkg.f() is not offered: P_ALL is of the type PKG, which calls cannot carry: use JSON or a REF CURSOR"
            ]
        );
        let block = found[0].block(&[Some(Given::Arg(0)), Some(Given::Arg(1))], None, |_| false);
        assert_eq!(
            block.sql,
            "declare o0 \"SHOP\".\"T_ITEM\"; o1 \"SHOP\".\"T_ITEMS\"; o_r \"SHOP\".\"T_NAMES\";\nbegin\n\
             if :a0 is not null then\n\
             select json_value(:a0, '$' returning \"SHOP\".\"T_ITEM\" error on error) into o0 from dual;\nend if;\n\
             if :a1 is not null then\n\
             select json_value(:a1, '$' returning \"SHOP\".\"T_ITEMS\" error on error) into o1 from dual;\nend if;\n\
             o_r := \"SHOP\".\"PKG\".\"F\"(\"P_ITEM\" => o0, \"P_ALL\" => o1);\n\
             select json_array(o1 null on null returning clob) into :a1 from dual;\n\
             select json_array(o_r null on null returning clob) into :r from dual;\nend;"
        );
        assert!(!block.commits);
        // A server that makes no JSON of them does not have them offered.
        let mut problems = Vec::new();
        assert!(read("SHOP", rows(), false, &mut problems).is_empty() && problems.len() == 2, "{problems:?}");
    }
}
