# What the test commands share; sourced at the repository's root, after the array `packages` (tool to Debian packages).
# shellcheck shell=bash

say() { printf '\n== %s\n' "$*"; }

install_tools() {
    local tool missing=()
    for tool in "${!packages[@]}"; do
        # shellcheck disable=SC2206 - one tool may need two packages
        command -v "$tool" >/dev/null || missing+=(${packages[$tool]})
    done
    if [ ${#missing[@]} -gt 0 ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing ${missing[*]}"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    fi
}

make_environment() {
    # Tests start thousands of processes: each would compile echod anew where no bytecode may be kept.
    unset PYTHONDONTWRITEBYTECODE
    say "virtual environment"
    python=.venv-tests/bin/python
    [ -x $python ] || "${PYTHON:-python3}" -m venv .venv-tests
    $python -m pip install -q -e '.[test]'
    $python --version
}
