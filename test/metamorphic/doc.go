// Command metamorphic does random things to a whole node, over its API, and
// compares every answer with a naive model: rows in a list, and loops.
//
//	go run ./test/metamorphic --seed 7 --ops 1000000
//	go run ./test/metamorphic --replay metamorphic-7.script
//
// An operation is one request, whatever number of rows it has. Several lanes
// run beside each other, each with a collection of its own: a random schema, then
// inserts, upserts, deletes by key and by filter, flushes, compactions, releases
// and loads, partitions that come and go, and between them searches, queries, gets
// and counts, as of now and as of random moments in the past. All lanes meet at a
// barrier now and then, where the node is stopped and started again, sometimes with
// an object storage that fails while it stops, as if the process had been killed.
//
// Exact searches are compared exactly: which keys may be in the answer, their
// scores, their values; of rows at the same distance any will do. Searches by graph
// have to find what is near with a recall of at least 0.95 over the run, and must
// not return anything that is not there or at another distance.
//
// When an answer differs, the operations are cut down to a short script that still
// shows it, which --replay runs again. The exit status is 0 if nothing differed, 1
// if something did, 2 if it could not run.
package main
