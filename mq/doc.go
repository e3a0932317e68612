// Package mq is the contract between querynode and a message queue: ordered
// topics (pchannels) that are appended to by one owner, read by many readers
// from any position, and trimmed from the front. Backends live in sub-packages
// and pass the conformance suite in mq/mqtest.
package mq
