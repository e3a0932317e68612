package vec

import "golang.org/x/sys/cpu"

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
