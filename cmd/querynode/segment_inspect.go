package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/querynode/querynode/internal/console"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/segfile"
	"github.com/querynode/querynode/mq/wal"
)

type segmentInspectCmd struct {
	Dir string `arg:"" type:"path" help:"Folder of the segment."`
	outputFlags
}

// Help is shown by --help.
func (segmentInspectCmd) Help() string {
	return `Shows the manifest of a segment. It reads no data: "segment verify" does.

Example:
  querynode segment inspect /tmp/words-1
  querynode segment inspect /tmp/words-1 --json | jq '.files[].size'`
}

// Run shows the segment.
func (s *segmentInspectCmd) Run(a *app) error {
	out := s.console(a)
	m, err := readManifest(s.Dir)
	if err != nil {
		return err
	}
	if out.JSON() {
		return out.Document(m)
	}
	out.Printf("%s  %s rows, %s", out.Paint(console.Strong, fmt.Sprintf("segment %d", m.SegmentID)), console.Count(m.Rows), console.Size(m.DiskBytes()))
	out.Printf("collection %d, partition %d, channel %s, format %s %d", m.CollectionID, m.PartitionID, m.VChannel, m.Format, m.Version)
	out.Printf("written between %s and %s", stamp(m.MinTimestamp), stamp(m.MaxTimestamp))
	if m.StartPosition != "" {
		out.Printf("positions in the log: %s to %s", m.StartPosition, m.EndPosition)
	}
	out.Printf("takes %s mapped and %s of memory", console.Size(m.MappedBytes()), console.Size(m.ScalarBytes))
	out.Table(segmentFields(m))
	out.Table(segmentFiles(m))
	return nil
}

// readManifest is segfile.ReadManifest with advice.
func readManifest(dir string) (*segfile.Manifest, error) {
	m, err := segfile.ReadManifest(dir)
	switch {
	case errclass.Is(err, errclass.NotFound):
		return nil, &problem{text: "there is no segment in " + dir, next: "a segment is a folder with a " + segfile.ManifestName, cause: err}
	case errclass.Is(err, errclass.Corrupt):
		return nil, &problem{text: err.Error(), next: "the manifest is damaged: the segment must be built or copied again", cause: err}
	}
	return m, err
}

func stamp(ts uint64) string { return wal.Time(ts).UTC().Format("2006-01-02 15:04:05.000") + " UTC" }

func segmentFields(m *segfile.Manifest) *console.Table {
	t := &console.Table{Title: "Fields", Columns: []console.Column{console.Left("name"), console.Right("id"), console.Left("type"), console.Right("nulls"),
		console.Left("least"), console.Left("greatest"), console.Left("index")}}
	for _, f := range m.Schema.Columns() {
		nulls, low, high := "", "", ""
		if st, ok := m.FieldStats(f.ID); ok {
			nulls = console.Count(st.Nulls)
			low, high = bounds(&st)
		}
		name := f.Name
		if f.PrimaryKey {
			name += " (key)"
		}
		t.Add(name, f.ID, fieldType(f), nulls, low, high, indexOf(m, f.ID))
	}
	return t
}

func fieldType(f schema.Field) string {
	switch {
	case f.Type == schema.Array:
		return fmt.Sprintf("Array(%s)", fieldType(schema.Field{Type: f.Element, MaxLength: f.MaxLength}))
	case f.Dim > 0:
		return fmt.Sprintf("%s(%d)", f.Type, f.Dim)
	case f.MaxLength > 0:
		return fmt.Sprintf("%s(%d)", f.Type, f.MaxLength)
	}
	return f.Type.String()
}

func bounds(s *segfile.FieldStats) (low, high string) {
	switch {
	case s.Bool != nil:
		return cellText(s.Bool.Min), cellText(s.Bool.Max)
	case s.Int != nil:
		return cellText(s.Int.Min), cellText(s.Int.Max)
	case s.Float != nil:
		return cellText(s.Float.Min), cellText(s.Float.Max)
	case s.Text != nil:
		return cellText(s.Text.Min), cellText(s.Text.Max)
	}
	return "", ""
}

func indexOf(m *segfile.Manifest, field int64) string {
	for i := range m.Files {
		if x := m.Files[i].Index; x != nil && x.FieldID == field {
			parts := []string{x.Type, x.Metric}
			for _, k := range slices.Sorted(maps.Keys(x.Params)) {
				parts = append(parts, k+"="+x.Params[k])
			}
			return strings.Join(parts, " ")
		}
	}
	if f, ok := m.Schema.FieldByID(field); ok && f.Type.IsVector() {
		return "none: exact search"
	}
	return ""
}

func segmentFiles(m *segfile.Manifest) *console.Table {
	t := &console.Table{Title: "Files", Columns: []console.Column{console.Left("name"), console.Left("holds"), console.Right("size"), console.Right("blocks"), console.Left("crc32c")}}
	for i := range m.Files {
		f := &m.Files[i]
		t.Add(f.Name, string(f.Kind), console.Size(f.Size), len(f.Blocks), f.CRC)
	}
	return t
}

type segmentVerifyCmd struct {
	Dir string `arg:"" type:"path" help:"Folder of the segment."`
	outputFlags
}

// Help is shown by --help.
func (segmentVerifyCmd) Help() string {
	return `Reads all files of a segment and compares every block with its checksum. If one differs the command names file and
block and exits with code 1.

Example:
  querynode segment verify /tmp/words-1`
}

// Run verifies the segment.
func (s *segmentVerifyCmd) Run(a *app) error {
	out := s.console(a)
	ctx, cancel := a.context()
	defer cancel()
	start := time.Now()
	m, err := readManifest(s.Dir)
	if err == nil {
		bar := out.Bar("verify", m.DiskBytes(), console.Bytes)
		if err = m.Verify(ctx, s.Dir, func(done, _ int64) { bar.Set(done) }); err != nil {
			bar.Fail()
		}
		bar.Done()
	}
	if out.JSON() {
		doc := map[string]any{"dir": s.Dir, "ok": err == nil}
		if m != nil {
			doc["segment_id"], doc["files"], doc["bytes"] = m.SegmentID, len(m.Files), m.DiskBytes()
		}
		if err != nil {
			doc["error"] = err.Error()
		}
		if derr := out.Document(doc); derr != nil {
			return derr
		}
	}
	if errclass.Is(err, errclass.Corrupt) {
		return &problem{text: err.Error(), next: "the file is damaged: copy it from object storage again, or build the segment anew", cause: err}
	}
	if err != nil {
		return err
	}
	out.Printf("segment %d: all %d files are as they were written (%s in %s)", m.SegmentID, len(m.Files), console.Size(m.DiskBytes()), console.Took(time.Since(start)))
	return nil
}
