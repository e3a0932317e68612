package segfile

import "github.com/cockroachdb/errors"

// FieldFiles lists the files of a vector field that a segment can be open without:
// its vectors and its index, but not which of its vectors are null. See
// Options.Apart.
func (m *Manifest) FieldFiles(fieldID int64) (files []File) {
	for i := range m.Files {
		if id, apart := m.Files[i].apart(); apart && id == fieldID {
			files = append(files, m.Files[i])
		}
	}
	return files
}

// BaseFiles lists the files that FieldFiles has for no field.
func (m *Manifest) BaseFiles() (files []File) {
	for i := range m.Files {
		if _, apart := m.Files[i].apart(); !apart {
			files = append(files, m.Files[i])
		}
	}
	return files
}

// apart reports the field whose vectors or index the file holds.
func (f *File) apart() (fieldID int64, ok bool) {
	switch f.Kind {
	case KindVector:
		return f.Vector.FieldID, true
	case KindIndex:
		return f.Index.FieldID, true
	case KindArray:
		return f.Array.FieldID, f.Array.Part != PartValid
	case KindRows, KindBloom, KindDeletes:
	}
	return 0, false
}

// OpenField maps the files of a vector field of a segment that was opened with
// Options.Apart, with the same checks as Open. Of what it returns, Vectors,
// RawVectors, Sparse, Index, Bytes and Close are of use, for this field; the caller
// closes it.
func (s *Segment) OpenField(fieldID int64, o Options) (*Segment, error) {
	field := &Segment{dir: s.dir, m: s.m, vectors: map[int64][]byte{}, arrays: map[string][]byte{}, indexes: map[int64]indexImage{}}
	files := s.m.FieldFiles(fieldID)
	for i := range files {
		if err := field.openFile(&files[i], o); err != nil {
			err = errors.Wrapf(err, "open field %d of segment %d in %s", fieldID, s.m.SegmentID, s.dir)
			return nil, errors.CombineErrors(err, field.Close())
		}
	}
	return field, nil
}
