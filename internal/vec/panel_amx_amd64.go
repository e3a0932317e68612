package vec

// panelsAMX writes the dot products of 16*tiles queries and the vectors of n
// panels to out. rows is the number of quads that a tile holds, a divisor of
// quads, and conf the configuration of tiles that says so.
//
//go:noescape
func panelsAMX(queries *int8, tiles int, quads int, panels *byte, n int, out *int32, rows int, conf *byte)
