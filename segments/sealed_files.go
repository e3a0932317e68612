package segments

import (
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/segfile"
)

// open maps the field's files, and reads them into memory if touch and there is room for
// them. After an error the caller shuts the field.
func (v *sealedVectors) open(of *segfile.Segment, touch bool) error {
	few := v.ranksByCodes()
	for _, f := range of.Manifest().FieldFiles(v.fieldID) {
		if f.Kind == segfile.KindIndex || f.Kind == segfile.KindVector && !few {
			v.read += f.Size
		}
	}
	fits := v.ledger.readable(v.read)
	return v.openAs(of, segfile.Options{WillNeed: true, HugePages: true, Populate: touch, Scattered: few, Paged: v.info.Kind != "" && !fits})
}

// ranksByCodes reports whether searches read a vector now and then only.
func (v *sealedVectors) ranksByCodes() bool { return index.RanksByCodes(v.info.Kind, v.dim) }

// readable counts n more bytes of mapped files that searches read all over, or fewer, and reports
// whether memory has room for all such, beside what the process has.
func (l *Ledger) readable(n int64) bool {
	all := l.read.Add(n)
	process, ceiling := l.Observed()
	return ceiling == 0 || all <= ceiling-process
}

func (v *sealedVectors) openAs(of *segfile.Segment, o segfile.Options) (err error) {
	if v.file, err = of.OpenField(v.fieldID, o); err != nil {
		return err
	}
	if v.typ == schema.SparseFloatVector {
		err = v.openSparse()
	} else {
		err = v.openDense()
	}
	bytes, _ := v.file.Bytes()
	v.mapped.Commit(bytes)
	return errclass.Wrap(err, errclass.Corrupt, "open vectors")
}

// shut unmaps the field's files.
func (v *sealedVectors) shut() error {
	file := v.file
	v.file, v.base, v.raw, v.sparse, v.index = nil, nil, nil, nil, nil
	v.mapped.Release()
	v.ledger.readable(-v.read)
	v.read = 0
	v.built.Release()
	v.learned.end()
	if file == nil {
		return nil
	}
	return file.Close()
}
