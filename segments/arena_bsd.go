//go:build unix && !linux

package segments

const mapNoReserve = 0
