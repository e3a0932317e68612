package vec

import (
	"math"

	"golang.org/x/sys/cpu"
)

// countStep and listStep are how many words countBitsAVX512 and listBitsAVX512 take at a time.
const countStep, listStep = 32, 8

func (k Kernels) countBits(set []uint64) counted {
	n := len(set) &^ (countStep - 1)
	if k.level != AVX512 || !cpu.X86.HasAVX512VPOPCNTDQ || n == 0 {
		return counted{}
	}
	return counted{words: n, bits: countBitsAVX512(&set[0], n)}
}

func (k Kernels) listBits(set []uint64, first int, out []uint32) int {
	words := len(set) &^ (listStep - 1)
	if k.level != AVX512 || !cpu.X86.HasAVX512VBMI2 || !cpu.X86.HasAVX512DQ || words == 0 {
		return listBitsPortable(set, first, out)
	}
	places := [64]byte{}
	for i := range places {
		places[i] = byte(i)
	}
	n := listBitsAVX512(&set[0], words, uint32(first)<<6, &places[0], &out[0])
	return n + listBitsPortable(set[words:], first+words, out[n:])
}

// pickStep is how many words pickBitsAVX512 takes at a time.
const pickStep = 8

func (k Kernels) pickBits(set []uint64, first int, out []uint32) int {
	words := len(set) &^ (pickStep - 1)
	if words == 0 || k.level != AVX512 || !cpu.X86.HasAVX512VBMI2 || !cpu.X86.HasAVX512CD {
		return listBitsPortable(set, first, out)
	}
	n := pickBitsAVX512(&set[0], words/pickStep, uint32(first)<<6, &out[0])
	return n + listBitsPortable(set[words:], first+words, out[n:])
}

func (k Kernels) keepListed(rows []uint32, list []uint16, in *[1 << 16]byte, out []uint32) int {
	if k.level == Portable {
		return keepListedPortable(rows, list, in, out)
	}
	return keepListedAMD64(&rows[0], len(rows), &list[0], uint32(min(len(list), math.MaxUint32)), &in[0], &out[0])
}
