//! What was found.

use crate::text::clean;
use serde::Serialize;

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// As it should be.
    Ok,
    /// kopid works, but not as well as it could, or as somebody expects.
    Warning,
    /// kopid does not work.
    Error,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// The group of checks.
    pub(crate) check: &'static str,
    pub(crate) severity: Severity,
    /// What is so.
    pub(crate) message: String,
    /// The command that mends it.
    pub(crate) remedy: Option<String>,
}

impl Finding {
    pub(crate) fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self { check, severity: Severity::Ok, message: message.into(), remedy: None }
    }

    pub(crate) fn warning(check: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, severity: Severity::Warning, message: message.into(), remedy: Some(remedy.into()) }
    }

    pub(crate) fn error(check: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { severity: Severity::Error, ..Self::warning(check, message, remedy) }
    }
}

/// Findings for people: a line each, and one with what mends it.
pub(crate) fn shown(found: &[Finding]) -> String {
    let line = |finding: &Finding| {
        let severity = match finding.severity {
            Severity::Ok => "ok",
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        let remedy = finding.remedy.as_deref().map(|remedy| format!("{:>21} {}\n", "->", clean(remedy)));
        format!("{severity:<8} {:<12} {}\n{}", finding.check, clean(&finding.message), remedy.unwrap_or_default())
    };
    let count = |severity| found.iter().filter(|finding| finding.severity == severity).count();
    let sum = format!("errors: {}, warnings: {}\n", count(Severity::Error), count(Severity::Warning));
    found.iter().map(line).chain([sum]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is wrong stands with what mends it, and nothing of it is acted on by a terminal.
    #[test]
    fn findings_are_lines() {
        let found = [Finding::ok("kernel", "6.1"), Finding::error("wire", "no \u{1b}[2J", "ip link")];
        assert_eq!(
            shown(&found),
            "ok       kernel       6.1\nerror    wire         no \\u{1b}[2J\n                   -> ip link\nerrors: 1, warnings: 0\n"
        );
    }
}
