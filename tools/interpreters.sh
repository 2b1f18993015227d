#!/bin/sh
# Prints every CPython that the package can be built for on this machine, one word each, oldest first:
#
#     3.10=/path/of/python 3.11=/path/of/python default=3.11
#
# `default` is the version of `python3` if that is among them, else the newest.
#
# A name on the PATH proves nothing: a version manager leaves a shim there for every version it has, and the shim
# fails unless that version is selected. So each candidate is run, and answers with its own true path.
set -eu

# Prints "3.N=/path" if $2 is a finished CPython 3.$1 with a GIL that can make virtual environments.
probe() {
    "$2" -I -c '
import sys, sysconfig
import ensurepip, venv
wanted = sys.version_info[:2] == (3, int(sys.argv[1])) and sys.version_info.releaselevel == "final"
if not wanted or sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
    raise SystemExit(1)
print("3.%s=%s" % (sys.argv[1], getattr(sys, "_base_executable", None) or sys.executable))
' "$1" </dev/null 2>/dev/null
}

# Prints the candidates for 3.$1, the likeliest first.
candidates() {
    if [ "$python3" = "3.$1" ]; then command -v python3; fi
    command -v "python3.$1" || true
    printf '%s\n' "$pyenv_versions" | grep -E "^3\.$1\.[0-9]+\$" | sort -rV | while read -r version; do
        echo "$(pyenv prefix "$version")/bin/python3.$1"
    done
}

python3=$(python3 -I -c 'import sys; print("%d.%d" % sys.version_info[:2])' </dev/null 2>/dev/null || true)
pyenv_versions=$(pyenv versions --bare 2>/dev/null || true)
default=
newest=
for minor in 10 11 12 13 14 15 16 17 18 19; do
    for candidate in $(candidates "$minor"); do
        if found=$(probe "$minor" "$candidate"); then
            echo "$found"
            newest=3.$minor
            if [ "$python3" = "$newest" ]; then default=$newest; fi
            break
        fi
    done
done

if [ -z "$newest" ]; then
    echo "no CPython 3.10 or newer with venv was found on the PATH or in pyenv" >&2
    exit 1
fi
echo "default=${default:-$newest}"
