// Package lint holds tests that keep the rules of this code base: which package
// may import which, and what no package may do. The rules and the reasons are in
// ARCHITECTURE.md and CONTRIBUTING.md; a failure says what to use instead.
package lint
