package vec

import (
	"golang.org/x/sys/cpu"
	"golang.org/x/sys/unix"
)

// hasAMX reports whether the CPU multiplies tiles of bytes and the kernel lets
// this process do so: it asks it to, since the registers are so large that
// threads get room for them only on demand.
func hasAMX() bool {
	if !cpu.X86.HasAMXTile || !cpu.X86.HasAMXInt8 || Supported() != AVX512 {
		return false
	}
	const (
		archReqXCompPerm = 0x1023
		xfeatureXTile    = 18
	)
	_, _, errno := unix.RawSyscall(unix.SYS_ARCH_PRCTL, archReqXCompPerm, xfeatureXTile, 0)
	return errno == 0
}
