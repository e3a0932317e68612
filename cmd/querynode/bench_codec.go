package main

import (
	"math"
	"os"
	"strings"

	"github.com/cockroachdb/errors"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/querynode/querynode/internal/rowpb"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// rawMessage is a request that has been encoded, or an answer whose size is all
// that is looked at.
type rawMessage struct{ bytes []byte }

// rawCodec hands encoded requests on and throws answers away.
type rawCodec struct{}

// Name is that of the encoding on the wire.
func (rawCodec) Name() string { return "proto" }

// Marshal returns the bytes of a rawMessage.
func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(*rawMessage)
	if !ok {
		return nil, errors.Newf("encode %T: want a raw message", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(m.bytes)}, nil
}

// Unmarshal refuses an empty answer: a search always says when it is true.
func (rawCodec) Unmarshal(data mem.BufferSlice, _ any) error {
	if data.Len() == 0 {
		return errors.New("the answer to a search is empty")
	}
	return nil
}

// readFilters returns the filters that calls have in turn.
func (b *benchServeCmd) readFilters() (all []string, err error) {
	if b.Filters == "" {
		return []string{b.Filter}, nil
	}
	raw, err := os.ReadFile(b.Filters)
	if err != nil {
		return nil, errors.Wrap(err, "--filters")
	}
	for line := range strings.Lines(string(raw)) {
		if line = strings.TrimSpace(line); line != "" {
			all = append(all, line)
		}
	}
	if len(all) == 0 {
		return nil, usage(errors.Newf("--filters: %s has no filter", b.Filters))
	}
	return all, nil
}

// request asks for the queries [from, from+nq), with the effort in s.fig.
func (s *servedBench) request(from int) *qnpb.SearchRequest {
	to := min(from+s.cmd.NQ, s.queries.rows())
	return &qnpb.SearchRequest{
		Collection: s.cmd.Collection, Field: s.cmd.Field, TopK: int64(s.cmd.TopK), Ef: s.fig.EF, Nprobe: s.fig.Nprobe, Filter: s.filters[from/s.cmd.NQ%len(s.filters)],
		Vectors:   &qnpb.FloatVectors{Dim: int32(s.queries.dim), Raw: rawBytes(s.queries.values[from*s.queries.dim : to*s.queries.dim])},
		Freshness: (&readFlags{Consistency: s.cmd.Consistency}).freshness(),
	}
}

func rawBytes(v []float32) []byte { return rowpb.RawVectors(v, len(v)).GetRaw() }

// encode encodes all requests: each query is in one, each filter too.
func (s *servedBench) encode() ([][]byte, error) {
	var out [][]byte
	calls := s.queries.rows() / s.cmd.NQ
	for i := 0; calls > 0 && i < max(calls, len(s.filters)); i++ {
		req := s.request(i % calls * s.cmd.NQ)
		req.Filter = s.filters[i%len(s.filters)]
		raw, err := proto.Marshal(req)
		if err != nil {
			return nil, errors.Wrap(err, "encode a search")
		}
		if len(raw) > math.MaxInt32 {
			return nil, usage(errors.Newf("--nq %d: one request has %d bytes", s.cmd.NQ, len(raw)))
		}
		out = append(out, raw)
	}
	if len(out) == 0 {
		return nil, usage(errors.Newf("--nq %d: there are %d query vectors", s.cmd.NQ, s.queries.rows()))
	}
	return out, nil
}
