#!/bin/sh
# Runs the tests of several CPythons, two at a time: most of what tests do is to wait for timers. What each of
# them prints comes when it is done, in one piece.
#
#     tools/side-by-side.sh "3.10 3.13" [arguments for pytest]
set -eu
versions=$1
shift

# By xargs, since a shell takes the interrupt away from what it starts in the background.
# shellcheck disable=SC2016,SC2086
printf '%s\n' $versions | xargs -P 2 -I '{}' sh -c '
    version=$1
    shift
    status=0
    .venv/$version/bin/pytest "$@" >.venv/$version/pytest.log 2>&1 || status=$?
    cat ".venv/$version/pytest.log"
    echo "CPython $version: $([ $status = 0 ] && echo "tests passed" || echo "FAILED")"
    exit $status
' sh '{}' "$@"
