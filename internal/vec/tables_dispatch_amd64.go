package vec

func (k Kernels) tableValues(points, q []float32, factor float32, values []float32) (base, most float32) {
	if k.level != AVX512 {
		return tableValuesPortable(points, q, factor, values)
	}
	most = tableValuesAVX512(&points[0], &q[0], len(values)/TablePart, factor, &values[0], &base)
	return base, most
}

func (k Kernels) tableBytes(values []float32, inv float32, lut []byte) {
	if k.level != AVX512 {
		tableBytesPortable(values, inv, lut)
		return
	}
	tableBytesAVX512(&values[0], len(values)/TablePart, inv, &lut[0])
}
