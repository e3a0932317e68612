// Package catalog knows what exists: collections with their schema, partitions,
// indexes and aliases; the channels that carry them, with their checkpoint and
// sealed segments; and who owns a pchannel. It is a set of JSON manifests in a
// bucket, changed by conditional put alone, so that any number of processes may
// use one catalog at once without a server between them.
//
// Layout, under Options.Prefix:
//
//	ids.json                 the counter that ids come from
//	names/<name>.json        reserves a name of a collection or alias for one collection id
//	collections/<id>.json    Collection
//	channels/<vchannel>.json Channel
//	pchannels/<name>.json    owner and term of a pchannel
//	queues/<name>.json       which queue has the log of a pchannel
//	topics/<name>.json       that the topic of a pchannel, in a queue that nodes share, was written to
//	condemned/...            marks of files that Sweep will remove; see garbage.go
//	clock                    written to learn the storage's time
//
// Each manifest has a "format" (1) and a "version" that grows by one with each
// change. A manifest of a newer format, or with a field this build does not
// know, is refused; nothing is guessed.
//
// # What is true
//
// The collection's manifest is the truth about its name and aliases; an entry in
// names/ only reserves. A name leads to a collection iff its entry holds the
// collection's id, the collection is not dropped, and it calls itself, or has as
// an alias, that name. A collection exists iff its own name leads to it. Hence:
//
//	create  manifest, channels, then the name's entry       the entry commits
//	rename  entry of the new name, manifest, free the old   the manifest commits
//	drop    manifest, free the names                        the manifest commits
//	alias   entry, manifest                                 the manifest commits
//	move an alias  manifest of the new collection, entry, manifest of the old;  the entry commits
//
// A crash between two steps leaves things that nobody sees and Sweep removes
// once they are older than Options.SweepAge, which must be far longer than any
// call can last (CallTimeout): younger ones may belong to a call that runs.
//
// A name's entry is never just deleted, since a delete has no condition and
// might hit the entry of the next owner: it is put to "free" by conditional put,
// taken again from there, and only Sweep deletes it, after it has marked it
// condemned, in which state nobody takes it.
package catalog
