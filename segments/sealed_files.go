package segments

import (
	"math"

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
	all, room := v.ledger.readable(v.read)
	return v.openAs(of, segfile.Options{WillNeed: true, HugePages: true, Populate: touch, Scattered: few, Paged: paged(v.info.Kind, all, room)})
}

// ranksByCodes reports whether searches read a vector now and then only.
func (v *sealedVectors) ranksByCodes() bool { return index.RanksByCodes(v.info.Kind, v.dim) }

// paged reports whether files of an index, and what else searches read all over, are read by the page: where all such files have more bytes
// than there is room for. Searches of lists read less of them, in longer pieces.
func paged(kind index.Kind, all, room int64) bool {
	switch kind {
	case index.KindHNSW, index.KindHNSWSQ:
		return all > room
	case index.KindIVFFlat, index.KindIVFSQ8, index.KindScaNN:
		return all/2 > room
	}
	return false // read from one end to the other
}

// readable counts n more bytes of mapped files that searches read all over, or fewer, and returns how many there are, and how many memory
// has room for beside what the process has.
func (l *Ledger) readable(n int64) (all, room int64) {
	all = l.read.Add(n)
	process, ceiling := l.Observed()
	if ceiling == 0 {
		return all, math.MaxInt64
	}
	return all, ceiling - process
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
