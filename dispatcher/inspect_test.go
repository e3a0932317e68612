package dispatcher

import (
	"slices"
	"strings"
	"time"

	"github.com/querynode/querynode/mq"
)

// ID names the registration.
func (h *Handle) ID() ID { return h.s.id }

// Position is the last one applied: what to pass as From to go on from here.
// Before the first Apply it is where the subscription started.
func (h *Handle) Position() mq.Position { return h.s.info(time.Now()).Position }

// Lag is how far the subscription is behind.
func (h *Handle) Lag() Lag { return h.s.info(time.Now()).Lag }

// Subscriptions lists what is subscribed, sorted by vchannel; a Failed one
// until its handle is closed or its vchannel subscribed again.
func (m *Manager) Subscriptions() []SubscriptionInfo {
	now := time.Now()
	infos := []SubscriptionInfo{}
	for _, s := range m.snapshot() {
		infos = append(infos, s.info(now))
	}
	slices.SortFunc(infos, func(a, b SubscriptionInfo) int { return strings.Compare(a.ID.VChannel, b.ID.VChannel) })
	return infos
}
