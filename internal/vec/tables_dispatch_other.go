//go:build !amd64

package vec

func (Kernels) tableValues(points, q []float32, factor float32, values []float32) (base, most float32) {
	return tableValuesPortable(points, q, factor, values)
}

func (Kernels) tableBytes(values []float32, inv float32, lut []byte) {
	tableBytesPortable(values, inv, lut)
}
