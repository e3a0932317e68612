//go:build !linux || !amd64

package vec

// hasAMX reports whether tiles of bytes can be multiplied: on Linux only.
func hasAMX() bool { return false }
