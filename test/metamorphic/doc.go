// Command metamorphic does random things to whole nodes, over their API, and
// compares every answer with a naive model: rows in a list, and loops.
//
//	go run ./test/metamorphic --seed 7 --ops 1000000 --dir /dev/shm
//	go run ./test/metamorphic --replay metamorphic-7.script
//
// An operation is one request, whatever number of rows it has. Some worlds, each a
// node with lanes of its own, share the operations; each lane has a collection with a
// random schema of scalars, times, arrays, JSON, dynamic fields and vectors of
// every type, with nulls and defaults; a function may count the words of a text for
// BM25, and the node may give the keys. Some fields and keys hold what is at the ends of their type: the
// least and the greatest numbers, the first and the last times, texts that are empty, as long as may be, or of
// odd characters. In it there are inserts, upserts, deletes by key
// and by filter, flushes, compactions, releases and loads, fields that are added, indexes
// that are built, dropped and replaced, partitions and aliases that come and go, names and time zones
// that change, segments that cannot be read, and requests that are wrong and have to be refused. Between them searches (ranges, groups by fields and paths, pages, fused ones with and without
// groups, with as much work as the node chooses, or little, or much), queries (orders, aggregates, pages), gets and counts, with filters of all kinds, of all rows, of
// sealed ones or of a sample, as of now, as of random moments in the past, or as fresh as
// a level of consistency asks. All lanes of a world meet at a barrier now and then, where
// the node is stopped and started again, sometimes with an object storage that fails while
// it stops, as if the process had been killed.
//
// One collection in --crowds has thousands of rows from the start, and a vector that is
// indexed for it: its graph is walked, or its lists are chosen among. Some searches want up
// to two thousand of them. Of the others' hundreds all are looked at.
//
// Exact searches are compared exactly: which keys may be in the answer, their
// scores, their values; of rows at the same distance any will do. Searches by index
// have to find what is near with a recall of at least 0.95 over the run, in crowds of
// 0.97 by each kind of index, those that want more than 256 rows by themselves, of 0.99 those that ask for much work, and must not return anything that is not there or at
// another distance. Some searches of crowds are asked twice, with little and with much of ef, nprobe, reorder_k or
// recall: in segments where an index did the little, much has to be more work in most, as explain tells.
//
// With --slow the storage and the queue take their time, so that what runs beside each other meets in other orders than it
// does where each call returns at once.
//
// When an answer differs, it is asked for again, at once and three seconds later, and what the node serves and the catalog lists is told
// with it; the last of what the node has logged is in a file beside the script. The operations are cut down to a short script that still
// shows it, which --replay runs again. The exit status is 0 if nothing differed, 1
// if something did, 2 if it could not run.
package main
