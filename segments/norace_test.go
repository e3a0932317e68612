//go:build !race

package segments

const slower = 1
