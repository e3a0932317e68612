package index

import "unsafe"

// region is memory outside the Go heap, zero at first, in huge pages where the
// system has them: random reads then miss the translation cache less often. It
// starts at the begin of a page. The zero region is empty.
type region struct {
	bytes  []byte
	mapped bool // by the system, not the Go heap
}

// close gives the memory back; touching it afterwards faults. Idempotent.
func (r *region) close() error {
	b, mapped := r.bytes, r.mapped
	r.bytes, r.mapped = nil, false
	if !mapped {
		return nil
	}
	return unmapMemory(b)
}

// as views memory that starts at a multiple of the size of T as values of T.
func as[T uint32 | float32 | uint64 | int8 | share](b []byte) []T {
	var t T
	if len(b) < int(unsafe.Sizeof(t)) {
		return nil // there may be no T behind the end
	}
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/int(unsafe.Sizeof(t)))
}

// raw views numbers as bytes.
func raw[T uint16 | uint32 | float32](v []T) []byte {
	var one T
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(v))), int(unsafe.Sizeof(one))*len(v))
}
