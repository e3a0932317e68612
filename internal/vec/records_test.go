package vec

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestRecordsArePutIntoPanels(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 9))
	for range 300 {
		stride := SQ8Line * (1 + r.IntN(3))
		records := make([]byte, (1+r.IntN(80))*stride)
		for i := range records {
			records[i] = byte(r.Uint32()) >> 1 // no bias is NaN
		}
		ids := make([]uint32, r.IntN(PanelRows+1))
		for i := range ids {
			ids[i] = r.Uint32N(uint32(len(records) / stride))
		}
		parts := make([]RecordPart, 1+r.IntN((stride-SQ8Bias)/4))
		first := r.IntN(len(parts) + 1)
		for i := range parts {
			parts[i] = RecordPart{Halved: r.Uint32(), Whole: r.Uint32()}
			if i >= first {
				parts[i].High, parts[i].Above = r.Uint32()|1, RecordAbove(len(parts)-first)
			}
		}
		size := (2*len(parts) - first) * panelQuad
		want, wantBias := make([]byte, size), make([]float32, PanelRows)
		panelRecordsPortable(records, stride, ids, parts, want, wantBias)
		for _, k := range levels(t) {
			panel, bias := make([]byte, size), make([]float32, PanelRows)
			k.PanelRecords(records, stride, ids, parts, panel, bias)
			// What is in lanes without a record does not count.
			for i := range panel {
				if lane := i % panelQuad / 4; lane >= len(ids) {
					panel[i] = 0
				}
			}
			if n := len(ids); !bytes.Equal(panel, want) || !slices.Equal(bias[:n], wantBias[:n]) {
				t.Fatalf("%s: %d records of %d bytes, %d words, %d of them whole: panels differ", k.Level(), n, stride, len(parts), first)
			}
		}
	}
}

func TestRecordsHaveRoomInPanels(t *testing.T) {
	records, panel, bias := make([]byte, 4*SQ8Line), make([]byte, 4*panelQuad), make([]float32, PanelRows)
	for name, put := range map[string]func(Kernels){
		"a row that is not there": func(k Kernels) {
			k.PanelRecords(records, SQ8Line, []uint32{4}, make([]RecordPart, 4), panel, bias)
		},
		"more words than room": func(k Kernels) {
			k.PanelRecords(records, SQ8Line, []uint32{3}, make([]RecordPart, 5), panel, bias)
		},
		"a word behind the room": func(k Kernels) {
			k.PanelRecords(records, SQ8Line, []uint32{3}, []RecordPart{{High: 1, Above: RecordAbove(4)}}, panel, bias)
		},
		"a word before the room": func(k Kernels) {
			k.PanelRecords(records, SQ8Line, []uint32{3}, []RecordPart{{High: 1, Above: RecordAbove(-1)}}, panel, bias)
		},
	} {
		for _, k := range levels(t) {
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("%s: %s was put there", k.Level(), name)
					}
				}()
				put(k)
			}()
		}
	}
}
