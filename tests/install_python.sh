#!/usr/bin/env bash
# install_python.sh VENV EXTRAS: an environment with edgemix[EXTRAS], by uv if it is there.
set -euo pipefail
venv=$1 extras=$2

python=
for candidate in python3.13 python3.12 python3.11 python3; do
    if command -v "$candidate" >/dev/null &&
        "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "edgemix needs Python 3.11, 3.12 or 3.13; none of them is on the PATH" >&2
    exit 2
fi

if command -v uv >/dev/null; then
    [ -x "$venv/bin/python" ] || uv venv --quiet --python "$python" "$venv"
    # Compiled once here, not in every child process of every test.
    uv pip install --quiet --compile-bytecode --python "$venv/bin/python" -c constraints.txt -e ".[$extras]"
else
    [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$extras]"
fi
