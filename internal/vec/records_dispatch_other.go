//go:build !amd64

package vec

func (Kernels) panelRecords(records []byte, stride int, ids []uint32, parts []RecordPart, panel []byte, bias []float32) {
	panelRecordsPortable(records, stride, ids, parts, panel, bias)
}
