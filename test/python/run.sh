#!/usr/bin/env bash
# Checks a node from outside: the program itself, a client made from the .proto
# files by another gRPC, and numpy for what is right.
#
#   test/python/run.sh [part...]     all parts, or those whose names are given
#
# The packages are installed once per requirements.txt, into the user's cache or
# $QUERYNODE_TEST_PYTHON_ENV. QUERYNODE_TEST_BINARY names a program to test instead of
# building one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

here=test/python
python=${PYTHON:-python3}
sum=$(cksum <"$here/requirements.txt" | tr -c '0-9\n' -)
env=${QUERYNODE_TEST_PYTHON_ENV:-${XDG_CACHE_HOME:-$HOME/.cache}/querynode/python-$sum}
if [[ ! -f $env/installed ]]; then
	echo "installing into $env"
	rm -rf "$env"
	"$python" -m venv "$env"
	"$env/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
	touch "$env/installed"
fi

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
mkdir "$tmp/api"
"$env/bin/python" -m grpc_tools.protoc -I proto --python_out="$tmp/api" --grpc_python_out="$tmp/api" proto/querynode/v1/*.proto
binary=${QUERYNODE_TEST_BINARY:-$tmp/querynode}
if [[ -z ${QUERYNODE_TEST_BINARY:-} ]]; then
	CGO_ENABLED=0 go build -o "$binary" ./cmd/querynode
fi
if (($# == 0)); then
	# Tests of single packages that need a Python with these packages.
	QUERYNODE_PYTHON=$env/bin/python go test -count=1 -run Pyarrow ./internal/segfile ./internal/dataset
fi
PYTHONPATH=$tmp/api PYTHONDONTWRITEBYTECODE=1 "$env/bin/python" "$here/main.py" --binary "$binary" --scratch "$tmp" --data testdata "$@"
