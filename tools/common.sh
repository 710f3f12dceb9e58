# What build-wheels and test-wheels share. All that they make but dist/ is below build/wheels.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PYTHON=${PYTHON:-python3}
WORK=$PWD/build/wheels
TOOLS=$WORK/tools/bin    # a virtual environment
ARM=$WORK/arm64          # Debian's Python for arm64, unpacked

step() { printf '\n=== %s (%d s)\n' "$*" "$SECONDS"; }
fail() { echo "$0: $*" >&2; exit 1; }

# wants KIND: was it asked for on the command line, by name or as one of all?
[[ $# -gt 0 ]] || set -- sdist x86_64 aarch64
asked=" $* "
for kind; do
    [[ $kind =~ ^(sdist|x86_64|aarch64)$ ]] || {
        echo "$0: expected some of sdist, x86_64, aarch64, got $kind" >&2
        exit 2
    }
done
wants() { [[ $asked == *" $1 "* ]]; }

# need PACKAGE COMMAND...: which Debian package is missing where the command fails
missing=()
need() { "${@:2}" &>/dev/null || missing+=("$1"); }
stop_if_missing() {
    ((${#missing[@]} == 0)) || {
        echo "Debian packages are missing: apt install ${missing[*]}" >&2
        exit 2
    }
}

pip() { "$1" -m pip -qq --disable-pip-version-check "${@:2}"; }

# fresh_venv PYTHON NAME: a new environment, its interpreter in $venv
fresh_venv() {
    rm -rf "$WORK/$2"
    "$1" -m venv "$WORK/$2"
    venv=$WORK/$2/bin/python
}
