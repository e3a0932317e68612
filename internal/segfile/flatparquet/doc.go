// Package flatparquet reads and writes Parquet files of flat columns: one value
// per row, or (read only) one list of numbers per row. It moves whole columns
// between pages and schema.Column without going through rows.
//
// What it adds over the Parquet library it stands on is distrust. A Parquet
// file is full of lengths, and the library allocates by them before it looks at
// the bytes behind. So Open and Cursor first walk the footer and the headers of
// the pages with a reader of their own, which knows the size of the file, and
// refuse nesting, counts and sizes that cannot be true or exceed Limits. A
// panic of the library becomes an error of class Corrupt.
//
// Not promised: that a compressed page unpacks to what its header says. Strict
// bounds it closely; otherwise a few bytes of zstd, gzip or brotli can unpack to
// far more, as anywhere. LZ4 is refused.
package flatparquet
