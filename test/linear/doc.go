// Package linear checks that keys of a node behave like registers: concurrent
// upserts, deletes and Strong reads, with kills, restarts and changes of owner
// in between, are recorded and given to a linearizability checker.
package linear
