package server

import (
	"encoding/binary"
	"io"
	"math/bits"
	"reflect"
	"sync"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/querynode/querynode/internal/errclass"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// sizes tell what a request takes once it is decoded, from its bytes alone: a few
// bytes on the wire may become an object of a hundred. The zero value is ready.
type sizes struct {
	types sync.Map // protoreflect.FullName -> *shape
}

// shape is how a message lies in memory.
type shape struct {
	bytes  int64 // of the object, as the allocator rounds it up
	fields []fieldShape
}

// fieldShape is what one field takes beside the message's object.
type fieldShape struct {
	known bool
	each  int64  // for each time that it is there
	text  bool   // and its bytes
	item  int64  // size of an element of a packed list; 0 = none
	fixed int    // on the wire; 0 = varint
	sub   *shape // and this
}

const (
	// grown is by how much a list that grows by one element at a time is larger
	// than what is in it, counting what it was copied from last.
	grown = 2
	// mapEntry is what an entry of a map takes beside key and value.
	mapEntry = 128
	// copies is how often rows are in memory while they are appended: as they were
	// decoded, as columns, and as an entry of the log; see BenchmarkAppendMemory.
	copies = 3
)

// The fields of an AppendRequest that say what it does.
const (
	insertField = 3
	upsertField = 4
	deleteField = 5
)

// decoded returns how many bytes m takes when b has been decoded into it, with the
// copies that its call makes.
func (s *sizes) decoded(m proto.Message, b []byte) int64 {
	return s.of(m.ProtoReflect().Descriptor()).decoded(m, b)
}

// decoded is that of a call's request; all those of a method are of one type.
func (c *call) decoded(m proto.Message, b []byte) int64 {
	of := c.m.request.Load()
	if of == nil {
		of = c.server.sizes.of(m.ProtoReflect().Descriptor())
		c.m.request.Store(of)
	}
	return of.decoded(m, b)
}

func (s *shape) decoded(m proto.Message, b []byte) int64 {
	size := s.bytes + s.size(b)
	if _, ok := m.(*qnpb.AppendRequest); ok {
		return size * copies
	}
	return size
}

// makesRoom reports whether a request only deletes; it lies in as many pieces as came in.
func makesRoom(request any, data mem.BufferSlice) bool {
	if _, ok := request.(*qnpb.AppendRequest); !ok {
		return false
	}
	r := data.Reader()
	defer func() { _ = r.Close() }()
	deletes := false
	for r.Remaining() > 0 {
		tag, err := binary.ReadUvarint(r)
		num, typ := protowire.DecodeTag(tag)
		if err != nil || num == insertField || num == upsertField || skip(r, typ) != nil {
			return false
		}
		deletes = deletes || num == deleteField
	}
	return deletes
}

// skip passes over the value of a field; groups, which are not in use, are an error.
func skip(r *mem.Reader, typ protowire.Type) error {
	n := uint64(0)
	switch typ {
	case protowire.VarintType:
		_, err := binary.ReadUvarint(r)
		return err
	case protowire.BytesType:
		var err error
		if n, err = binary.ReadUvarint(r); err != nil {
			return err
		}
	case protowire.Fixed32Type:
		n = 4
	case protowire.Fixed64Type:
		n = 8
	default:
		return errclass.New(errclass.Invalid, "a field of type %d", typ)
	}
	if n > uint64(r.Remaining()) {
		return io.ErrUnexpectedEOF
	}
	_, err := r.Discard(int(n))
	return err
}

// of returns the shape of a message.
func (s *sizes) of(d protoreflect.MessageDescriptor) *shape {
	if v, ok := s.types.Load(d.FullName()); ok {
		return v.(*shape)
	}
	made := map[protoreflect.FullName]*shape{}
	made[d.FullName()] = shapeOf(d, made)
	for name, one := range made {
		s.types.LoadOrStore(name, one)
	}
	v, _ := s.types.Load(d.FullName())
	return v.(*shape)
}

// shapeOf makes the shape of a message and of those in it.
func shapeOf(d protoreflect.MessageDescriptor, made map[protoreflect.FullName]*shape) *shape {
	if one := made[d.FullName()]; one != nil {
		return one
	}
	out := &shape{bytes: objectSize(d)}
	made[d.FullName()] = out
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		n := int(f.Number())
		if n > maxField {
			continue // counts as unknown, which is more
		}
		for len(out.fields) <= n {
			out.fields = append(out.fields, fieldShape{})
		}
		out.fields[n] = fieldShapeOf(f, made)
	}
	return out
}

// maxField bounds the table of a shape.
const maxField = 1 << 10

func fieldShapeOf(f protoreflect.FieldDescriptor, made map[protoreflect.FullName]*shape) fieldShape {
	out := fieldShape{known: true}
	out.item, out.fixed = elementSize(f.Kind())
	switch f.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		out.item = 0
		out.sub = shapeOf(f.Message(), made)
		out.each = out.sub.bytes
	case protoreflect.StringKind, protoreflect.BytesKind:
		out.item, out.text = 0, true
		out.each = 16 // its bytes, rounded up
	}
	switch {
	case f.IsMap():
		out.each += mapEntry
	case f.IsList() && out.item > 0:
		out.each += grown * out.item
	case f.IsList() && out.text:
		out.each += grown * 24
	case f.IsList():
		out.each += grown * 8
	case f.ContainingOneof() != nil || f.HasPresence():
		out.each += 16
	}
	if !f.IsList() {
		out.item = 0
	}
	return out
}

// elementSize is the size of a value in memory, and on the wire if that is fixed.
func elementSize(k protoreflect.Kind) (bytes int64, fixed int) {
	switch k {
	case protoreflect.BoolKind:
		return 1, 0
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Uint32Kind, protoreflect.EnumKind:
		return 4, 0
	case protoreflect.FloatKind, protoreflect.Fixed32Kind, protoreflect.Sfixed32Kind:
		return 4, 4
	case protoreflect.DoubleKind, protoreflect.Fixed64Kind, protoreflect.Sfixed64Kind:
		return 8, 8
	}
	return 8, 0
}

// objectSize is the memory of an empty message.
func objectSize(d protoreflect.MessageDescriptor) int64 {
	const unknown = 256
	if d.IsMapEntry() {
		return 0 // see mapEntry
	}
	t, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	if err != nil {
		return unknown
	}
	g := reflect.TypeOf(t.Zero().Interface())
	if g.Kind() != reflect.Pointer {
		return unknown
	}
	n := int64(g.Elem().Size())
	return n + n/8 + 16
}

// size is what the fields in b take. What is not well formed counts until there.
func (s *shape) size(b []byte) (total int64) {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return total
		}
		value := b[n:]
		m := protowire.ConsumeFieldValue(num, typ, value)
		if m < 0 {
			return total
		}
		var f *fieldShape
		if int(num) < len(s.fields) && s.fields[num].known {
			f = &s.fields[num]
		}
		switch {
		case f == nil:
			total += grown * int64(n+m)
		case typ == protowire.BytesType:
			inner, _ := protowire.ConsumeBytes(value)
			total += f.length(inner)
		default:
			total += f.each
		}
		b = value[m:]
	}
	return total
}

// length is what a field takes whose value is b.
func (f *fieldShape) length(b []byte) int64 {
	switch {
	case f.sub != nil:
		return f.each + f.sub.size(b)
	case f.text:
		return f.each + int64(len(b))
	case f.item == 0:
		return f.each
	case f.fixed > 0:
		return 16 + int64(len(b)/f.fixed)*f.item
	}
	return 16 + int64(varints(b))*f.item*9/8
}

// varints counts the numbers in a packed list: each has one byte without the
// highest bit.
func varints(b []byte) (n int) {
	const high = 0x8080808080808080
	for len(b) >= 8 {
		n += bits.OnesCount64(^binary.LittleEndian.Uint64(b) & high)
		b = b[8:]
	}
	for _, x := range b {
		if x < 0x80 {
			n++
		}
	}
	return n
}
