// Package mqtest holds what a user or an implementer of mq needs in tests:
// Memory, a queue in memory that can be made to fail or hang, and Run, the
// conformance suite that every backend passes.
package mqtest
