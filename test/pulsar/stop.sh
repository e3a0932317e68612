#!/usr/bin/env bash
# Stops the Pulsar that start.sh started on DIR: only its own process, after a look at what that process is.
#
#   test/pulsar/stop.sh DIR [-9]    -9 kills it, as a crash would
set -euo pipefail
data=${1:?usage: stop.sh DIR [-9]}
signal=${2:--TERM}
[[ -e $data/pid ]] || exit 0
pid=$(<"$data/pid")
ours() { tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -q PulsarStandaloneStarter; }
if ours; then
	kill "$signal" "$pid"
	kill -CONT "$pid" 2>/dev/null || true # one that is frozen must wake to end
	for _ in $(seq 600); do
		ours || break
		sleep 0.05
	done
	if ours; then
		echo "pid $pid is still there after 30 s: kill -9" >&2
		kill -9 "$pid"
	fi
fi
rm -f "$data/pid"
