// Package testdata holds the data that is shipped with the program: the words
// of the quick start. The go tool leaves folders of this name out of ./..., but
// not out of imports.
package testdata

import "embed"

// FS holds glove-20k.parquet; see README.md for its columns and its licence.
//
//go:embed glove-20k.parquet
var FS embed.FS

// GloVe is the name of the file in FS.
const GloVe = "glove-20k.parquet"
