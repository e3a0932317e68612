package vec

import (
	"encoding/binary"
	"math"

	"github.com/cockroachdb/errors"
)

//go:generate go -C ../../tools/avo run ./records -out ../../internal/vec/records_amd64.s -stubs ../../internal/vec/records_amd64.go -pkg vec

// RecordPart says what becomes of a word, four bytes, of a record in a panel: of word i,
// not counting the bias before the codes, quad i gets what Halved keeps of the word
// shifted right by one bit, and what Whole keeps of it as it is. If High is not 0, the
// quad Above places behind gets what High keeps of it shifted right by four. Fields
// are as the kernel reads them.
type RecordPart struct {
	Halved, Whole, High uint32
	Above               int32 // bytes: see RecordAbove
}

// RecordAbove is what Above is for so many quads.
func RecordAbove(quads int) int32 { return int32(quads * panelQuad) }

// recordRows is how many records are put into a panel in one go.
const recordRows = PanelRows / 2

// PanelRecords puts the codes of the records ids, at most PanelRows of them, into the
// lanes of a panel, in that order, and their biases into bias. Record r is the stride
// bytes from records[r*stride] on, see SQ8IDs; parts say what becomes of its words. Lanes without a
// record are undefined afterwards, quads that no word goes to stay as they are.
func (k Kernels) PanelRecords(records []byte, stride int, ids []uint32, parts []RecordPart, panel []byte, bias []float32) {
	room := 0
	for i, p := range parts {
		room = max(room, (i+1)*panelQuad)
		if p.High != 0 {
			room = max(room, (i+1)*panelQuad+int(p.Above))
			if p.Above < 0 {
				room = math.MaxInt
			}
		}
	}
	if stride < SQ8Line || stride%SQ8Line != 0 || len(parts) == 0 || 4*len(parts) > stride-SQ8Bias || len(ids) > PanelRows ||
		len(bias) < PanelRows || len(panel) < room {
		panic(errors.AssertionFailedf("%d records of %d bytes, %d words of them: a panel of %d bytes, %d biases", len(ids), stride, len(parts), len(panel), len(bias)))
	}
	for _, id := range ids {
		if int(id) >= len(records)/stride {
			panic(errors.AssertionFailedf("record %d of %d", id, len(records)/stride))
		}
	}
	if len(ids) > 0 {
		k.panelRecords(records, stride, ids, parts, panel, bias)
	}
}

func panelRecordsPortable(records []byte, stride int, ids []uint32, parts []RecordPart, panel []byte, bias []float32) {
	le := binary.LittleEndian
	for lane, id := range ids {
		record := records[int(id)*stride:][:stride]
		bias[lane] = math.Float32frombits(le.Uint32(record))
		for i, p := range parts {
			x, to := le.Uint32(record[SQ8Bias+4*i:]), panel[i*panelQuad+4*lane:]
			le.PutUint32(to, x>>1&p.Halved|x&p.Whole)
			if p.High != 0 {
				le.PutUint32(to[p.Above:], x>>4&p.High)
			}
		}
	}
}
