package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/console"
	"github.com/querynode/querynode/internal/node"
	"github.com/querynode/querynode/mq"
)

// The commands about topics are for a queue that nodes share, and do nothing unasked.
func TestTopicsAreComparedWhereNodesShareAQueue(t *testing.T) {
	embedded := []string{"--data-dir", t.TempDir()}
	for _, c := range []struct {
		args []string
		says string
	}{
		{append([]string{"queue", "check"}, embedded...), "queue.kind is embedded"},
		{append([]string{"queue", "begin-anew", "t", "--yes"}, embedded...), "queue.kind is embedded"},
		{[]string{"queue", "begin-anew", "t"}, "say --yes"},
		{[]string{"queue", "begin-anew"}, "expected"},
	} {
		if code, _, err := command(t, nil, c.args...); code != exitUsage || !strings.Contains(err, c.says) {
			t.Errorf("%q: exit %d, %q, want %q", c.args, code, err, c.says)
		}
	}
}

// A topic that cannot be looked at, or not all of it, is listed with why, and the others all the same. Whoever
// runs the check in a script learns of it by the exit code, and of lost ones first.
func TestATopicThatCannotBeLookedAtHoldsUpNoOther(t *testing.T) {
	look := func(name string) (node.Topic, error) {
		switch topic := (node.Topic{PChannel: name, Channels: 2}); name {
		case "away":
			return topic, errors.New("the broker does not answer")
		case "lost":
			topic.Lost = mq.ErrTrimmed
			return topic, nil
		case "damaged":
			topic.Unread = errors.New("channel c7 is damaged")
			return topic, nil
		default:
			return topic, nil
		}
	}
	for _, c := range []struct {
		names []string
		says  string // the error; "" = none
		shows []string
	}{
		{[]string{"well"}, "", []string{"well"}},
		{[]string{"away", "well"}, "of 1 topics it is not known", []string{"not known: the broker does not answer", "well"}},
		{[]string{"damaged", "away", "well"}, "of 2 topics it is not known", []string{"not known of channels: channel c7 is damaged", "well"}},
		{[]string{"away", "lost", "well"}, "topics are lost", []string{"away", "trimmed", "well"}},
	} {
		for _, asJSON := range []bool{false, true} {
			var text bytes.Buffer
			err := checkTopics(console.New(console.Options{Out: &text, JSON: asJSON}), c.names, look)
			if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v: %v, want %q", c.names, err, c.says)
			}
			if !asJSON {
				for _, word := range c.shows {
					if !strings.Contains(text.String(), word) {
						t.Errorf("%v: %q is not in\n%s", c.names, word, text.String())
					}
				}
				continue
			}
			var doc struct{ Topics []topicOut }
			if err := json.Unmarshal(text.Bytes(), &doc); err != nil || len(doc.Topics) != len(c.names) {
				t.Errorf("%v: %v, %s", c.names, err, text.String())
			}
			for _, o := range doc.Topics {
				if (o.wrong() == "") != (o.Topic == "well") {
					t.Errorf("%+v", o)
				}
			}
		}
	}
}
