//go:build !linux

package e2e

import "testing"

func mounted(*testing.T) *smallDisk { return nil }

func mountedReadOnly(*testing.T) string { return "" }
