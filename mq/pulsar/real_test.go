package pulsar

import (
	"path"
	"strings"
	"testing"
	"time"

	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/mqtest"
)

func TestConformsOnBroker(t *testing.T) {
	b := realBroker(t)
	mqtest.Run(t, func(t *testing.T) mqtest.Fixture {
		open := func(t *testing.T) mq.Queue { return b.queue(t) }
		return mqtest.Fixture{
			Queue: open(t), Reopen: open, Connect: open, MaxPayload: defaultMaxPayload, RollOver: 200, Wait: 30 * time.Second,
			Open: func(t *testing.T) []string { return b.clients(t, strings.ToLower(path.Base(t.Name()))) },
		}
	})
}
