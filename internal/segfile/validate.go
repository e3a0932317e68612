package segfile

import (
	"math"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/schema"
)

// vectorOffset is where the vectors start in their files: on a page.
const vectorOffset = 4096

// arrayOffset is where the numbers of an array start in their file.
const arrayOffset = 128

// validate checks that all numbers of the manifest agree, so that what passed
// can be trusted as far as the sizes of the files are right.
func (m *Manifest) validate() error {
	if err := m.validateMeta(); err != nil {
		return err
	}
	if err := m.validateStats(); err != nil {
		return err
	}
	seen := map[string]bool{}
	for i := range m.Files {
		f := &m.Files[i]
		if err := m.validateFile(f); err != nil {
			return errors.Wrapf(err, "file %.80q", f.Name)
		}
		if seen[f.Name] {
			return errors.Newf("file %.80q is there twice", f.Name)
		}
		seen[f.Name] = true
	}
	need := []string{fileName(KindRows, 0), fileName(KindBloom, 0)}
	for _, f := range m.Schema.Fields {
		switch {
		case f.Type == schema.SparseFloatVector:
			need = append(need, arrayName(f.ID, PartIndptr), arrayName(f.ID, PartIndices), arrayName(f.ID, PartData))
			if a, b := m.array(f.ID, PartIndices), m.array(f.ID, PartData); a != nil && b != nil && a.Length != b.Length {
				return errors.Newf("field %q has %d dimensions for %d values", f.Name, a.Length, b.Length)
			}
		case f.Type.IsVector():
			need = append(need, fileName(KindVector, f.ID))
		}
	}
	for _, name := range need {
		if !seen[name] {
			return errors.Newf("file %q is missing from the list", name)
		}
	}
	if seen[fileName(KindDeletes, 0)] != (m.DeleteRows > 0) {
		return errors.Newf("%d deletes, but the file for them is listed: %t", m.DeleteRows, m.DeleteRows == 0)
	}
	return nil
}

func (m *Manifest) validateMeta() error {
	if err := m.Meta.validate(); err != nil {
		return err
	}
	switch {
	case m.Rows < 1 || m.Rows > MaxRows:
		return errors.Newf("%d rows, want 1 to %d", m.Rows, int64(MaxRows))
	case m.MinTimestamp > m.MaxTimestamp:
		return errors.Newf("timestamps from %d to %d", m.MinTimestamp, m.MaxTimestamp)
	case m.DeleteRows < 0 || m.DeleteRows > MaxDeletes:
		return errors.Newf("%d deletes, want 0 to %d", m.DeleteRows, int64(MaxDeletes))
	case m.ScalarBytes < 8*m.Rows || m.ScalarBytes > MaxFileBytes:
		return errors.Newf("%d bytes of scalars for %d rows", m.ScalarBytes, m.Rows)
	}
	return nil
}

func (m *Meta) validate() error {
	if err := m.Schema.Validate(); err != nil {
		return errors.Wrap(err, "schema")
	}
	for _, f := range m.Schema.Fields {
		if f.ID > math.MaxInt32 {
			return errors.Newf("field %q: id %d, want at most %d", f.Name, f.ID, math.MaxInt32)
		}
	}
	for _, s := range []string{m.VChannel, m.StartPosition, m.EndPosition} {
		if len(s) > maxText {
			return errors.Newf("channel or position of %d bytes, want at most %d", len(s), maxText)
		}
	}
	return nil
}

func (m *Manifest) validateStats() error {
	i := 0
	for _, f := range m.Schema.Columns() {
		if f.Type.IsVector() {
			continue
		}
		if i == len(m.Stats) || m.Stats[i].FieldID != f.ID || !m.Stats[i].fits(f, m.Rows) {
			return errors.Newf("stats of field %q are missing or cannot be true", f.Name)
		}
		i++
	}
	if i != len(m.Stats) {
		return errors.Newf("stats of %d fields, want %d", len(m.Stats), i)
	}
	return nil
}

func (m *Manifest) validateFile(f *File) error {
	switch {
	case f.Size < 1 || f.Size > MaxFileBytes:
		return errors.Newf("%d bytes, want 1 to %d", f.Size, int64(MaxFileBytes))
	case f.BlockSize != BlockSize:
		return errors.Newf("blocks of %d bytes, want %d", f.BlockSize, BlockSize)
	case int64(len(f.Blocks)) != (f.Size+BlockSize-1)/BlockSize:
		return errors.Newf("%d block checksums for %d bytes", len(f.Blocks), f.Size)
	case (f.Kind == KindVector) != (f.Vector != nil), (f.Kind == KindIndex) != (f.Index != nil), (f.Kind == KindArray) != (f.Array != nil):
		return errors.Newf("kind %.20q and the description do not match", f.Kind)
	}
	id := int64(0)
	switch f.Kind {
	case KindVector:
		id = f.Vector.FieldID
		if err := m.validateVector(f); err != nil {
			return err
		}
	case KindIndex:
		id = f.Index.FieldID
		if err := f.Index.validate(&m.Schema); err != nil {
			return err
		}
	case KindArray:
		if err := m.validateArray(f); err != nil {
			return err
		}
		if want := arrayName(f.Array.FieldID, f.Array.Part); f.Name != want {
			return errors.Newf("want the name %q", want)
		}
		return nil
	case KindDeletes:
		if f.Size > MaxDeletesBytes {
			return errors.Newf("%d bytes, want at most %d", f.Size, MaxDeletesBytes)
		}
	case KindRows, KindBloom:
	default:
		return errors.Newf("unknown kind %.20q", f.Kind)
	}
	if want := fileName(f.Kind, id); f.Name != want {
		return errors.Newf("want the name %q", want)
	}
	return nil
}

func (m *Manifest) validateVector(f *File) error {
	v := f.Vector
	field, ok := m.Schema.FieldByID(v.FieldID)
	if !ok || !field.Type.IsVector() || field.Type == schema.SparseFloatVector {
		return errors.Newf("field %d is no field of dense vectors", v.FieldID)
	}
	// Rows < 2^31 and rows of at most 2^17 bytes: no overflow.
	size := vectorOffset + m.Rows*int64(field.Type.RowBytes(field.Dim))
	if v.Dim != int64(field.Dim) || v.Rows != m.Rows || v.Offset != vectorOffset || f.Size != size {
		return errors.Newf("%d vectors of %d at byte %d in %d bytes, want %d of %d at byte %d in %d",
			v.Rows, v.Dim, v.Offset, f.Size, m.Rows, field.Dim, vectorOffset, size)
	}
	return nil
}

func (m *Manifest) validateArray(f *File) error {
	a := f.Array
	field, ok := m.Schema.FieldByID(a.FieldID)
	if !ok || !field.Type.IsVector() {
		return errors.Newf("field %d is no vector field", a.FieldID)
	}
	_, width := a.Part.descr()
	want := m.Rows
	switch {
	case width == 0:
		return errors.Newf("unknown part %.20q", a.Part)
	case a.Part == PartValid && field.Nullable:
	case a.Part != PartValid && field.Type == schema.SparseFloatVector:
		if want = a.Length; a.Part == PartIndptr {
			want = m.Rows + 1
		}
	default:
		return errors.Newf("field %d of type %s has no part %q", a.FieldID, field.Type, a.Part)
	}
	if a.Length != want || a.Length < 0 || a.Length > MaxFileBytes/8 || a.Offset != arrayOffset || f.Size != arrayOffset+width*a.Length {
		return errors.Newf("%d numbers from byte %d in %d bytes, want %d from byte %d", a.Length, a.Offset, f.Size, want, arrayOffset)
	}
	return nil
}

// array returns an array of a vector field; nil if there is none.
func (m *Manifest) array(fieldID int64, p Part) *ArrayMeta {
	if f := m.file(arrayName(fieldID, p)); f != nil {
		return f.Array
	}
	return nil
}

func (x *IndexMeta) validate(s *schema.Schema) error {
	if f, ok := s.FieldByID(x.FieldID); !ok || !f.Type.IsVector() {
		return errors.Newf("field %d is no vector field", x.FieldID)
	}
	n := len(x.Type) + len(x.Metric)
	for k, v := range x.Params {
		n += len(k) + len(v)
	}
	if x.Type == "" || len(x.Params) > maxParams || n > maxText {
		return errors.Newf("index of type %.40q with %d parameters of %d bytes, want a type, at most %d parameters and %d bytes", x.Type, len(x.Params), n, maxParams, maxText)
	}
	return nil
}
