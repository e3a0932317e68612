package vec

func (k Kernels) panelRecords(records []byte, stride int, ids []uint32, parts []RecordPart, panel []byte, bias []float32) {
	if k.level < AVX512 {
		panelRecordsPortable(records, stride, ids, parts, panel, bias)
		return
	}
	for from := 0; from < len(ids); from += recordRows {
		some := ids[from:]
		if len(some) < recordRows { // the others are put where nothing is
			var padded [recordRows]uint32
			for i := copy(padded[:], some); i < recordRows; i++ {
				padded[i] = some[0]
			}
			some = padded[:]
		}
		recordsAVX512(&records[0], stride, &some[0], &parts[0].Halved, len(parts)+1, &bias[from], &panel[4*from])
	}
}
