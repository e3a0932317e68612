package segfile

import (
	"slices"
	"unsafe"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/segfile/npy"
)

// vectorWriter writes the files of one vector field.
type vectorWriter struct {
	field schema.Field
	files []*arrayFile // the vectors; of a sparse field indptr, indices and data
	ends  int64        // of a sparse field: values so far
	valid []byte       // one per row, as far as a null came
	rows  int
	nulls int

	widened []byte // mapped: the vectors as float32; nil = nobody asked for them
}

// arrayFile is a .npy file on its way.
type arrayFile struct {
	out    *fileWriter
	part   Part // "" = the dense vectors
	mapped []byte
}

// vectorShape is the type and the shape of the array that holds the vectors of a
// dense field. numpy knows no bfloat16: its bits are there as integers.
func vectorShape(f schema.Field, rows int64) (descr string, shape []int64) {
	dim := int64(f.Dim)
	switch f.Type {
	case schema.Float16Vector:
		descr = "<f2"
	case schema.BFloat16Vector:
		descr = "<u2"
	case schema.Int8Vector:
		descr = "|i1"
	case schema.BinaryVector:
		descr, dim = "|u1", dim/8
	default:
		descr = "<f4"
	}
	return descr, []int64{rows, dim}
}

func (v *vectorWriter) create(dir string) error {
	if v.field.Type != schema.SparseFloatVector {
		return v.add(dir, fileName(KindVector, v.field.ID), "", vectorOffset)
	}
	for _, p := range []Part{PartIndptr, PartIndices, PartData} {
		if err := v.add(dir, arrayName(v.field.ID, p), p, arrayOffset); err != nil {
			return err
		}
	}
	_, err := v.files[0].out.Write(make([]byte, 8)) // the first row begins at 0
	return err
}

func (v *vectorWriter) add(dir, name string, p Part, offset int) error {
	out, err := createFile(dir, name)
	if err != nil {
		return err
	}
	v.files = append(v.files, &arrayFile{out: out, part: p})
	_, err = out.Write(make([]byte, offset)) // the header comes with finish
	return err
}

// append writes the rows of a column that has been checked.
func (v *vectorWriter) append(c *schema.Column) error {
	v.noteNulls(c)
	var err error
	switch {
	case c.Type == schema.SparseFloatVector:
		err = v.appendSparse(c)
	case c.Type == schema.FloatVector:
		_, err = v.files[0].out.Write(bytesOf(c.Float))
	default:
		_, err = v.files[0].out.Write(c.Raw)
	}
	return err
}

func (v *vectorWriter) appendSparse(c *schema.Column) error {
	rows := c.Rows()
	if rows == 0 {
		return nil
	}
	from, to := c.Offsets[0], c.Offsets[rows]
	ends := make([]int64, rows)
	for i := range ends {
		ends[i] = v.ends + int64(c.Offsets[i+1]-from)
	}
	v.ends += int64(to - from)
	for i, b := range [][]byte{bytesOf(ends), bytesOf(c.Indices[from:to]), bytesOf(c.Float[from:to])} {
		if _, err := v.files[i].out.Write(b); err != nil {
			return err
		}
	}
	return nil
}

func (v *vectorWriter) noteNulls(c *schema.Column) {
	rows := c.Rows()
	if slices.Contains(c.Valid, false) {
		for len(v.valid) < v.rows {
			v.valid = append(v.valid, 1)
		}
		for _, ok := range c.Valid {
			if ok {
				v.valid = append(v.valid, 1)
			} else {
				v.valid = append(v.valid, 0)
				v.nulls++
			}
		}
	}
	v.rows += rows
}

func (v *vectorWriter) isMapped() bool {
	return slices.ContainsFunc(v.files, func(a *arrayFile) bool { return a.mapped != nil })
}

// mapAll maps the files.
func (v *vectorWriter) mapAll() (err error) {
	for _, a := range v.files {
		if a.mapped != nil {
			continue
		}
		if err := a.out.flush(); err != nil {
			return err
		}
		if a.mapped, err = mapFile(a.out.f, a.out.sums.size, Options{}); err != nil {
			return err
		}
	}
	return nil
}

func (v *vectorWriter) unmap() error {
	if err := v.narrow(); err != nil {
		return err
	}
	for _, a := range v.files {
		if a.mapped == nil {
			continue
		}
		b := a.mapped
		a.mapped = nil
		if err := unmapFile(b); err != nil {
			return err
		}
	}
	return nil
}

// finish completes the files and describes them.
func (v *vectorWriter) finish(dir string, rows int64) ([]File, error) {
	if v.nulls > 0 {
		for int64(len(v.valid)) < rows {
			v.valid = append(v.valid, 1)
		}
		if err := v.add(dir, arrayName(v.field.ID, PartValid), PartValid, arrayOffset); err != nil {
			return nil, err
		}
		if _, err := v.files[len(v.files)-1].out.Write(v.valid); err != nil {
			return nil, err
		}
	}
	var done []File
	for _, a := range v.files {
		f, err := v.finishFile(a, rows)
		if err != nil {
			return nil, err
		}
		done = append(done, f)
	}
	return done, nil
}

func (v *vectorWriter) finishFile(a *arrayFile, rows int64) (File, error) {
	h, offset, kind := npy.Header{}, vectorOffset, KindVector
	h.Descr, h.Shape = vectorShape(v.field, rows)
	if a.part != "" {
		offset, kind = arrayOffset, KindArray
		descr, width := a.part.descr()
		h.Descr, h.Shape = descr, []int64{(a.out.sums.size - arrayOffset) / width}
	}
	head, err := npy.Encode(h, offset)
	if err != nil {
		return File{}, err
	}
	if err := a.out.replaceHead(head); err != nil {
		return File{}, err
	}
	f, err := a.out.finish(kind)
	if err != nil {
		return File{}, err
	}
	if a.part != "" {
		f.Array = &ArrayMeta{FieldID: v.field.ID, Part: a.part, Length: h.Shape[0], Offset: arrayOffset}
	} else {
		f.Vector = &VectorMeta{FieldID: v.field.ID, Dim: int64(v.field.Dim), Rows: rows, Offset: vectorOffset}
	}
	return f, nil
}

func (v *vectorWriter) close() error {
	var err error
	for _, a := range v.files {
		err = errors.CombineErrors(err, a.out.close())
	}
	return err
}

// bytesOf views numbers as the bytes they are.
func bytesOf[T float32 | uint32 | int64](v []T) []byte {
	var zero T
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(v))), int(unsafe.Sizeof(zero))*len(v))
}

// viewOf views little-endian bytes, which start at a multiple of 8, as numbers.
func viewOf[T float32 | uint32 | int64](b []byte) []T {
	var zero T
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/int(unsafe.Sizeof(zero)))
}

func sparseOf(indptr, indices, data []byte) Sparse {
	return Sparse{Indptr: viewOf[int64](indptr), Indices: viewOf[uint32](indices), Data: viewOf[float32](data)}
}
