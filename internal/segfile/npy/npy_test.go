package npy

import (
	"bytes"
	"slices"
	"testing"

	"github.com/querynode/querynode/internal/errclass"
)

// v1 wraps the text of a header the way numpy does.
func v1(text string) []byte {
	n := len(text)
	return append([]byte{0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, byte(n), byte(n >> 8)}, text...)
}

func TestEncodedHeaderEndsOnThePageAndReadsBack(t *testing.T) {
	want := Header{Descr: "<f4", Shape: []int64{1000, 768}}
	b, err := Encode(want, 4096)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) != 4096 || b[4095] != '\n' {
		t.Fatalf("got %d bytes ending in %q", len(b), b[len(b)-1])
	}
	got, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if got.Descr != want.Descr || got.Fortran || !slices.Equal(got.Shape, want.Shape) || got.Offset != 4096 {
		t.Fatalf("got %+v", got)
	}
}

func TestHeadersAsOtherToolsWriteThem(t *testing.T) {
	for name, c := range map[string]struct {
		text  string
		shape []int64
	}{
		"numpy":          {"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }   \n", []int64{3, 4}},
		"other order":    {`{"shape": (3,4), "fortran_order": False, "descr": "<f4"}`, []int64{3, 4}},
		"one dimension":  {"{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }\n", []int64{3}},
		"no dimension":   {"{'descr': '<f4', 'fortran_order': False, 'shape': (), }\n", []int64{}},
		"spaces in odds": {"{ 'descr' :'<f4' ,'fortran_order': False , 'shape':( 3 , 4 ) }", []int64{3, 4}},
	} {
		h, err := Parse(v1(c.text))
		if err != nil || !slices.Equal(h.Shape, c.shape) || h.Descr != "<f4" {
			t.Errorf("%s: got %+v, %v", name, h, err)
		}
	}
	b := append([]byte("\x93NUMPY\x02\x00\x34\x00\x00\x00"), "{'descr': '<f8', 'fortran_order': True, 'shape': (1,)}"[:0x34]...)
	if _, err := Parse(b); !errclass.Is(err, errclass.Corrupt) {
		t.Errorf("cut text: %v", err)
	}
}

func TestBadHeadersAreNamedNotGuessed(t *testing.T) {
	for name, b := range map[string][]byte{
		"empty":         nil,
		"other magic":   []byte("PAR1PAR1PAR1"),
		"version 9":     append([]byte("\x93NUMPY\x09\x00"), 0, 0, 0, 0),
		"huge header":   []byte("\x93NUMPY\x02\x00\xff\xff\xff\xff"),
		"cut short":     []byte("\x93NUMPY\x01\x00\xff\x00{"),
		"negative dim":  v1("{'descr': '<f4', 'fortran_order': False, 'shape': (-3, 4)}"),
		"overflow dim":  v1("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999, 4)}"),
		"structured":    v1("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3, 4)}"),
		"missing shape": v1("{'descr': '<f4', 'fortran_order': False}"),
		"twice":         v1("{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': ()}"),
		"trailing":      v1("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4)} x"),
	} {
		if h, err := Parse(b); !errclass.Is(err, errclass.Corrupt) {
			t.Errorf("%s: got %+v, %v; want class corrupt", name, h, err)
		}
	}
}

func FuzzNpyHeader(f *testing.F) {
	ok, _ := Encode(Header{Descr: "<f4", Shape: []int64{2, 3}}, 128)
	f.Add(ok)
	f.Add(v1("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }"))
	f.Add([]byte("\x93NUMPY\x02\x00\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := Parse(b)
		if err != nil {
			if !errclass.Is(err, errclass.Corrupt) {
				t.Fatalf("class %v: %v", errclass.Of(err), err)
			}
			return
		}
		if h.Offset < 10 || h.Offset > int64(len(b)) {
			t.Fatalf("data offset %d in %d bytes", h.Offset, len(b))
		}
		for _, d := range h.Shape {
			if d < 0 {
				t.Fatalf("shape %v", h.Shape)
			}
		}
		if bytes.ContainsAny([]byte(h.Descr), "'\"\\") {
			return
		}
		again, err := Encode(h, 8192)
		if err != nil {
			t.Fatal(err)
		}
		h2, err := Parse(again)
		if err != nil || h2.Descr != h.Descr || h2.Fortran != h.Fortran || !slices.Equal(h2.Shape, h.Shape) {
			t.Fatalf("%+v became %+v, %v", h, h2, err)
		}
	})
}
