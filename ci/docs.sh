#!/usr/bin/env bash
# Checks the documents against the tree: relative links and their anchors, paths in backquotes, and that the pages which list
# drop reasons, keys of kopid.toml and keys of kopictl's JSON list them all. Needs no root and nothing built.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
folders='bench|ci|config|ctl|dataplane|docs|examples|fuzz|lib|packaging|shim|testkit'
kopid='worker|stages|control|capture|host'
bad=0

complain() {
    printf '%s\n' "$*" >&2
    bad=$((bad + 1))
}

# prose FILE: its lines outside of blocks of code.
prose() { awk '/^```/ { code = !code; next } !code' "$1"; }

# anchors FILE: what GitHub makes of its headings: lower case, hyphens for spaces, other punctuation left out.
anchors() { prose "$1" | sed -nE 's/^#+ +//p' | sed -E 's/[^[:alnum:] _-]//g; s/ /-/g' | tr '[:upper:]' '[:lower:]'; }

mapfile -t pages < <(git ls-files --cached --others --exclude-standard '*.md')
((${#pages[@]} > 0)) || complain "there are no documents: git lists none"
for page in "${pages[@]}"; do
    [[ -e $page ]] || continue
    while read -r link; do
        target=${link%%#*}
        file=$page
        [[ -z $target ]] || file=$(dirname "$page")/$target
        if [[ ! -e $file ]]; then
            complain "$page: there is no $target"
        elif [[ $link == *#* && $file == *.md ]] && ! grep -qxF -- "${link#*#}" <<< "$(anchors "$file")"; then
            complain "$page: there is no heading for $link"
        fi
    done < <(prose "$page" | grep -oP '\]\(\K(?![a-z]+:)[^)\s]+' || true)
    # Paths from the root, and those of kopid from its source; globs and what is built are not looked for. Results name files as they
    # were on their day.
    [[ $page != bench/results/* ]] || continue
    while read -r path; do
        [[ -e $path || -e dataplane/src/$path ]] || complain "$page: there is no $path"
    done < <(prose "$page" | grep -oP "\`\K($folders|$kopid)/[\w./-]+(?=\`)" || true)
done

# listed PAGE WHAT NAMES...: each name stands in the page, in backquotes.
listed() {
    local page=$1 what=$2 name
    shift 2
    (($# > 0)) || complain "$page: no $what found to look for"
    for name in "$@"; do
        grep -qE "[\`[ ]$name[]\`]" "$page" || complain "$page: does not list the $what $name"
    done
}

mapfile -t reasons < <(grep -oP '^    [A-Z]\w+ = "\K\w+' lib/ring/src/reason.rs)
listed docs/drops.md "drop reason" "${reasons[@]}"
# Tables are indented by four places there, and their keys by eight.
mapfile -t keys < <(grep -oP '^( {4}| {8})"\K[a-z_]+(?=": \{)' config/schema/kopid.schema.json | sort -u)
listed docs/kopid.md "key of kopid.toml" "${keys[@]}"
# One key has another name in the code: `match` is a word of Rust's.
answers=(status apps stats drops rules classes flows reload explain capture log)
mapfile -t keys < <(printf 'lib/api/src/%s.rs\n' "${answers[@]}" | xargs grep -ohP '^    pub \K\w+(?=:)' | grep -vx matches | sort -u)
listed docs/kopictl.md "key of an answer" "${keys[@]}"

((bad == 0)) || { printf '%d faults in documents\n' "$bad" >&2; exit 1; }
printf '%d documents: links, paths and lists are right\n' "${#pages[@]}"
