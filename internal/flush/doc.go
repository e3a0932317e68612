// Package flush makes growing rows permanent. It runs on the owner of the
// write-ahead log.
//
//	Assign ─▶ rows go to an open growing segment
//	full, old, or Flush ─▶ close it ─▶ appends to it have returned ─▶ Seal entry in the log
//	seal applied ─▶ build files and index ─▶ upload ─▶ one conditional put in the catalog:
//	segment, delete files and checkpoint together ─▶ trim the queue
//
// Each step can be repeated after a crash: the seal marks what is marked, the
// files of a segment have the same names each time, the catalog ignores what it
// has, and a checkpoint only grows. Nothing is remembered between runs but what
// is in the log and the catalog: the loop looks at the segments and does what is due.
package flush
