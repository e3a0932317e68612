package node

import (
	"strconv"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/segments"
)

// collectionInfo translates the catalog's entry for the segments.
func collectionInfo(c *catalog.Collection) (segments.CollectionInfo, error) {
	info := segments.CollectionInfo{ID: c.ID, Version: c.Version, Name: c.Name, Schema: &c.Schema, Indexes: map[int64]segments.VectorIndex{}}
	for _, f := range c.Schema.Fields {
		if f.Type.IsVector() {
			info.Indexes[f.ID] = withoutIndex(&c.Schema, f)
		}
	}
	for _, x := range c.Indexes {
		if f, ok := c.Schema.FieldByID(x.FieldID); ok && !f.Type.IsVector() {
			if f.Type == schema.Bool || f.Type == schema.JSON {
				continue // nothing is built
			}
			if info.Scalars == nil {
				info.Scalars = map[int64]string{}
			}
			info.Scalars[x.FieldID] = x.Type
			continue
		}
		v, err := vectorIndex(&x)
		if err != nil {
			return info, err
		}
		info.Indexes[x.FieldID] = v
	}
	lifetimes(&info, c.Properties)
	return info, nil
}

// vectorIndex translates the index of a vector field. A parameter that is not there is 0,
// which leaves the choice to the segments.
func vectorIndex(x *catalog.Index) (segments.VectorIndex, error) {
	metric, err := index.ParseMetric(x.Metric)
	if err != nil {
		return segments.VectorIndex{}, err
	}
	p := params{of: x.Params}
	v := segments.VectorIndex{
		Type: x.Type, Metric: metric, M: p.whole("M"), EfConstruction: p.whole("efConstruction"), Lists: p.whole("nlist"),
		Recall: float32(p.number("recall", 0)), RowBytes: p.whole("row_bytes"),
		K1: p.number(catalog.ParamK1, segments.DefaultK1), B: p.number(catalog.ParamB, segments.DefaultB),
	}
	return v, p.err
}

// withoutIndex is how a field is searched that has no index: exactly, by the metric
// that its type has by default.
func withoutIndex(s *schema.Schema, f schema.Field) segments.VectorIndex {
	x := segments.VectorIndex{Type: catalog.IndexFlat, Metric: index.Cosine}
	switch f.Type {
	case schema.BinaryVector:
		x.Metric = index.Hamming
	case schema.SparseFloatVector:
		x.Metric = index.IP
		if _, made := s.FunctionOf(f.ID); made {
			x.Metric, x.K1, x.B = index.BM25, segments.DefaultK1, segments.DefaultB
		}
	}
	return x
}

// params reads parameters of an index. err is the first that could not be read, of class
// Invalid.
type params struct {
	of  map[string]string
	err error
}

func (p *params) number(name string, otherwise float64) float64 {
	s, ok := p.of[name]
	if !ok {
		return otherwise
	}
	v, err := strconv.ParseFloat(s, 64)
	p.note(name, err)
	return v
}

func (p *params) whole(name string) int {
	s, ok := p.of[name]
	if !ok {
		return 0
	}
	v, err := strconv.Atoi(s)
	p.note(name, err)
	return v
}

func (p *params) note(name string, err error) {
	if p.err == nil {
		p.err = errclass.Wrap(err, errclass.Invalid, "index parameter %s", name)
	}
}
