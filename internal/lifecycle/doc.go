// Package lifecycle starts and stops things in order and names what is stuck.
//
// Group owns goroutines; Stack (stack.go) owns started parts and closes them in
// reverse order with nested deadlines.
package lifecycle
