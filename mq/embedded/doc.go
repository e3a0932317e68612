// Package embedded is the default message queue: files of this one process, no
// server. It promises what package mq says; mq/mqtest checks it.
//
// # Files
//
//	<Dir>/LOCK                      flock held while open; holds the pid
//	<Dir>/ID                        32 hex digits that tell this queue from all others
//	<Dir>/<escaped topic>/meta-a    term and durable mark; meta-b is its twin
//	<Dir>/<escaped topic>/<n>.seg   20 digits: the sequence number it begins with
//	<anything>.tmp                  left by a crash; removed at the next open
//
// Messages of a topic are numbered 1, 2, 3... across its files; a position's ID
// is that number, 8 bytes big-endian. A topic that takes the place of one that was
// lost begins with a higher number (meta), see Queue.Begin.
//
// # Segment file, version 1 (little-endian)
//
// The header is 64 bytes and stored twice, so that one bad byte costs nothing:
//
//	offset  bytes  what
//	     0      8  magic "QNMQSEG\n"
//	     8      4  version
//	    12      4  crc32c of bytes 16 to 63
//	    16      8  base: sequence number of the first message
//	    24      8  salt: random, part of every frame's header checksum
//	    32      8  base of the previous file, 0 = none
//	    40      8  length of the previous file when this one was begun
//	    48      8  highest timestamp of all messages before base
//	    56      8  timestamp of message base-1
//
// Frames follow without padding:
//
//	offset  bytes  what
//	     0      4  marker e7 51 4e 1a
//	     4      4  crc32c of salt and bytes 8 to 39
//	     8      4  crc32c of key and payload
//	    12      4  payload length
//	    16      2  key length
//	    18      2  zero
//	    20      4  how many frames of the same batch follow
//	    24      8  sequence number
//	    32      8  timestamp
//	    40         key, payload
//
// The header has a checksum of its own so that a bad body costs exactly one
// message, and so that the next frame after a bad header is found by its marker
// in one pass. The salt keeps a payload that looks like a frame from being taken
// for one.
//
// # Writing
//
// One goroutine per topic writes. What concurrent Appends bring while it is busy
// goes out in the next write and fdatasync together, and is acknowledged and
// shown to readers after it. A write that fails is cut off again: nothing of it
// is stored. After a failed fdatasync nobody knows (but "no space" can be cut off
// too): mq.ErrUnknownOutcome, and the topic refuses appends until the next
// OpenProducer has cut the file to its durable length; that file is not written
// again, a new one is begun.
//
// # Opening
//
// Headers of all files are read, and all frames of the last. Its end is a torn
// write, and cut off, if it is part of a frame, or zeros, or a batch that is not
// complete: nothing of that was ever acknowledged. All else that is no valid frame
// is damage to something that may have been acknowledged, also at the very end: it
// stays, readers get one *mq.CorruptError for each damaged place and go on, and
// the numbers that may have stood there are not given out again. The durable mark in
// the meta files, written by Close and whenever the term grows, says up to where
// even such an end cannot be a torn write.
//
// A power failure on a file system that lets a size reach the disk before the data
// may leave a hole in what was never acknowledged. It looks like damage and is
// treated as such: the other reading could lose acknowledged messages.
//
// What was acknowledged before it was synced (SyncInterval, SyncNone) may be gone after a
// power failure; Sync makes it safe up to the moment of the call. The meta files name the
// run of the machine (its boot id) in which there may be such messages, so that the next
// open can say it.
//
// What an open finds it syncs before anybody reads it. That is not enough where a sync has
// failed before: a kernel tells of it once, holds what it could not write for written, and
// calls the next sync good. So an open writes again what may be among that, as does the
// next OpenProducer; what the kernel has let go of meanwhile is told as damage.
//
// # Limits
//
// Reads run in the caller's goroutine: a local disk that hangs blocks Next beyond
// its context. One process per Dir. Trim drops whole files.
package embedded
