//go:build !linux && !darwin

package config

// machineMemory is a guess: set memory.limit.
func machineMemory() int64 { return fallbackMemory }
