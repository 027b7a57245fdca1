//! Matching of names against patterns.

/// Whether `text` fits `pattern`: `*` is any number of characters, `?` one, `[a-z]` one of them.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    // Where the last star was, and up to where it has taken the text.
    let mut star = None;
    let (mut p, mut t) = (0, 0);
    while t < text.len() {
        match step(&pattern[p..], text[t]) {
            Some(length) => (p, t) = (p + length, t + 1),
            None if pattern.get(p) == Some(&'*') => {
                star = Some((p + 1, t));
                p += 1;
            }
            None => match &mut star {
                Some((after, taken)) => {
                    *taken += 1;
                    (p, t) = (*after, *taken);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// How many characters of the pattern stand for `c`, unless they do not.
fn step(pattern: &[char], c: char) -> Option<usize> {
    match pattern {
        ['*', ..] | [] => None,
        ['?', ..] => Some(1),
        ['[', class @ ..] => {
            let end = class.iter().position(|c| *c == ']')?;
            in_class(&class[..end], c).then_some(end + 2)
        }
        [one, ..] => (*one == c).then_some(1),
    }
}

fn in_class(class: &[char], c: char) -> bool {
    match class {
        [from, '-', to, rest @ ..] => (*from..=*to).contains(&c) || in_class(rest, c),
        [one, rest @ ..] => *one == c || in_class(rest, c),
        [] => false,
    }
}
