package node

import (
	"context"
	"time"

	"github.com/querynode/querynode/internal/lifecycle"
)

// sweep removes now and then what dropped collections, replaced segments and
// calls that did not end have left in object storage. Any number of nodes may do
// so at a time.
func (n *Node) sweep(ctx context.Context) error {
	tick := time.NewTicker(n.o.SweepInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		err := lifecycle.Call("sweep", func() error {
			swept, err := n.o.Catalog.Sweep(ctx)
			if swept.Collections+swept.Files+swept.Names > 0 {
				n.o.Logger.Info("node: swept object storage", "collections", swept.Collections, "orphans", swept.Orphans, "files", swept.Files, "names", swept.Names)
			}
			return err
		})
		if err != nil && ctx.Err() == nil {
			n.o.Logger.Warn("node: sweeping object storage; the rest is tried again later", "error", err)
		}
	}
}
