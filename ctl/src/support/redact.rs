//! What is nobody else's business: values whose key says that they are secret, comments, and most parameters of the kernel.

use toml_parser::Source;
use toml_parser::lexer::TokenKind;

/// Keys whose value is a secret, in devargs (`net_memif` has `secret=`), in texts of the log and in TOML. Also as the end of a longer
/// word.
const KEYS: [&str; 10] =
    ["secret", "password", "passwd", "passphrase", "token", "apikey", "api_key", "private_key", "credential", "psk"];
/// What stands in its place.
const REDACTED: &str = "[redacted]";
/// Parameters of the kernel that have to do with kopi, and how those begin that do. Others may be keys of disks.
const PARAMETERS: [&str; 22] = [
    "isolcpus",
    "nohz",
    "nohz_full",
    "rcu_nocbs",
    "rcu_nocb_poll",
    "irqaffinity",
    "hugepages",
    "hugepagesz",
    "default_hugepagesz",
    "transparent_hugepage",
    "iommu",
    "intel_iommu",
    "amd_iommu",
    "intel_pstate",
    "amd_pstate",
    "processor.max_cstate",
    "intel_idle.max_cstate",
    "mitigations",
    "nosmt",
    "maxcpus",
    "systemd.unified_cgroup_hierarchy",
    "preempt",
];

/// `text` with [`REDACTED`] in the place of every secret.
pub(super) fn secrets(text: &str) -> String {
    text.split_inclusive('\n').map(line).collect()
}

fn line(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let (mut out, mut at) = (String::with_capacity(text.len()), 0);
    while let Some((from, to)) = next_secret(&lower, at) {
        out.push_str(&text[at..from]);
        out.push_str(REDACTED);
        at = to;
    }
    out + &text[at..]
}

/// Where the next value of a secret key begins and ends, at `at` or behind. All ends are those of ASCII characters.
fn next_secret(lower: &str, at: usize) -> Option<(usize, usize)> {
    let found = KEYS.iter().flat_map(|key| lower[at..].match_indices(key).map(move |(from, _)| at + from + key.len()));
    found.filter_map(|end| value(lower, end)).min()
}

/// The value behind the key that ends at `end`: `key=value`, `key = "value"`, `"key": "value"`.
fn value(text: &str, end: usize) -> Option<(usize, usize)> {
    let rest = &text[end..];
    // The key may have more letters, as `passwords`, and quotes around it, which are escaped in JSON within JSON.
    let gap =
        rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || "_-\"'\\ \t".contains(c)).len();
    let behind = rest[gap..].strip_prefix(['=', ':'])?;
    let behind = behind.trim_start_matches([' ', '\t']);
    let from = text.len() - behind.len();
    let quote = behind.trim_start_matches('\\').chars().next().filter(|c| matches!(c, '"' | '\''));
    let length = match quote {
        Some(quote) => {
            let open = behind.find(quote)? + 1;
            open + closing(&behind[open..], quote)
        }
        None => behind.find(|c: char| c.is_ascii_whitespace() || ",;\"'\\}])".contains(c)).unwrap_or(behind.len()),
    };
    (length > 0).then_some((from, from + length))
}

/// Bytes up to a quotation mark, that one included.
fn closing(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            '\\' => escaped = !escaped,
            _ if c == quote && !escaped => return at + 1,
            _ => escaped = false,
        }
    }
    text.trim_end_matches('\n').len()
}

/// A file of TOML without its comments, and without the lines that were nothing else.
pub(super) fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for token in Source::new(text).lex().filter(|token| token.kind() != TokenKind::Comment) {
        let span = token.span();
        out.push_str(text.get(span.start()..span.end()).unwrap_or_default());
    }
    out.lines().map(str::trim_end).filter(|line| !line.is_empty()).map(|line| format!("{line}\n")).collect()
}

/// Of the kernel's command line what has to do with kopi.
pub(super) fn kernel_parameters(line: &str) -> String {
    let known = |word: &&str| PARAMETERS.contains(&word.split('=').next().unwrap_or_default());
    line.split_ascii_whitespace().filter(known).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever form a secret has, its value goes, and nothing else does.
    #[test]
    fn secrets_are_redacted() {
        let cases = [
            ("device = \"net_memif0,secret=hunter2,id=1\"\n", "device = \"net_memif0,secret=[redacted],id=1\"\n"),
            (
                "{\"wire\":{\"device\":\"net_memif0,secret=hunter2\"}}",
                "{\"wire\":{\"device\":\"net_memif0,secret=[redacted]\"}}",
            ),
            ("password = 'hunter2 hunter2' # x\n", "password = [redacted] # x\n"),
            ("\"api_key\": \"hunter2\\\"hunter2\", \"b\": 1", "\"api_key\": [redacted], \"b\": 1"),
            ("kopid: info: Token: hunter2\nnext", "kopid: info: Token: [redacted]\nnext"),
            ("PSK=hunter2 psk=hunter2", "PSK=[redacted] psk=[redacted]"),
            ("passwords: hunter2; ü secret = hunter2", "passwords: [redacted]; ü secret = [redacted]"),
            ("no secret here, and a tokenizer", "no secret here, and a tokenizer"),
            ("secret=", "secret="),
        ];
        for (text, expected) in cases {
            assert_eq!(secrets(text), expected);
        }
    }

    /// Comments go, also behind values; what looks like one within a text stays.
    #[test]
    fn comments_are_left_out() {
        let text = "# hunter2\n[wire] # hunter2\n  # hunter2\n\ndevice = \"a#b\"\nlong = '''\n# c\n'''\n";
        assert_eq!(without_comments(text), "[wire]\ndevice = \"a#b\"\nlong = '''\n# c\n'''\n");
        assert_eq!(without_comments("x = \"unclosed # hunter\n# hunter2\n"), "x = \"unclosed # hunter\n");
    }

    /// Only parameters that are known are told.
    #[test]
    fn kernel_parameters_are_chosen() {
        let line = "root=/dev/sda rd.luks.key=hunter2 isolcpus=2,3 hugepagesz=2M hugepages=512 quiet iommu=pt";
        assert_eq!(kernel_parameters(line), "isolcpus=2,3 hugepagesz=2M hugepages=512 iommu=pt");
    }
}
