//! The names on the command line of which rows are shown: all of them if there are none.

use crate::failure::Failure;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// Names, and which of them a row has had.
#[derive(Debug, Default)]
pub(crate) struct Names(Vec<(String, bool)>);

/// What of a row counts here.
#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

impl Names {
    /// These.
    pub(crate) fn new(names: &[String]) -> Self {
        Self(names.iter().map(|name| (name.clone(), false)).collect())
    }

    /// Whether a row is one that is wanted.
    pub(crate) fn wants(&mut self, row: &RawValue) -> bool {
        self.0.is_empty() || serde_json::from_str::<Named<'_>>(row.get()).is_ok_and(|row| self.has(&row.name))
    }

    fn has(&mut self, name: &str) -> bool {
        let same = self.0.iter_mut().find(|(wanted, _)| wanted == name);
        same.map(|(_, found)| *found = true).is_some()
    }

    /// What of an answer is wanted: rows of these names, and those that are above them, without which a tree is none.
    ///
    /// # Errors
    ///
    /// [`Failure::Nameless`].
    pub(crate) fn only(&mut self, mut answer: Value) -> Result<Value, Failure> {
        if self.0.is_empty() {
            return Ok(answer);
        }
        for rows in answer.as_object_mut().into_iter().flat_map(|answer| answer.values_mut()) {
            let Some(rows) = rows.as_array_mut() else { continue };
            let mut keep: Vec<bool> =
                rows.iter().map(|row| row["name"].as_str().is_some_and(|name| self.has(name))).collect();
            // As often as there are rows, and each time one more at least.
            while let Some(parent) = missing_parent(rows, &keep) {
                keep[parent] = true;
            }
            let mut keep = keep.into_iter();
            rows.retain(|_| keep.next().unwrap_or(false));
        }
        self.all_found()?;
        Ok(answer)
    }

    /// Fails if no row has had one of the names.
    ///
    /// # Errors
    ///
    /// [`Failure::Nameless`].
    pub(crate) fn all_found(&self) -> Result<(), Failure> {
        let missing = self.0.iter().find(|(_, found)| !found);
        missing.map_or(Ok(()), |(name, _)| Err(Failure::Nameless(name.clone())))
    }
}

/// A row that is not kept, and is the parent of one that is.
fn missing_parent(rows: &[Value], keep: &[bool]) -> Option<usize> {
    let kept = |row: &Value| rows.iter().zip(keep).any(|(child, keep)| *keep && is_parent(row, child));
    rows.iter().zip(keep).position(|(row, keep)| !keep && kept(row))
}

fn is_parent(row: &Value, child: &Value) -> bool {
    child["parent"].is_string() && row["name"] == child["parent"] && row["direction"] == child["direction"]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Of a tree are left the rows that are named and those above them, in their order; a name without a row is an error.
    #[test]
    fn rows_are_those_of_the_names() {
        let row = |name: &str, parent: Option<&str>| json!({ "name": name, "parent": parent, "direction": "egress" });
        let tree =
            json!({ "classes": [row("a", None), row("b", Some("a")), row("c", Some("b")), row("d", Some("a"))] });
        let left = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            let answer = Names::new(&names).only(tree.clone()).map_err(|failure| failure.to_string())?;
            Ok::<_, String>(
                answer["classes"].as_array().unwrap().iter().map(|row| row["name"].to_string()).collect::<String>(),
            )
        };
        assert_eq!(left(&[]).unwrap(), r#""a""b""c""d""#);
        assert_eq!(left(&["c"]).unwrap(), r#""a""b""c""#);
        assert_eq!(left(&["a"]).unwrap(), r#""a""#);
        assert_eq!(left(&["d", "e"]).unwrap_err(), "there is no `e`");
    }

    /// Rows that come one by one are chosen the same way.
    #[test]
    fn single_rows_are_those_of_the_names() {
        let mut names = Names::new(&["x\"y".to_owned()]);
        let row = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        assert!(names.wants(&row(r#"{"n":1,"name":"x\"y"}"#)) && !names.wants(&row(r#"{"name":"x"}"#)));
        assert!(!names.wants(&row("7")) && names.all_found().is_ok());
        assert!(Names::default().wants(&row("7")));
    }
}
