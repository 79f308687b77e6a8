#!/usr/bin/env bash
# What the tests need from Debian: a browser for the report's page, a compiler for C simulation,
# Verilator and Yosys for RTL, a synthesizer for the keywords, an ssh server to measure on.
set -euo pipefail
missing=()
command -v chromium >/dev/null || missing+=(chromium)
for tool in g++ make verilator yosys espeak-ng; do
    command -v "$tool" >/dev/null || missing+=("$tool")
done
command -v ssh >/dev/null || missing+=(openssh-client)
# Debian keeps it where only root's PATH looks.
[ -x /usr/sbin/sshd ] || missing+=(openssh-server)
[ ${#missing[@]} -eq 0 ] && exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if ! sudo -n true 2>/dev/null; then
        echo "the tests need ${missing[*]}: run apt-get install ${missing[*]}" >&2
        exit 2
    fi
    as_root=(sudo -n)
fi
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
