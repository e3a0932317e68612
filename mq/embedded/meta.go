package embedded

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path/filepath"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
)

// meta is what a topic remembers besides its messages. It is stored twice,
// meta-a and meta-b, one after the other: a bad byte in one costs nothing, and of
// two that differ the newer one counts.
type meta struct {
	Version int    `json:"version"`
	Edition uint64 `json:"edition"` // grows with every write
	Topic   string `json:"topic"`
	Term    uint64 `json:"term"`
	Durable mark   `json:"durable"`
	// Begin is the number that the first message there ever was had, or will have; 0 = 1.
	Begin uint64 `json:"begin,omitempty"`
	// Unsynced is the run of the machine in which messages are acknowledged before they are
	// durable; "" = none are, or all have been synced. See topic.risk.
	Unsynced string `json:"unsynced,omitempty"`
}

// mark says: the first Length bytes of the file beginning with Base were durable,
// and Next was the number of the message to come.
type mark struct {
	Base          uint64 `json:"base"`
	Length        int64  `json:"length"`
	Next          uint64 `json:"next"`
	MaxTimestamp  uint64 `json:"max_timestamp"`
	LastTimestamp uint64 `json:"last_timestamp"`
}

const (
	metaVersion  = 1
	maxMetaBytes = 64 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func metaPaths(dir string) [2]string {
	return [2]string{filepath.Join(dir, "meta-a"), filepath.Join(dir, "meta-b")}
}

func (m meta) encode() ([]byte, error) {
	b, err := json.Marshal(m)
	if err != nil {
		return nil, errors.Wrap(err, "encode meta")
	}
	return fmt.Appendf(b, "\n%08x\n", crc32.Checksum(b, castagnoli)), nil
}

func decodeMeta(data []byte) (meta, error) {
	var m meta
	body, sum, ok := bytes.Cut(data, []byte("\n"))
	if !ok || string(sum) != fmt.Sprintf("%08x\n", crc32.Checksum(body, castagnoli)) {
		return m, errclass.New(errclass.Corrupt, "checksum is wrong")
	}
	if err := json.Unmarshal(body, &m); err != nil {
		return m, errclass.Wrap(err, errclass.Corrupt, "decode")
	}
	if m.Version != metaVersion {
		return m, errclass.New(errclass.Unimplemented, "version %d, this build reads %d", m.Version, metaVersion)
	}
	return m, nil
}

// readMeta returns the newest valid copy; found is false when there is none at
// all. whole tells whether both copies are there and equal.
func readMeta(s *fileSystem, dir string) (m meta, found, whole bool, err error) {
	var bad error
	n := 0
	for _, path := range metaPaths(dir) {
		data, err := s.readSmall(path, maxMetaBytes)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			bad = errors.CombineErrors(bad, ioError(err, "read %s", path))
			continue
		}
		c, err := decodeMeta(data)
		if err != nil {
			bad = errors.CombineErrors(bad, errors.Wrapf(err, "%s", path))
			continue
		}
		if n++; n == 1 || c.Edition > m.Edition {
			whole = n == 1
			m = c
		} else if c.Edition < m.Edition {
			whole = false
		}
	}
	if n == 0 {
		return meta{}, false, false, bad
	}
	return m, true, whole && n == 2 && bad == nil, nil
}

func (m meta) write(s *fileSystem, dir string) error {
	data, err := m.encode()
	if err != nil {
		return err
	}
	for _, path := range metaPaths(dir) {
		if err := s.writeFile(path, data); err != nil {
			return ioError(err, "write %s", path)
		}
	}
	return nil
}
