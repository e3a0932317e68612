package lifecycle

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/cockroachdb/errors"
)

// TestAShutGateWaitsForThoseInside: nobody enters a gate that is shut, and who waits goes on
// when the last has left, not before.
func TestAShutGateWaitsForThoseInside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Gate
		shut := errors.New("shut")
		for range 2 {
			if err := g.Enter(); err != nil {
				t.Fatal(err)
			}
		}
		g.Shut(shut)
		g.Shut(errors.New("again"))
		if err := g.Enter(); !errors.Is(err, shut) {
			t.Errorf("into a gate that is shut: %v", err)
		}
		waited := make(chan error, 1)
		go func() { waited <- g.Wait(t.Context()) }()
		for range 2 {
			synctest.Wait()
			select {
			case <-waited:
				t.Error("somebody is inside, and it does not wait")
			default:
			}
			g.Leave()
		}
		if err := <-waited; err != nil {
			t.Error(err)
		}
	})
}

// TestWhatHasComeIsNotLate: if nobody is inside, an ended context is no reason to say so; else it is.
func TestWhatHasComeIsNotLate(t *testing.T) {
	var g Gate
	ended, end := context.WithCancel(t.Context())
	end()
	if err := g.Wait(ended); err != nil {
		t.Errorf("nobody was ever inside: %v", err)
	}
	if err := g.Enter(); err != nil {
		t.Fatal(err)
	}
	if err := g.Wait(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("somebody is inside: %v", err)
	}
	g.Leave()
	if err := g.Wait(ended); err != nil {
		t.Errorf("the last has left: %v", err)
	}
}

// TestARefusingGateSaysWhy: the first reason stays, but that it is shut comes before it.
func TestARefusingGateSaysWhy(t *testing.T) {
	var g Gate
	doubt, shut := errors.New("in doubt"), errors.New("shut")
	if err := g.Enter(); err != nil {
		t.Fatal(err)
	}
	g.Refuse(doubt)
	g.Refuse(errors.New("later"))
	if err := g.Enter(); !errors.Is(err, doubt) || !errors.Is(g.Refused(), doubt) {
		t.Errorf("refused with %v, told as %v", err, g.Refused())
	}
	g.Shut(shut)
	if err := g.Enter(); !errors.Is(err, shut) || !errors.Is(g.Refused(), doubt) {
		t.Errorf("shut with %v, refused with %v", err, g.Refused())
	}
	g.Leave()
	if err := g.Wait(t.Context()); err != nil {
		t.Error(err)
	}
}
