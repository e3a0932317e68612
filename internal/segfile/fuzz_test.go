package segfile

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"testing"

	"github.com/querynode/querynode/internal/errclass"
)

func FuzzManifest(f *testing.F) {
	golden, err := os.ReadFile(filepath.Join("testdata", "v1", ManifestName))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(golden)
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		body := b[:max(0, len(b)-sealBytes)]
		sealed := fmt.Appendf(bytes.Clone(body), sealFormat, CRC(crc32.Checksum(body, castagnoli)))
		for _, b := range [][]byte{b, sealed} {
			m, err := ParseManifest(b)
			if err != nil {
				if class := errclass.Of(err); class != errclass.Corrupt && class != errclass.Unimplemented {
					t.Fatalf("class %v: %v", class, err)
				}
				continue
			}
			again, err := m.Encode()
			if err != nil {
				t.Fatalf("accepted, but not to be written: %v", err)
			}
			if _, err := ParseManifest(again); err != nil {
				t.Fatalf("written, but not accepted: %v", err)
			}
		}
	})
}
