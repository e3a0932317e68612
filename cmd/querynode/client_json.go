package main

import (
	"math"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// jsonOf turns a message into what encoding/json writes: fields under their
// names in the .proto, integers as numbers (exactly: never by way of a float),
// enums by name, fields that are not set with their zero value.
func jsonOf(m protoreflect.ProtoMessage) map[string]any {
	if m == nil || !m.ProtoReflect().IsValid() {
		return nil
	}
	return jsonMessage(m.ProtoReflect())
}

func jsonMessage(m protoreflect.Message) map[string]any {
	out := map[string]any{}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if !m.Has(f) && (f.ContainingOneof() != nil || f.Message() != nil && !f.IsList() && !f.IsMap()) {
			continue
		}
		out[string(f.Name())] = jsonField(f, m.Get(f))
	}
	return out
}

func jsonField(f protoreflect.FieldDescriptor, v protoreflect.Value) any {
	switch {
	case f.IsMap():
		out := map[string]any{}
		v.Map().Range(func(k protoreflect.MapKey, x protoreflect.Value) bool {
			out[k.String()] = jsonValue(f.MapValue(), x)
			return true
		})
		return out
	case f.IsList():
		out := make([]any, v.List().Len())
		for i := range out {
			out[i] = jsonValue(f, v.List().Get(i))
		}
		return out
	}
	return jsonValue(f, v)
}

func jsonValue(f protoreflect.FieldDescriptor, v protoreflect.Value) any {
	switch f.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return jsonMessage(v.Message())
	case protoreflect.EnumKind:
		if d := f.Enum().Values().ByNumber(v.Enum()); d != nil {
			return string(d.Name())
		}
		return int32(v.Enum())
	case protoreflect.DoubleKind:
		return jsonFloat(v.Float())
	case protoreflect.FloatKind:
		x := float32(v.Float())
		if math.IsNaN(v.Float()) || math.IsInf(v.Float(), 0) {
			return jsonFloat(v.Float())
		}
		return x // the shortest digits of a float32
	}
	return v.Interface()
}

// jsonFloat writes what JSON has no number for as null.
func jsonFloat(v float64) any {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	return v
}
