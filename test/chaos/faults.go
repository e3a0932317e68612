//go:build unix

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/cockroachdb/errors"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// fault is one way to harm the node. It begins with a node that serves and ends
// with one; an error means that the run cannot go on.
type fault struct {
	name string
	// cards is how often it is in the deck that the schedule is dealt from.
	cards int
	make  func(*rig, context.Context) error
	// cannot says why this machine or run cannot have it; "" = it can.
	cannot func(*rig) string
}

func always(*rig) string { return "" }

func needsDisk(g *rig) string {
	if g.disk != nil {
		return g.disk.Error()
	}
	return ""
}

func needsWire(g *rig) string {
	if g.wire == nil {
		return "only with --storage s3"
	}
	return ""
}

func needsFiles(g *rig) string {
	if g.wire != nil {
		return "only with --storage file"
	}
	return ""
}

func faultList() []fault {
	return append(brokerFaults(), []fault{
		{"kill -9", 5, (*rig).killServing, always},
		{"kill -9 during start or recovery", 5, (*rig).killStarting, always},
		{"kill -9 during flush", 3, (*rig).killFlushing, always},
		{"SIGTERM, restart", 5, (*rig).termServing, always},
		{"SIGTERM during start or recovery", 5, (*rig).termStarting, always},
		{"SIGTERM during flush", 3, (*rig).termFlushing, always},
		{"SIGTERM during searches", 2, (*rig).termSearching, always},
		{"SIGSTOP, SIGCONT", 2, (*rig).pause, always},
		{"SIGSTOP, kill -9", 1, (*rig).pauseAndKill, always},
		{"second node on the data folder", 1, (*rig).second, always},
		{"full disk", 2, (*rig).fullDisk, needsDisk},
		{"full disk, kill -9, start", 1, (*rig).fullDiskKill, needsDisk},
		{"full disk, SIGTERM", 1, (*rig).fullDiskTerm, needsDisk},
		{"damaged leftovers", 2, (*rig).damageLeftovers, always},
		{"damaged segment", 2, (*rig).damageSegment, needsFiles},
		{"damaged deletes", 1, (*rig).damageDeletes, needsFiles},
		{"mapped files cut", 1, (*rig).cutMapped, always},
		{"torn tail of the queue", 2, (*rig).tornTail, needsQueueFiles},
		{"storage hangs", 2, (*rig).storageHangs, needsWire},
		{"storage hangs, SIGTERM", 1, (*rig).storageHangsTerm, needsWire},
		{"storage hangs, start, SIGTERM", 1, (*rig).storageHangsStart, needsWire},
	}...)
}

// faults makes them until the time is over.
func (g *rig) faults(ctx context.Context) error {
	var deck, cards []fault
	for _, f := range faultList() {
		why := f.cannot(g)
		switch {
		case !strings.Contains(f.name, g.o.Only):
		case why != "":
			g.report.leaveOut(f.name, why)
		default:
			for range f.cards {
				cards = append(cards, f)
			}
		}
	}
	if len(cards) == 0 {
		g.report.say("no fault is called %q", g.o.Only)
		return nil
	}
	until := time.Now().Add(g.o.Duration)
	for n := 1; time.Now().Before(until) && (g.o.MaxFaults == 0 || n <= g.o.MaxFaults); n++ {
		if len(deck) == 0 {
			deck = append(deck, cards...)
			g.r.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
		}
		f := deck[0]
		deck = deck[1:]
		rest(ctx, g.upTo(900*time.Millisecond))
		if err := g.one(ctx, n, f); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (g *rig) one(ctx context.Context, n int, f fault) error {
	g.report.fault(f.name)
	g.trouble()
	began := time.Now()
	err := f.make(g, ctx)
	if err == nil && g.node.ended() {
		g.buried(g.node)
		err = g.start(ctx)
	}
	if err != nil {
		return err
	}
	_, operations, violations := g.report.total()
	g.report.say("fault %d: %s, %s; run %d; %d operations, %d violations", n, f.name, time.Since(began).Round(time.Millisecond), g.runs, operations, violations)
	if n%12 == 0 {
		if err := g.verify(ctx, "scan at rest"); err != nil {
			return err
		}
	}
	if n%30 == 0 {
		if err := g.newGeneration(ctx); err != nil {
			return err
		}
	}
	g.calm()
	return nil
}

// upTo draws a moment.
func (g *rig) upTo(d time.Duration) time.Duration { return time.Duration(g.r.Int64N(int64(d))) }

func (g *rig) killServing(ctx context.Context) error {
	g.kill(g.node)
	return g.start(ctx)
}

func (g *rig) termServing(ctx context.Context) error {
	g.term(g.node)
	return g.start(ctx)
}

// partly starts a run and returns at some moment of its start or soon after.
func (g *rig) partly(ctx context.Context) (*process, error) {
	p, err := g.spawn()
	if err != nil {
		return nil, err
	}
	moment := time.NewTimer(g.upTo(max(g.startTook, 50*time.Millisecond) * 3 / 2))
	defer moment.Stop()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for known := false; ; {
		select {
		case <-moment.C:
			return p, nil
		case <-p.done:
			return p, nil // buried finds out why
		case <-look.C:
		}
		if !known && p.announced() {
			known = true
			if err := g.connect(p); err != nil {
				return nil, err
			}
		}
	}
}

func (g *rig) killStarting(ctx context.Context) error {
	g.kill(g.node)
	for range 1 + g.r.IntN(3) {
		p, err := g.partly(ctx)
		if err != nil {
			return err
		}
		if p.ended() {
			break
		}
		g.kill(p)
	}
	return g.start(ctx)
}

func (g *rig) termStarting(ctx context.Context) error {
	g.kill(g.node)
	p, err := g.partly(ctx)
	if err != nil {
		return err
	}
	if !p.ended() {
		g.term(p)
	}
	return g.start(ctx)
}

// flushing asks for a flush and returns at some moment of it.
func (g *rig) flushing(ctx context.Context) {
	if c := g.client(); c != nil {
		name := g.load.gate.collection
		g.side.Go(func() {
			call, cancel := within(ctx, callTimeout)
			defer cancel()
			_, err := c.write.Flush(call, &qnpb.FlushRequest{Collection: name, Wait: true})
			g.report.operation("flush", status.Code(err))
		})
	}
	rest(ctx, g.upTo(maxMoment))
}

func (g *rig) killFlushing(ctx context.Context) error {
	g.flushing(ctx)
	return g.killServing(ctx)
}

func (g *rig) termFlushing(ctx context.Context) error {
	g.flushing(ctx)
	return g.termServing(ctx)
}

// termSearching stops the node under a crowd of searches.
func (g *rig) termSearching(ctx context.Context) error {
	if c := g.client(); c != nil {
		name := g.load.gate.collection
		for i := range int64(64) {
			g.side.Go(func() {
				call, cancel := within(ctx, callTimeout)
				defer cancel()
				var q []float32
				for j := range int64(50) {
					q = append(q, vectorOf(i, j)...)
				}
				_, err := c.query.Search(call, &qnpb.SearchRequest{Collection: name, TopK: 100,
					Vectors: &qnpb.FloatVectors{Dim: dim, Values: q}, Freshness: strong})
				g.report.operation("search in a crowd", status.Code(err))
			})
		}
		rest(ctx, g.upTo(maxMoment/4))
	}
	return g.termServing(ctx)
}

func (g *rig) pause(ctx context.Context) error {
	g.node.signal(syscall.SIGSTOP)
	rest(ctx, 100*time.Millisecond+g.upTo(5*time.Second))
	g.node.signal(syscall.SIGCONT)
	return g.settles(ctx, "after SIGCONT")
}

func (g *rig) pauseAndKill(ctx context.Context) error {
	g.node.signal(syscall.SIGSTOP)
	rest(ctx, g.upTo(time.Second))
	return g.killServing(ctx)
}

// settles waits until the node takes and answers again after a fault that does
// not end it; that it does not is a violation, and it is started again.
func (g *rig) settles(ctx context.Context, when string) error {
	err := g.again(ctx, "flush "+when, func(ctx context.Context, c *client) error {
		_, err := c.write.Flush(ctx, &qnpb.FlushRequest{Collection: g.load.gate.collection})
		if err != nil || g.node.ended() {
			return err
		}
		_, err = c.query.Search(ctx, &qnpb.SearchRequest{Collection: g.load.gate.collection, TopK: 1,
			Vectors: &qnpb.FloatVectors{Dim: dim, Values: vectorOf(0, 1)}, Freshness: strong})
		return err
	})
	for end := time.Now().Add(settleLimit); err == nil && !g.node.ended() && !g.node.ready(); {
		if rest(ctx, 50*time.Millisecond); time.Now().After(end) {
			err = errors.Newf("not ready in %s", settleLimit)
		}
	}
	if err == nil || ctx.Err() != nil || g.node.ended() {
		return ctx.Err()
	}
	g.report.violate(Violation{Kind: NotReady, What: fmt.Sprintf("run %d %s: %v (see %s)", g.node.run, when, err, g.node.log)})
	g.node.asked = true
	g.node.signal(syscall.SIGQUIT) // its goroutines are in its log then
	g.node.wait(5 * time.Second)
	g.node.kill()
	g.disconnect()
	return g.start(ctx)
}

// second starts another node on the same data folder: it has to be refused.
func (g *rig) second(ctx context.Context) error {
	p, err := spawn(g.binary, g.data, filepath.Join(g.work, "logs", fmt.Sprintf("second-%04d.log", g.runs)), 0, g.args, g.env)
	if err != nil {
		return err
	}
	p.asked = true
	if !p.wait(2 * stopLimit) {
		g.report.violate(Violation{Kind: Shared, What: fmt.Sprintf("a second node runs on the data folder of run %d, see %s", g.runs, p.log)})
		p.kill()
	} else if said := string(p.said()); p.code() == 0 || !strings.Contains(said, "in use") {
		g.report.violate(Violation{Kind: Shared, What: fmt.Sprintf("a second node on the same data folder ended with %v and said: %s", p.cmd.ProcessState, said)})
	}
	if !g.node.announced() && !g.node.ended() {
		g.report.violate(Violation{Kind: Shared, What: "a second node has taken away the first one's node.json"})
	}
	return nil
}

func (g *rig) fill() func() {
	free, err := fillDisk(filepath.Dir(g.data))
	if err != nil {
		g.report.say("cannot fill the disk: %v", err)
		return func() {}
	}
	return func() {
		if err := free(); err != nil {
			g.report.say("%v", err)
		}
	}
}

func (g *rig) fullDisk(ctx context.Context) error {
	free := g.fill()
	rest(ctx, 300*time.Millisecond+g.upTo(2500*time.Millisecond))
	free()
	return g.settles(ctx, "after a full disk")
}

// fullDiskKill starts a node on a full disk: it may give up, with a word.
func (g *rig) fullDiskKill(ctx context.Context) error {
	free := g.fill()
	rest(ctx, g.upTo(maxMoment))
	g.kill(g.node)
	p, err := g.spawn()
	if err != nil {
		return err
	}
	p.asked = true
	p.wait(200*time.Millisecond + g.upTo(time.Second))
	if p.ended() && p.code() != 1 {
		g.report.violate(Violation{Kind: Died, What: fmt.Sprintf("run %d on a full disk ended with %v, see %s", p.run, p.cmd.ProcessState, p.log)})
	}
	g.kill(p)
	free()
	return g.start(ctx)
}

// fullDiskTerm stops a node on a full disk: what it cannot write is no loss.
func (g *rig) fullDiskTerm(ctx context.Context) error {
	free := g.fill()
	rest(ctx, g.upTo(time.Second))
	g.term(g.node)
	free()
	return g.start(ctx)
}

func (g *rig) damageLeftovers(ctx context.Context) error {
	g.kill(g.node)
	left, _ := filepath.Glob(filepath.Join(g.data, "run-*"))
	hurt := 0
	for _, run := range left {
		hurt += g.damageTree(run)
	}
	if err := g.start(ctx); err != nil {
		return err
	}
	for end := time.Now().Add(settleLimit); ; {
		still := 0
		for _, run := range left {
			if _, err := os.Stat(run); err == nil {
				still++
			}
		}
		if still == 0 {
			g.report.rows("damaged leftover files", hurt)
			return nil
		}
		if rest(ctx, 50*time.Millisecond); time.Now().After(end) {
			g.report.violate(Violation{Kind: Leftovers, What: fmt.Sprintf("%d folders of killed runs are still there after %s", still, settleLimit)})
			return nil
		}
	}
}

func isNotFound(err error) bool { return status.Code(err) == codes.NotFound }
func isExists(err error) bool   { return status.Code(err) == codes.AlreadyExists }
