//go:build !race

package index

// raceEnabled says that tests run under the race detector, some ten times slower.
const raceEnabled = false
