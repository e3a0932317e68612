//go:build unix && !linux

package main

import (
	"os/exec"

	"github.com/cockroachdb/errors"
)

func setParentDeath(*exec.Cmd) {}

func mountDisk(string) (func() error, error) {
	return nil, errors.New("only on Linux: a file system of limited size")
}

func fillDisk(string) (func() error, error) {
	return nil, errors.New("only on Linux: a file system of limited size")
}
