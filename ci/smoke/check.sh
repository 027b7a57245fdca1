#!/usr/bin/env bash
# kopid --check finds every mistake in a configuration at once, with its place and what would be right.
source "$(dirname "$0")/lib.sh"

write_config "net_null0"
"$bin/kopid" --check --config "$work/kopid.toml" >/dev/null || die "a good configuration is refused"
"$bin/kopid" --version | grep -q DPDK || die "no version"

sed -i 's/^cores = .*/coers = [0]/; s/0666/9999/' "$work/kopid.toml"
! errors=$("$bin/kopid" --check --config "$work/kopid.toml" 2>&1) || die "a bad configuration is accepted"
for part in coers 'did you mean' 9999 kopid.toml:5; do
    [[ $errors == *"$part"* ]] || die "no \`$part\` in: $errors"
done
