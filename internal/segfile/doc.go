// Package segfile is the format of sealed segments: a folder of immutable files
// in open formats, written once, mapped and searched in place.
//
//	manifest.json        what is in the folder; written last: without it there is no segment
//	rows.parquet         timestamps ("$timestamp"), primary key, scalar fields, dynamic field ("$meta")
//	vector_<field>.npy   the vectors of a field: float32, float16, int8, bytes of bits, or bfloat16 as
//	                     uint16, little-endian, row after row, from byte 4096
//	vector_<field>_valid.npy
//	                     of a field with null vectors, a bool per row; the vectors of nulls are zeros
//	vector_<field>_indptr.npy, _indices.npy, _data.npy
//	                     instead of the vectors, of a sparse field: compressed rows, as SciPy has them
//	index_<field>.bin    the image of a vector index, opaque to this package
//	keys.bloom           a split-block Bloom filter of the primary keys
//	deletes.parquet      primary keys and timestamps of deletes, if there are any
//
// # Integrity
//
// The manifest holds the size of each file, the CRC-32C of the whole and of each
// block of 1 MiB, and ends in a checksum of itself. Verify reads everything and
// names file and block that fail. Rows and Deletes check the blocks they read
// before a byte of them is parsed. Vectors and indexes are mapped and are NOT
// checked when used: verify a segment when it arrives.
//
// All numbers in a manifest are checked against each other and against the
// sizes of the files before anything is allocated by them.
//
// # Versions
//
// The members "format", "version" and the closing "crc32c" of the manifest are
// the same in all versions, so that every build can tell damage from a segment
// that is too new for it. Members that a reader may ignore are added without a
// new version; anything else raises FormatVersion, and a reader keeps reading
// the version before its own. Version 2 has arrays, as lists of rows.parquet,
// times, default values and analyzers in the schema, and vectors that are null or not
// float32. Version 3 has functions in the schema.
//
// # Mapped memory
//
// A read of a mapped page faults (SIGBUS) when the file was truncated or the
// disk fails. Go kills the process for it unless the reading goroutine has
// called debug.SetPanicOnFault(true): then it is a panic that can be recovered.
// Whoever touches Vectors or Index runs under that. After Close these slices
// must not be touched at all, and nothing here counts who still does: the
// caller keeps a reference count.
//
// Little-endian hosts only.
package segfile
