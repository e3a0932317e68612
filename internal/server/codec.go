package server

import (
	"math"
	"unicode/utf8"
	"unsafe"

	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/querynode/querynode/internal/errclass"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// codec is gRPC's codec for protobuf with a short cut for searches: their usual
// requests and answers are read and written by hand, in one pass, where the
// general code walks tables of fields and allocates for each. What is not usual
// goes to the general code, which is the judge of what is right.
type codec struct{ general encoding.CodecV2 }

func newCodec() *codec { return &codec{general: encoding.GetCodecV2(protocodec.Name)} }

// Name is that of the encoding on the wire.
func (c *codec) Name() string { return protocodec.Name }

// Marshal encodes a message; answers come encoded already, see call.encode.
func (c *codec) Marshal(v any) (mem.BufferSlice, error) {
	if e, ok := v.(*encoded); ok {
		return e.data, nil
	}
	return c.general.Marshal(v)
}

// Unmarshal decodes a message; data stays the caller's. If v is an envelope, the
// error is in it: gRPC would take it for one of its own.
func (c *codec) Unmarshal(data mem.BufferSlice, v any) error {
	if e, ok := v.(*envelope); ok {
		e.arrived(data, c.unmarshal)
		return nil
	}
	return c.unmarshal(data, v)
}

func (c *codec) unmarshal(data mem.BufferSlice, v any) error {
	if r, ok := v.(*qnpb.SearchRequest); ok && len(data) == 1 {
		if unmarshalSearch(data[0].ReadOnlyData(), r) {
			return nil
		}
		r.Reset()
	}
	return c.general.Unmarshal(data, v)
}

// room makes room for an answer of n bytes.
type room interface {
	buffer(n int) (*[]byte, mem.BufferPool, error)
}

// encoded is an answer that waits to be sent.
type encoded struct {
	data  mem.BufferSlice
	one   [1]mem.Buffer   // memory of data
	bytes mem.SliceBuffer // of a small answer
	few   [256]byte       // memory of bytes, which nearly all searches do with
}

// small makes e an answer of these bytes.
func (e *encoded) small(b []byte) *encoded {
	e.bytes = b
	e.one[0] = &e.bytes
	e.data = e.one[:]
	return e
}

// marshal encodes an answer into a buffer that of has made room for. Small ones
// need none.
func (c *codec) marshal(v any, of room) (*encoded, error) {
	if r, ok := v.(*qnpb.SearchResponse); ok {
		if out, err := marshalAnswer(r, of); out != nil || err != nil {
			return out, err
		}
	}
	m, ok := v.(proto.Message)
	if !ok {
		data, err := c.general.Marshal(v)
		return &encoded{data: data}, err
	}
	o := proto.MarshalOptions{UseCachedSize: true}
	size := proto.Size(m)
	if size <= small {
		b, err := o.Marshal(m)
		return new(encoded).small(b), errclass.Wrap(err, errclass.Internal, "encode the answer")
	}
	buf, pool, err := of.buffer(size)
	if err != nil {
		return nil, err
	}
	out, err := o.MarshalAppend((*buf)[:0], m)
	if err != nil {
		pool.Put(buf)
		return nil, errclass.Wrap(err, errclass.Internal, "encode the answer")
	}
	*buf = out
	return &encoded{data: mem.BufferSlice{mem.NewBuffer(buf, pool)}}, nil
}

// decodedSearch is a request with the messages in it, so that they are one
// object for the collector.
type decodedSearch struct {
	vectors   qnpb.FloatVectors
	freshness qnpb.Freshness
}

// unmarshalSearch decodes a request that has only the usual fields, each of them
// once but output fields. It reports whether it did; if not, r is in any state.
func unmarshalSearch(b []byte, r *qnpb.SearchRequest) bool {
	var inner *decodedSearch
	seen := uint32(0)
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 || num > 31 || seen&(1<<num) != 0 && num != 10 {
			return false
		}
		seen |= 1 << num
		b = b[n:]
		switch typ {
		case protowire.VarintType:
			v, n := protowire.ConsumeVarint(b)
			if n < 0 || !setVarint(r, num, v) {
				return false
			}
			b = b[n:]
		case protowire.Fixed32Type:
			v, n := protowire.ConsumeFixed32(b)
			if n < 0 || !setFloat(r, num, math.Float32frombits(v)) {
				return false
			}
			b = b[n:]
		case protowire.BytesType:
			v, n := protowire.ConsumeBytes(b)
			if n < 0 {
				return false
			}
			b = b[n:]
			if num == 4 || num == 17 {
				if inner == nil {
					inner = new(decodedSearch)
				}
				if !inner.set(r, num, v) {
					return false
				}
			} else if !setText(r, num, v) {
				return false
			}
		default:
			return false
		}
	}
	return true
}

func setVarint(r *qnpb.SearchRequest, num protowire.Number, v uint64) bool {
	switch num {
	case 5:
		r.TopK = int64(v)
	case 6:
		r.Offset = int64(v)
	case 11:
		r.Ef = int32(v)
	case 15:
		r.IgnoreGrowing = v != 0
	case 16:
		r.AllowPartial = v != 0
	case 26:
		r.Nprobe = int32(v)
	case 27:
		r.ReorderK = int32(v)
	default:
		return false
	}
	return true
}

func setFloat(r *qnpb.SearchRequest, num protowire.Number, v float32) bool {
	switch num {
	case 12:
		r.Radius = &v
	case 13:
		r.RangeFilter = &v
	case 29:
		r.RefineK = v
	case 30:
		r.Recall = v
	default:
		return false
	}
	return true
}

func setText(r *qnpb.SearchRequest, num protowire.Number, v []byte) bool {
	if !utf8.Valid(v) {
		return false
	}
	switch num {
	case 1:
		r.Collection = string(v)
	case 3:
		r.Field = string(v)
	case 7:
		r.Metric = string(v)
	case 8:
		r.Filter = string(v)
	case 10:
		r.OutputFields = append(r.OutputFields, string(v))
	default:
		return false
	}
	return true
}

func (d *decodedSearch) set(r *qnpb.SearchRequest, num protowire.Number, v []byte) bool {
	if num == 4 {
		r.Vectors = &d.vectors
		return unmarshalVectors(v, &d.vectors)
	}
	r.Freshness = &d.freshness
	for seen := 0; len(v) > 0; {
		num, typ, n := protowire.ConsumeTag(v)
		if n < 0 || typ != protowire.VarintType || num > 3 || seen&(1<<num) != 0 {
			return false
		}
		seen |= 1 << num
		x, m := protowire.ConsumeVarint(v[n:])
		if m < 0 {
			return false
		}
		v = v[n+m:]
		switch num {
		case 1:
			d.freshness.Level = qnpb.ConsistencyLevel(int32(x))
		case 2:
			d.freshness.GuaranteeTimestamp = x
		case 3:
			d.freshness.ReadTimestamp = x
		}
	}
	return true
}

// unmarshalVectors copies the numbers once, out of the buffer of the transport
// into memory that is aligned for them.
func unmarshalVectors(b []byte, out *qnpb.FloatVectors) bool {
	for seen := 0; len(b) > 0; {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 || num > 3 || seen&(1<<num) != 0 {
			return false
		}
		seen |= 1 << num
		b = b[n:]
		if num == 1 && typ == protowire.VarintType {
			v, n := protowire.ConsumeVarint(b)
			if n < 0 {
				return false
			}
			out.Dim, b = int32(v), b[n:]
			continue
		}
		v, n := protowire.ConsumeBytes(b)
		if num == 1 || typ != protowire.BytesType || n < 0 || len(v)%4 != 0 || len(v) == 0 || !littleEndian() {
			return false
		}
		b = b[n:]
		raw := append([]byte(nil), v...) // not made first, which would clear it
		switch at := unsafe.Pointer(&raw[0]); {
		case num == 3:
			out.Raw = raw
		case uintptr(at)%4 != 0: // never of lengths that 4 divides
			return false
		default:
			out.Values = unsafe.Slice((*float32)(at), len(v)/4)
		}
	}
	return true
}

func littleEndian() bool {
	x := uint16(1)
	return *(*byte)(unsafe.Pointer(&x)) == 1
}

// marshalAnswer encodes an answer that has only the usual fields; nil = it is not one.
func marshalAnswer(r *qnpb.SearchResponse, of room) (*encoded, error) {
	if len(r.Fields) > 0 || r.GroupValues != nil || len(r.GroupCounts) > 0 || r.NextToken != "" || len(r.ProtoReflect().GetUnknown()) > 0 || !plainStats(r.Stats) {
		return nil, nil
	}
	ids, ok := r.GetIds().GetKeys().(*qnpb.Ids_Ints)
	if !ok || ids.Ints == nil || !littleEndian() {
		return nil, nil
	}
	counts, keys := sizeInts(r.Counts), sizeInts(ids.Ints.Values)
	keysArray := sizeField(keys)
	stats := -1
	size := sizeField(counts) + sizeMessage(keysArray+sizeArrayTag(keysArray)) + sizeField(4*len(r.Scores)) + sizeVarint(r.ReadTimestamp)
	if r.Stats != nil {
		stats = sizeStats(r.Stats)
		size += sizeMessage(stats)
	}
	if size <= small {
		e := new(encoded)
		b := e.few[:0]
		if size > len(e.few) {
			b = make([]byte, 0, size)
		}
		return e.small(appendAnswer(b, r, ids.Ints.Values, counts, keys, stats)), nil
	}
	buf, pool, err := of.buffer(size)
	if err != nil {
		return nil, err
	}
	*buf = appendAnswer((*buf)[:0], r, ids.Ints.Values, counts, keys, stats)
	return &encoded{data: mem.BufferSlice{mem.NewBuffer(buf, pool)}}, nil
}

// appendAnswer appends an answer whose parts have these sizes.
func appendAnswer(b []byte, r *qnpb.SearchResponse, ids []int64, counts, keys, stats int) []byte {
	keysArray := sizeField(keys)
	b = appendInts(b, 1, r.Counts, counts)
	b = appendTagLen(b, 2, keysArray+sizeArrayTag(keysArray))
	b = appendTagLen(b, 1, keysArray)
	b = appendInts(b, 1, ids, keys)
	if len(r.Scores) > 0 {
		b = appendTagLen(b, 3, 4*len(r.Scores))
		b = append(b, unsafe.Slice((*byte)(unsafe.Pointer(&r.Scores[0])), 4*len(r.Scores))...)
	}
	b = appendVarint(b, 5, r.ReadTimestamp)
	if stats >= 0 {
		b = appendTagLen(b, 6, stats)
		b = appendStats(b, r.Stats)
	}
	return b
}

// plainStats reports whether stats have only the usual fields.
func plainStats(s *qnpb.ReadStats) bool {
	return s == nil || len(s.Failures)+len(s.Segments) == 0 && s.SegmentsWallNanos|s.MergeNanos|s.OutputNanos == 0 && len(s.ProtoReflect().GetUnknown()) == 0
}

func sizeStats(s *qnpb.ReadStats) int {
	n := sizeField(sizeInts(s.SealedSegments)) + sizeField(sizeInts(s.GrowingSegments)) +
		sizeVarint(uint64(s.PrunedSegments)) + sizeVarint(uint64(s.WaitNanos)) + sizeVarint(uint64(s.SearchNanos))
	for _, c := range s.Channels {
		n += sizeMessage(len(c))
	}
	if math.Float64bits(s.SearchedShare) != 0 {
		n += 9
	}
	return n
}

func appendStats(b []byte, s *qnpb.ReadStats) []byte {
	b = appendInts(b, 1, s.SealedSegments, sizeInts(s.SealedSegments))
	b = appendInts(b, 2, s.GrowingSegments, sizeInts(s.GrowingSegments))
	for _, c := range s.Channels {
		b = appendTagLen(b, 3, len(c))
		b = append(b, c...)
	}
	if bits := math.Float64bits(s.SearchedShare); bits != 0 {
		b = protowire.AppendTag(b, 5, protowire.Fixed64Type)
		b = protowire.AppendFixed64(b, bits)
	}
	b = appendVarint(b, 6, uint64(s.PrunedSegments))
	b = appendVarint(b, 7, uint64(s.WaitNanos))
	return appendVarint(b, 8, uint64(s.SearchNanos))
}

// The tags of all fields here take one byte: their numbers are below 16.

// sizeMessage is the size of a field that is there also when it is empty.
func sizeMessage(n int) int { return 1 + protowire.SizeBytes(n) }

// sizeField is that of one that is left out when it is empty.
func sizeField(n int) int {
	if n == 0 {
		return 0
	}
	return sizeMessage(n)
}

// sizeArrayTag is what stands before an Int64Array of n bytes in its oneof.
func sizeArrayTag(n int) int { return sizeMessage(n) - n }

func sizeVarint(v uint64) int {
	if v == 0 {
		return 0
	}
	return 1 + protowire.SizeVarint(v)
}

func sizeInts(values []int64) (n int) {
	for _, v := range values {
		n += protowire.SizeVarint(uint64(v))
	}
	return n
}

func appendTagLen(b []byte, num protowire.Number, n int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.BytesType), uint64(n))
}

// appendInts appends packed numbers that take size bytes.
func appendInts(b []byte, num protowire.Number, values []int64, size int) []byte {
	if size == 0 {
		return b
	}
	b = appendTagLen(b, num, size)
	for _, v := range values {
		b = protowire.AppendVarint(b, uint64(v))
	}
	return b
}

func appendVarint(b []byte, num protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), v)
}
