//! The JSON schemas: they are current, and the shipped examples hold to them.
#![expect(clippy::tests_outside_test_module, clippy::unwrap_used, reason = "this whole file is a test")]

use std::fs;

use kopi_config::schemas;
use serde_json::Value as Json;

const FOLDER: &str = env!("CARGO_MANIFEST_DIR");

fn committed(kind: &str) -> Json {
    let path = format!("{FOLDER}/schema/{kind}.schema.json");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_str(&text).unwrap()
}

/// The examples, with the kind of file that each is.
fn examples() -> Vec<(&'static str, String)> {
    let texts = fs::read_dir(format!("{FOLDER}/examples")).unwrap().map(|entry| {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        let kind = schemas().into_iter().find(|(kind, _)| {
            let line = format!("#:schema ../schema/{kind}.schema.json\n");
            text.starts_with(&line)
        });
        (kind.unwrap_or_else(|| panic!("names no schema: {text}")).0, text)
    });
    texts.collect()
}

/// The committed schemas are those of the types that read the files. `KOPI_UPDATE=1` writes them.
#[test]
fn schemas_are_current() {
    for (kind, made) in schemas() {
        if std::env::var_os("KOPI_UPDATE").is_some() {
            fs::write(format!("{FOLDER}/schema/{kind}.schema.json"), format!("{made:#}\n")).unwrap();
        }
        // Compared as values: another crate of the build may make `serde_json` keep another order of names.
        assert_eq!(&committed(kind), made, "run this test with KOPI_UPDATE=1");
    }
}

/// What an editor says of the examples: nothing.
#[test]
fn examples_hold_to_their_schema() {
    let examples = examples();
    assert!(examples.len() >= 5);
    for (kind, text) in examples {
        let value: Json = toml::from_str(&text).unwrap();
        validate(&committed(kind), &value, kind).unwrap();
    }
}

/// What an editor says of a mistake: something.
#[test]
fn schemas_refuse_mistakes() {
    for text in [
        "x = 1",
        "default = { egress = \"maybe\" }",
        "[[rule]]\nname = \"a\"",
        "[[rule]]\naction = \"acept\"",
        "[[rule]]\naction = \"drop\"\nmatch = { prot = \"tcp\" }",
        "[[rule]]\naction = \"drop\"\nmatch = { proto = \"tpc\" }",
        "[[rule]]\naction = \"drop\"\nmatch = { proto = 256 }",
        "[[rule]]\naction = \"drop\"\nmatch = { dst_port = [] }",
        "[[rule]]\naction = \"drop\"\nmatch = { src = \"host.example.org\" }",
        "[[rule]]\naction = \"drop\"\nmatch = { not = { direction = \"egress\" } }",
        "[[rule]]\naction = \"drop\"\nowner = { not = { not = {} } }",
        "[[app]]\nname = \"a\"\nowner = { app = \"a\" }",
        "[[app]]\nname = \"a\"\nlisten = \"tpc/80\"",
        "[[class]]\nname = \"a\"\nrate = \"2gigabit\"",
        "[[class]]\nname = \"a\"\npriority = 8",
        "[[class]]\nname = \"a\"\ntarget = 5",
        "[[class]]\nname = \"a\"\ndscp = \"ef1\"",
        "[wire]\noverhead = 2000",
        "[[set]]\naddresses = \"10.0.0.1\"",
    ] {
        let value: Json = toml::from_str(text).unwrap();
        assert!(validate(&committed("policy"), &value, "").is_err(), "{text}");
    }
}

/// The part of JSON Schema (draft 7) that our schemas use; any other keyword fails.
fn validate(schema: &Json, value: &Json, at: &str) -> Result<(), String> {
    for (keyword, rule) in schema.as_object().unwrap() {
        let number = |rule: &Json| rule.as_i64().unwrap();
        let length = |rule: &Json| usize::try_from(number(rule)).unwrap();
        let ok = match keyword.as_str() {
            "$schema" | "title" | "description" | "default" => true,
            "type" => match rule.as_str().unwrap() {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "integer" => value.is_i64(),
                "boolean" => value.is_boolean(),
                other => panic!("unknown type {other}"),
            },
            "enum" => rule.as_array().unwrap().contains(value),
            "const" => value == rule,
            "oneOf" => {
                rule.as_array().unwrap().iter().filter(|schema| validate(schema, value, at).is_ok()).count() == 1
            }
            "anyOf" => rule.as_array().unwrap().iter().any(|schema| validate(schema, value, at).is_ok()),
            "minimum" => value.as_i64().is_none_or(|value| value >= number(rule)),
            "maximum" => value.as_i64().is_none_or(|value| value <= number(rule)),
            "minLength" => value.as_str().is_none_or(|text| text.chars().count() >= length(rule)),
            "maxLength" => value.as_str().is_none_or(|text| text.chars().count() <= length(rule)),
            "pattern" => {
                let pattern = regex_lite::Regex::new(rule.as_str().unwrap()).unwrap();
                value.as_str().is_none_or(|text| pattern.is_match(text))
            }
            "minItems" => value.as_array().is_none_or(|list| list.len() >= length(rule)),
            "maxItems" => value.as_array().is_none_or(|list| list.len() <= length(rule)),
            "uniqueItems" => {
                value.as_array().is_none_or(|list| list.iter().enumerate().all(|(i, v)| !list[..i].contains(v)))
            }
            "items" => {
                for (index, element) in value.as_array().into_iter().flatten().enumerate() {
                    validate(rule, element, &format!("{at}[{index}]"))?;
                }
                true
            }
            "properties" => {
                for (name, schema) in rule.as_object().unwrap() {
                    if let Some(value) = value.get(name) {
                        validate(schema, value, &format!("{at}.{name}"))?;
                    }
                }
                true
            }
            "additionalProperties" => {
                assert_eq!(rule, &Json::Bool(false));
                let known = schema["properties"].as_object().unwrap();
                value.as_object().is_none_or(|table| table.keys().all(|name| known.contains_key(name)))
            }
            "required" => {
                let mut names = rule.as_array().unwrap().iter().map(|name| name.as_str().unwrap());
                value.as_object().is_none_or(|table| names.all(|name| table.contains_key(name)))
            }
            other => panic!("unknown keyword {other}"),
        };
        if !ok {
            return Err(format!("{at}: {value} is against {keyword} {rule}"));
        }
    }
    Ok(())
}
