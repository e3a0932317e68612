#!/usr/bin/env bash
# Measures querynode's index and other libraries in one go: see peers/run.py.
# The first run makes a virtual environment in $BENCH_DIR; peers that cannot be
# installed here are left out.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export BENCH_DIR=${BENCH_DIR:-$HOME/.cache/querynode-bench}
venv=$BENCH_DIR/venv
mkdir -p "$BENCH_DIR"
if [ ! -e "$venv/ready" ]; then
	python3 -m venv "$venv"
	"$venv/bin/pip" install -q numpy psutil matplotlib faiss-cpu==1.15.1
	while read -r package; do
		case $package in '' | '#'*) continue ;; esac
		"$venv/bin/pip" install -q "$package" || echo "left out: $package" >&2
	done <"$here/peers/requirements.txt"
	touch "$venv/ready"
fi
exec "$venv/bin/python" "$here/peers/run.py" "$@"
