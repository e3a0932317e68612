// Package compact rewrites sealed segments. It runs on the owner of the
// write-ahead log, in the background, one job at a time.
//
//	look at the catalog ─▶ plan ─▶ fetch the segments ─▶ apply all deletes up to the checkpoint
//	─▶ drop rows that no read can see any more ─▶ build files and index ─▶ upload
//	─▶ one conditional put in the catalog: the new segment in, the old ones out
//
// Nodes see it in the catalog, load the new segment, and take it for the old ones
// in one step; readers that hold the old ones finish on them. The files of segments
// that the catalog does not list any more are the catalog's Sweep to remove.
//
// # What is rewritten
//
// Small segments of about the same size are merged, so that a row is rewritten a
// few times in its life only. A segment is rewritten by itself when enough of its
// rows are hidden from every read, by deletes, newer rows or their age. Segments of
// dropped partitions leave the catalog. Only segments behind the channel's
// checkpoint are touched: their rows will not be replayed.
//
// # Time travel
//
// A row that is hidden since t is dropped only when reads at t and before are not
// answered any more (the collection's retention, and some time for reads under
// way). Until then the row stays, and its delete is put into the segment's own file.
//
// # Files of deletes
//
// A segment knows up to where the channel's deletes are folded into it. A file of
// deletes that all segments have folded, or that is older than all their rows,
// leaves the catalog; many small ones become one.
//
// # Crashes
//
// Nothing is remembered. Each try builds a segment with a new id in a new folder;
// what a try that ended left there is in no manifest and is swept. The put fails if
// another owner has come, or if one of the old segments is not there any more.
package compact
