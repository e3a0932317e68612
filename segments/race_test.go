//go:build race

package segments

// slower is how much less tests of graphs do under the race detector.
const slower = 4
