//! Forms of values that any key may use: whole numbers, choices, words, lists.

use std::fmt::Display;

use serde_json::{Value as Json, json};
use toml::de::DeValue;

use crate::walk::{Form, Item, nearest};

/// A whole number within limits.
#[derive(Clone, Copy, Debug)]
pub struct Int<T> {
    min: T,
    max: T,
    power_of_two: bool,
}

impl<T> Int<T> {
    /// From `min` to `max`, both included.
    #[must_use]
    pub const fn range(min: T, max: T) -> Self {
        Self { min, max, power_of_two: false }
    }

    /// A power of two from `min` to `max`, both included and powers of two themselves.
    #[must_use]
    pub const fn power_of_two(min: T, max: T) -> Self {
        Self { min, max, power_of_two: true }
    }
}

impl<T: Copy + Display + Into<u64> + TryFrom<u64> + Sync> Int<T> {
    fn take(&self, number: u64) -> Option<T> {
        let fits = (self.min.into()..=self.max.into()).contains(&number);
        let fits = fits && (!self.power_of_two || number.is_power_of_two());
        T::try_from(number).ok().filter(|_| fits)
    }

    /// What to write instead of `number`: a power of two beside it, or the limit that it passed.
    fn instead_of(&self, number: u64) -> String {
        let (min, max) = (self.min.into(), self.max.into());
        if number <= min {
            return format!("the least is {min}");
        }
        if number >= max {
            return format!("the most is {max}");
        }
        let below = 1 << number.ilog2();
        format!("the nearest are {below} and {}", below * 2)
    }
}

impl<T: Copy + Display + Into<u64> + TryFrom<u64> + Sync> Form for Int<T> {
    type Value = T;

    fn expected(&self) -> String {
        let what = if self.power_of_two { "power of two" } else { "whole number" };
        format!("a {what} from {} to {}", self.min, self.max)
    }

    fn schema(&self) -> Json {
        let (min, max) = (self.min.into(), self.max.into());
        if self.power_of_two {
            let powers: Vec<u64> = (0..u64::BITS).map(|bit| 1 << bit).filter(|n| (min..=max).contains(n)).collect();
            return json!({ "type": "integer", "enum": powers });
        }
        json!({ "type": "integer", "minimum": min, "maximum": max })
    }

    fn read(&self, item: &Item<'_>) -> Option<T> {
        let help = match item.value {
            DeValue::Integer(text) => match u64::from_str_radix(text.as_str(), text.radix()) {
                Ok(number) => match self.take(number) {
                    Some(value) => return Some(value),
                    None => Some(self.instead_of(number)),
                },
                // Negative, or beyond 64 bits: the limits in the message say enough.
                Err(_) => None,
            },
            DeValue::String(text) => text
                .parse()
                .ok()
                .and_then(|number| self.take(number))
                .map(|number| format!("write it without quotes: {number}")),
            _ => None,
        };
        item.refuse(self, help)
    }
}

/// One word out of a few.
#[derive(Clone, Copy, Debug)]
pub struct Choice<T: 'static> {
    /// The words and what they mean.
    pub words: &'static [(&'static str, T)],
}

impl<T: Copy + Sync> Form for Choice<T> {
    type Value = T;

    fn expected(&self) -> String {
        let words: Vec<_> = self.words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        match words.split_last() {
            Some((last, [])) => last.clone(),
            Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
            None => String::new(),
        }
    }

    fn schema(&self) -> Json {
        let words: Vec<_> = self.words.iter().map(|(word, _)| *word).collect();
        json!({ "type": "string", "enum": words })
    }

    fn read(&self, item: &Item<'_>) -> Option<T> {
        let DeValue::String(text) = item.value else { return item.refuse(self, None) };
        if let Some((_, value)) = self.words.iter().find(|(word, _)| word == text) {
            return Some(*value);
        }
        let words: Vec<_> = self.words.iter().map(|(word, _)| *word).collect();
        item.refuse(self, nearest(text, &words).map(|word| format!("did you mean \"{word}\"?")))
    }
}

/// One line of text: not empty, no control characters.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// Most bytes.
    pub max: usize,
}

impl Form for Line {
    type Value = String;

    fn expected(&self) -> String {
        format!("a string of 1 to {} bytes without control characters", self.max)
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "minLength": 1, "maxLength": self.max })
    }

    fn read(&self, item: &Item<'_>) -> Option<String> {
        match item.value {
            DeValue::String(text) if !text.is_empty() && text.len() <= self.max && !text.contains(char::is_control) => {
                Some(text.to_string())
            }
            _ => item.refuse(self, None),
        }
    }
}

/// A list of values of one form.
#[derive(Clone, Copy, Debug)]
pub struct List<F> {
    /// The form of each element.
    pub each: F,
    /// Fewest elements.
    pub min: usize,
    /// Most elements.
    pub max: usize,
}

impl<F: Form> Form for List<F> {
    type Value = Vec<F::Value>;

    fn expected(&self) -> String {
        format!("a list of {} to {} elements, each {}", self.min, self.max, self.each.expected())
    }

    fn schema(&self) -> Json {
        json!({ "type": "array", "items": self.each.schema(), "minItems": self.min, "maxItems": self.max })
    }

    fn read(&self, item: &Item<'_>) -> Option<Self::Value> {
        let Some(elements) = item.elements() else {
            let wrapped = matches!(item.value, DeValue::Integer(_) | DeValue::String(_));
            return item.refuse(self, wrapped.then(|| "put it into brackets: [...]".to_owned()));
        };
        if !(self.min..=self.max).contains(&elements.len()) {
            let what = format!("must be {}, found {} elements", self.expected(), elements.len());
            return item.fail(&what, None);
        }
        read_all(&self.each, elements)
    }
}

/// Reads all of `elements` before giving up, so that each wrong one is reported.
pub(crate) fn read_all<'r, F: Form>(
    form: &F,
    elements: impl ExactSizeIterator<Item = Item<'r>>,
) -> Option<Vec<F::Value>> {
    let count = elements.len();
    let mut values = Vec::with_capacity(count);
    values.extend(elements.filter_map(|element| form.read(&element)));
    (values.len() == count).then_some(values)
}

/// One value of a form, or a list of them that is not empty.
#[derive(Clone, Copy, Debug)]
pub struct OneOrMany<F> {
    /// The form of each.
    pub each: F,
}

impl<F: Form> Form for OneOrMany<F> {
    type Value = Vec<F::Value>;

    fn expected(&self) -> String {
        format!("{}, or a list of such", self.each.expected())
    }

    fn schema(&self) -> Json {
        let each = self.each.schema();
        json!({ "anyOf": [each, { "type": "array", "items": each, "minItems": 1 }] })
    }

    fn read(&self, item: &Item<'_>) -> Option<Self::Value> {
        match item.elements() {
            None => self.each.read(item).map(|value| vec![value]),
            Some(elements) if elements.len() == 0 => {
                item.fail("is an empty list, which nothing matches", Some("leave the key out for anything".to_owned()))
            }
            Some(elements) => read_all(&self.each, elements),
        }
    }
}

/// `true` or `false`.
#[derive(Clone, Copy, Debug)]
pub struct Truth;

impl Form for Truth {
    type Value = bool;

    fn expected(&self) -> String {
        "true or false".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": "boolean" })
    }

    fn read(&self, item: &Item<'_>) -> Option<bool> {
        match item.value {
            DeValue::Boolean(value) => Some(*value),
            DeValue::String(word) if matches!(&**word, "true" | "false") => {
                item.refuse(self, Some(format!("write it without quotes: {word}")))
            }
            _ => item.refuse(self, None),
        }
    }
}
