//go:build unix

package main

import (
	"context"
	"net/http"
	"time"
)

// needsBroker is for faults of the broker and of the connection to it.
func needsBroker(g *rig) string {
	switch {
	case g.broker == nil:
		return "only with --queue pulsar"
	case g.broker.wire == nil:
		return "the broker of " + envBroker + " is not ours to harm"
	}
	return ""
}

func needsQueueFiles(g *rig) string {
	if g.broker != nil {
		return "only with --queue embedded"
	}
	return ""
}

func brokerFaults() []fault {
	return []fault{
		{"broker: kill -9, restart", 1, (*rig).brokerKilled, needsBroker},
		{"broker: kill -9, SIGTERM of the node", 1, (*rig).brokerKilledTerm, needsBroker},
		{"broker: SIGTERM, restart", 1, (*rig).brokerRestarted, needsBroker},
		{"broker: SIGSTOP, SIGCONT", 2, (*rig).brokerFrozen, needsBroker},
		{"broker: SIGSTOP, SIGTERM of the node", 1, (*rig).brokerFrozenTerm, needsBroker},
		{"broker: SIGSTOP, start, SIGTERM of the node", 1, (*rig).brokerFrozenStart, needsBroker},
		{"broker: connection hangs", 2, (*rig).brokerHangs, needsBroker},
		{"broker: connection hangs, SIGTERM of the node", 1, (*rig).brokerHangsTerm, needsBroker},
		{"broker: connection hangs, kill -9 of the node", 1, (*rig).brokerHangsKill, needsBroker},
		{"broker: connections cut", 5, (*rig).brokerCut, needsBroker},
		{"broker: topics unloaded", 4, (*rig).brokerUnloads, needsBroker},
	}
}

// brokerKilled: what was acknowledged is there when the broker comes back, and
// the node goes on by itself.
func (g *rig) brokerKilled(ctx context.Context) error {
	if err := g.broker.stop("-9"); err != nil {
		return err
	}
	rest(ctx, g.upTo(time.Second))
	if err := g.broker.start(ctx); err != nil {
		return err
	}
	return g.settles(ctx, "after kill -9 of the broker")
}

// brokerKilledTerm stops the node while nobody listens at the broker's port.
func (g *rig) brokerKilledTerm(ctx context.Context) error {
	if err := g.broker.stop("-9"); err != nil {
		return err
	}
	rest(ctx, g.upTo(time.Second))
	g.term(g.node)
	if err := g.broker.start(ctx); err != nil {
		return err
	}
	return g.start(ctx)
}

func (g *rig) brokerRestarted(ctx context.Context) error {
	if err := g.broker.stop(); err != nil {
		return err
	}
	if err := g.broker.start(ctx); err != nil {
		return err
	}
	return g.settles(ctx, "after a restart of the broker")
}

func (g *rig) brokerFrozen(ctx context.Context) error {
	thaw := g.broker.freeze()
	rest(ctx, 100*time.Millisecond+g.upTo(5*time.Second))
	thaw()
	return g.settles(ctx, "after SIGCONT of the broker")
}

func (g *rig) brokerFrozenTerm(ctx context.Context) error {
	thaw := g.broker.freeze()
	rest(ctx, g.upTo(time.Second))
	g.term(g.node)
	thaw()
	return g.start(ctx)
}

func (g *rig) brokerFrozenStart(ctx context.Context) error {
	g.kill(g.node)
	thaw := g.broker.freeze()
	p, err := g.partly(ctx)
	if err == nil && !p.ended() {
		g.term(p)
	}
	thaw()
	if err != nil {
		return err
	}
	return g.start(ctx)
}

func (g *rig) brokerHangs(ctx context.Context) error {
	goOn := g.broker.wire.hang()
	rest(ctx, 200*time.Millisecond+g.upTo(6*time.Second))
	goOn()
	return g.settles(ctx, "after a connection to the broker that hung")
}

func (g *rig) brokerHangsTerm(ctx context.Context) error {
	goOn := g.broker.wire.hang()
	rest(ctx, g.upTo(time.Second))
	g.term(g.node)
	goOn()
	return g.start(ctx)
}

// brokerHangsKill: entries of the dead run may reach the broker when the next
// one owns the topics already.
func (g *rig) brokerHangsKill(ctx context.Context) error {
	goOn := g.broker.wire.hang()
	rest(ctx, g.upTo(time.Second))
	g.kill(g.node)
	later := time.AfterFunc(g.upTo(2*time.Second), goOn)
	defer later.Stop()
	defer goOn()
	return g.start(ctx)
}

func (g *rig) brokerCut(ctx context.Context) error {
	for range 1 + g.r.IntN(4) {
		g.broker.wire.cut()
		rest(ctx, g.upTo(maxMoment))
	}
	return g.settles(ctx, "after its connections to the broker were cut")
}

// brokerUnloads moves the topics away and back, as a rolling upgrade does.
func (g *rig) brokerUnloads(ctx context.Context) error {
	call, cancel := within(ctx, settleLimit)
	defer cancel()
	if err := g.broker.ask(call, http.MethodPut, "namespaces/public/default/unload", nil); err != nil {
		g.report.say("%v", err)
	}
	return g.settles(ctx, "after its topics were unloaded")
}
