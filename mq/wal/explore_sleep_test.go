package wal

import (
	"slices"
	"strings"
)

// sleep are choices that need not be taken in a state: what they lead to has been
// explored, in another order of steps that do not depend on one another. Sleep
// sets (Godefroid) leave out no state, but most of the ways to reach one again.
type sleep []string

// with adds choices.
func (s sleep) with(choices ...string) sleep { return append(slices.Clip(s), choices...) }

// after returns those that are still asleep when step has been taken.
func (s sleep) after(step string, in scenario) (out sleep) {
	for _, c := range s {
		if in.independent(c, step) {
			out = append(out, c)
		}
	}
	return out
}

// without returns choices without those that are asleep.
func (s sleep) without(choices []string) (out []string) {
	for _, c := range choices {
		if !slices.Contains(s, c) {
			out = append(out, c)
		}
	}
	return out
}

// effect is what a step has to do with the queue, which all owners share.
type effect uint8

const (
	local  effect = iota // nothing
	reads                // what it does depends on the log
	writes               // it changes the log, or who owns it
)

// effectOf returns the owner of a step, "" if it concerns all, and its effect.
func effectOf(step string) (owner string, e effect) {
	for _, verb := range []string{"append to ", "close "} {
		if owner, ok := strings.CutPrefix(step, verb); ok {
			return owner, local
		}
	}
	call, ok := strings.CutPrefix(step, "term ")
	if !ok {
		return "", writes
	}
	owner, call, _ = strings.Cut(call, " ")
	call, answer, _ := strings.Cut(call, ": ")
	op, _, _ := strings.Cut(call, "#")
	switch {
	case answer == string(fail), answer == string(full), strings.HasPrefix(op, "close "):
		return owner, local
	case op == "append", op == "open producer":
		return owner, writes
	}
	return owner, reads
}

// fails reports whether a call is made to fail by the step.
func fails(step string) bool {
	return strings.HasPrefix(step, "term ") && !strings.HasSuffix(step, ": "+string(ok))
}

// independent reports whether two steps that can both be taken lead to the same
// state in either order, and neither makes the other possible or impossible.
func (s scenario) independent(a, b string) bool {
	ownerA, effectA := effectOf(a)
	ownerB, effectB := effectOf(b)
	if ownerA == "" || ownerB == "" || ownerA == ownerB {
		return false
	}
	if s.fails > 0 && fails(a) && fails(b) {
		return false // one may be the last that can
	}
	return effectA == local || effectB == local || effectA == reads && effectB == reads
}
