//go:build race

package wal

// raceEnabled: the explorer runs one goroutine at a time and is ten times as
// slow under the race detector, so that it does less there.
const raceEnabled = true
