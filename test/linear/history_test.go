package linear

import (
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

type kind uint8

const (
	upsert kind = iota
	remove
	get
)

// call is an operation on one key.
type call struct {
	kind  kind
	key   int64
	value int64 // of an upsert
}

func (c call) String() string {
	return fmt.Sprintf("%s(%d, %d)", [...]string{"upsert", "delete", "get"}[c.kind], c.key, c.value)
}

// history is what clients have seen. A write whose outcome is unknown has no
// end: it may take effect at any later time, or never.
type history struct {
	begun time.Time
	mu    sync.Mutex
	ops   []porcupine.Operation

	acked, unknown, refused, reads, failed int
}

func newHistory() *history { return &history{begun: time.Now()} }

func (h *history) now() int64 { return int64(time.Since(h.begun)) }

func (h *history) record(client int, c call, from, to, output int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, porcupine.Operation{ClientId: client, Input: c, Call: from, Return: to, Output: output})
}

func (h *history) count(n *int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	*n++
}

const never = math.MaxInt64

// register is the model: each key holds a value, 0 = absent.
func register() porcupine.Model {
	return porcupine.Model{
		Partition: func(ops []porcupine.Operation) [][]porcupine.Operation {
			byKey := map[int64][]porcupine.Operation{}
			for _, op := range ops {
				k := op.Input.(call).key
				byKey[k] = append(byKey[k], op)
			}
			var out [][]porcupine.Operation
			for _, ops := range byKey {
				out = append(out, ops)
			}
			return out
		},
		Init: func() any { return int64(0) },
		Step: func(state, input, output any) (bool, any) {
			switch c := input.(call); c.kind {
			case upsert:
				return true, c.value
			case remove:
				return true, int64(0)
			}
			return output == state, state
		},
		DescribeOperation: func(input, output any) string { return fmt.Sprintf("%v -> %v", input, output) },
	}
}

// certain takes out of a history what makes checking slow and cannot change the
// verdict: an upsert of unknown outcome whose value nobody has read may as well
// not have happened, and one whose value has been read happened before that.
func certain(ops []porcupine.Operation) []porcupine.Operation {
	type written struct{ key, value int64 }
	seen := map[written]int64{} // the end of the first read
	for _, op := range ops {
		c := op.Input.(call)
		if c.kind != get {
			continue
		}
		w := written{c.key, op.Output.(int64)}
		if end, ok := seen[w]; !ok || op.Return < end {
			seen[w] = op.Return
		}
	}
	var out []porcupine.Operation
	for _, op := range ops {
		c := op.Input.(call)
		if op.Return == never && c.kind == upsert {
			end, ok := seen[written{c.key, c.value}]
			if !ok {
				continue
			}
			op.Return = max(end, op.Call)
		}
		out = append(out, op)
	}
	return out
}

// check returns the operations on a key that no order explains; nil = all is
// well. An undecided check, after limit, is an error of the test.
func (h *history) check(limit time.Duration) (wrong []porcupine.Operation, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	m := register()
	for _, ops := range m.Partition(certain(h.ops)) {
		switch porcupine.CheckOperationsTimeout(m, ops, limit) {
		case porcupine.Illegal:
			return ops, nil
		case porcupine.Unknown:
			return nil, fmt.Errorf("undecided after %s: %d operations on key %d", limit, len(ops), ops[0].Input.(call).key)
		}
	}
	return nil, nil
}
