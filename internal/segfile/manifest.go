package segfile

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/crc32"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
)

const (
	// ManifestName is the name of the file that makes a folder a segment.
	ManifestName = "manifest.json"

	// FormatName stands in each manifest.
	FormatName = "querynode-segment"

	// FormatVersion is the newest version this build writes and reads. Each segment
	// is written in the oldest version that can hold it; see schema.Schema.Format.
	FormatVersion = 3
)

// Limits on what a manifest may say.
const (
	MaxManifestBytes = 16 << 20 // of the manifest
	MaxRows          = 1<<31 - 1
	MaxFileBytes     = 1 << 40 // of one file
	maxText          = 64 << 10
	maxParams        = 256
)

// Kind is what a file holds.
type Kind string

// The kinds of files, one of each apart from those that belong to a vector field.
const (
	KindRows    Kind = "rows"
	KindVector  Kind = "vector" // per vector field
	KindIndex   Kind = "index"  // per vector field, optional
	KindBloom   Kind = "bloom"
	KindDeletes Kind = "deletes" // optional
	KindArray   Kind = "array"   // a Part of a vector field
)

// Part is what a further file of a vector field holds, one number per row or value.
type Part string

// The parts of vector fields.
const (
	PartValid   Part = "valid"   // of a field with nulls: one bool per row
	PartIndptr  Part = "indptr"  // of a sparse field: where rows begin, and the end; int64
	PartIndices Part = "indices" // of a sparse field: dimensions, uint32
	PartData    Part = "data"    // of a sparse field: values, float32
)

// descr is numpy's name of the type of the numbers, and their size in bytes.
func (p Part) descr() (string, int64) {
	switch p {
	case PartValid:
		return "|b1", 1
	case PartIndptr:
		return "<i8", 8
	case PartIndices:
		return "<u4", 4
	case PartData:
		return "<f4", 4
	}
	return "", 0
}

// Meta says whose rows a segment holds.
type Meta struct {
	SegmentID     int64         `json:"segment_id"`
	CollectionID  int64         `json:"collection_id"`
	PartitionID   int64         `json:"partition_id"`
	VChannel      string        `json:"vchannel"`
	Schema        schema.Schema `json:"schema"`
	StartPosition string        `json:"start_position,omitempty"` // opaque: where the log begins to matter
	EndPosition   string        `json:"end_position,omitempty"`   // opaque: up to where the log is in the segment
}

// Manifest describes a segment completely. It is read-only once parsed.
type Manifest struct {
	Format  string `json:"format"`
	Version int    `json:"version"`
	Meta
	Rows         int64        `json:"rows"`
	MinTimestamp uint64       `json:"min_timestamp"` // of the rows
	MaxTimestamp uint64       `json:"max_timestamp"`
	DeleteRows   int64        `json:"delete_rows"`  // in deletes.parquet
	ScalarBytes  int64        `json:"scalar_bytes"` // of memory, which Segment.Rows takes
	Stats        []FieldStats `json:"stats"`        // of each scalar field, in the order of the schema
	Files        []File       `json:"files"`
}

// File is one file of a segment other than the manifest.
type File struct {
	Name      string      `json:"name"`
	Kind      Kind        `json:"kind"`
	Size      int64       `json:"size"`
	CRC       CRC         `json:"crc32c"`
	BlockSize int64       `json:"block_size"`
	Blocks    BlockCRCs   `json:"block_crc32c"`
	Vector    *VectorMeta `json:"vector,omitempty"` // of KindVector
	Index     *IndexMeta  `json:"index,omitempty"`  // of KindIndex
	Array     *ArrayMeta  `json:"array,omitempty"`  // of KindArray
}

// ArrayMeta says what an array of a vector field is.
type ArrayMeta struct {
	FieldID int64 `json:"field_id"`
	Part    Part  `json:"part"`
	Length  int64 `json:"length"` // numbers
	Offset  int64 `json:"offset"` // of the first, in bytes
}

// VectorMeta says where the vectors lie in a file.
type VectorMeta struct {
	FieldID int64 `json:"field_id"`
	Dim     int64 `json:"dim"`
	Rows    int64 `json:"rows"`
	Offset  int64 `json:"offset"` // of row 0, in bytes
}

// IndexMeta says what an index file holds. Type, Metric and Params mean
// something to whoever wrote the image, not to this package.
type IndexMeta struct {
	FieldID int64             `json:"field_id"`
	Type    string            `json:"type"`
	Metric  string            `json:"metric"`
	Params  map[string]string `json:"params,omitempty"`
}

// KeyStats are the stats of the primary key.
func (m *Manifest) KeyStats() FieldStats {
	s, _ := m.FieldStats(m.Schema.Primary().ID)
	return s
}

// FieldStats returns the stats of a scalar field.
func (m *Manifest) FieldStats(fieldID int64) (FieldStats, bool) {
	for _, s := range m.Stats {
		if s.FieldID == fieldID {
			return s, true
		}
	}
	return FieldStats{}, false
}

// FileNames lists the files of the segment without the manifest. To copy a
// segment, copy these, then the manifest.
func (m *Manifest) FileNames() []string {
	names := make([]string, len(m.Files))
	for i := range m.Files {
		names[i] = m.Files[i].Name
	}
	return names
}

// DiskBytes is the size of all files but the manifest.
func (m *Manifest) DiskBytes() int64 {
	n := int64(0)
	for i := range m.Files {
		n += m.Files[i].Size
	}
	return n
}

// MappedBytes is how much of DiskBytes Open maps.
func (m *Manifest) MappedBytes() int64 {
	n := int64(0)
	for i := range m.Files {
		switch m.Files[i].Kind {
		case KindVector, KindIndex, KindBloom, KindArray:
			n += m.Files[i].Size
		case KindRows, KindDeletes:
		}
	}
	return n
}

func (m *Manifest) file(name string) *File {
	for i := range m.Files {
		if m.Files[i].Name == name {
			return &m.Files[i]
		}
	}
	return nil
}

func fileName(k Kind, fieldID int64) string {
	switch k {
	case KindRows:
		return "rows.parquet"
	case KindVector:
		return fmt.Sprintf("vector_%d.npy", fieldID)
	case KindIndex:
		return fmt.Sprintf("index_%d.bin", fieldID)
	case KindBloom:
		return "keys.bloom"
	case KindDeletes:
		return "deletes.parquet"
	case KindArray:
	}
	return ""
}

func arrayName(fieldID int64, p Part) string { return fmt.Sprintf("vector_%d_%s.npy", fieldID, p) }

// sealFormat closes a manifest. It is the same in all versions: the checksum is
// that of all bytes before it.
const sealFormat = ",\n  \"crc32c\": \"%s\"\n}\n"

var sealBytes = len(fmt.Sprintf(sealFormat, CRC(0)))

// seal replaces the closing brace of a JSON object by the checksum.
func seal(object []byte) []byte {
	body := bytes.TrimSuffix(object, []byte("\n}"))
	return fmt.Appendf(body, sealFormat, CRC(crc32.Checksum(body, castagnoli)))
}

// Encode returns the bytes of the manifest, as they stand in ManifestName.
func (m *Manifest) Encode() ([]byte, error) {
	if err := m.validate(); err != nil {
		return nil, errors.Wrap(err, "encode manifest")
	}
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, errors.Wrap(err, "encode manifest")
	}
	if len(b)+sealBytes > MaxManifestBytes {
		return nil, errclass.New(errclass.Invalid, "manifest of %d bytes, want at most %d", len(b), MaxManifestBytes)
	}
	return seal(b), nil
}

// ParseManifest reads what Encode wrote. Errors are of class Corrupt, or
// Unimplemented if the segment is of a version this build does not read.
func ParseManifest(b []byte) (*Manifest, error) {
	if len(b) > MaxManifestBytes {
		return nil, errclass.New(errclass.Corrupt, "manifest of %d bytes, want at most %d", len(b), MaxManifestBytes)
	}
	body := b[:max(0, len(b)-sealBytes)]
	want := fmt.Appendf(nil, sealFormat, CRC(crc32.Checksum(body, castagnoli)))
	if !bytes.Equal(b[len(body):], want) {
		return nil, errclass.New(errclass.Corrupt, "manifest: its last lines are %.60q, its checksum asks for %q", b[len(body):], want)
	}
	var version struct {
		Format  string `json:"format"`
		Version int    `json:"version"`
	}
	if err := json.Unmarshal(b, &version); err != nil {
		return nil, errclass.Wrap(err, errclass.Corrupt, "manifest")
	}
	switch {
	case version.Format != FormatName:
		return nil, errclass.New(errclass.Corrupt, "manifest of format %q, want %q", version.Format, FormatName)
	case version.Version > FormatVersion:
		return nil, errclass.New(errclass.Unimplemented,
			"the segment is of format version %d, this build reads up to version %d: upgrade querynode to read it", version.Version, FormatVersion)
	case version.Version < 1:
		return nil, errclass.New(errclass.Corrupt, "manifest of version %d, want 1 to %d", version.Version, FormatVersion)
	}
	m := new(Manifest)
	if err := json.Unmarshal(b, m); err != nil {
		return nil, errclass.Wrap(err, errclass.Corrupt, "manifest")
	}
	if err := m.validate(); err != nil {
		return nil, errclass.Wrap(err, errclass.Corrupt, "manifest")
	}
	return m, nil
}
