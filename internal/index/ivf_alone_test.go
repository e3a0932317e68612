package index

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/querynode/querynode/internal/errclass"
)

// TestPartsOfOneValueAreThoseOfAnImageThatHasParts, and of a number that is known: else every code would be taken for that of other values.
func TestPartsOfOneValueAreThoseOfAnImageThatHasParts(t *testing.T) {
	const n, dim = 2000, 40
	base := clustered(rng(91), n, dim)
	for _, c := range []struct {
		kind  Kind
		alone uint32
		good  bool
	}{{KindScaNN, 1, true}, {KindScaNN, 2, false}, {KindIVFSQ8, 0, true}, {KindIVFSQ8, 1, false}, {KindIVFFlat, 1, false}} {
		var out bytes.Buffer
		if _, err := buildIVFFor(t, c.kind, L2, dim, 10, base).WriteTo(&out); err != nil {
			t.Fatal(err)
		}
		image := alignedCopy(out.Bytes())
		binary.LittleEndian.PutUint32(image[8:], ivfVersion)
		binary.LittleEndian.PutUint32(image[104:], c.alone)
		binary.LittleEndian.PutUint32(image[124:], castagnoli(image[:124]))
		if _, err := Open(image, base); c.good && err != nil || !c.good && !errclass.Is(err, errclass.Corrupt) {
			t.Errorf("%s with parts of one value: %d: %v", c.kind, c.alone, err)
		}
	}
}
