# Daily work. `just` lists these; each is a command of cargo or a script of ci/, as CONTRIBUTING.md shows them.

[private]
default:
    @just --list --unsorted

# the two programs and the driver, in target/release
build:
    cargo build --release -p kopi-dataplane -p kopi-ctl -p 'kopi-driver*'

# format, lints, documentation: all have to be silent
check:
    cargo fmt --check && cargo clippy --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS=-Dwarnings cargo doc --workspace --no-deps && ci/docs.sh

# the crates that know nothing of DPDK, without root
test *ARGS:
    cargo test -p kopi-api -p kopi-ring -p kopi-packet -p kopi-pcapng -p kopi-config -p kopi-policy -p kopi-qos -p kopi-ctl {{ ARGS }}

# end to end, as root, after `build`: those whose name contains FILTER
test-root FILTER="":
    cargo test -p kopi-testkit -- --test-threads=1 {{ FILTER }}

# one scenario of ci/smoke, as root, after `build`
smoke NAME:
    ci/smoke/{{ NAME }}.sh

# Debian packages of what is built, in target/debian
package *ARGS:
    ci/package.sh {{ ARGS }}

# everything shown on one machine, as root
demo:
    ci/demo.sh

# a benchmark, as root: headline, all, throughput, policy, qos, capture, wake, ...
bench NAME *ARGS:
    cargo run --release -p kopi-bench -- {{ NAME }} {{ ARGS }}

# instructions per frame against bench/budgets.toml
budgets *ARGS:
    cargo build --release -p 'kopi-driver*' -p kopi-bench-instructions
    target/release/kopi-bench-instructions {{ ARGS }}

# everything that a change has to pass, as root
all:
    ci/test.sh
