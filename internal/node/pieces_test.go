package node

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/mq/mqtest"
)

// narrow is a world whose queue takes messages of 64 KiB.
func narrow(t *testing.T) *rig {
	w := newWorld(t)
	w.broker = mqtest.NewBroker(mqtest.MemoryOptions{MaxPayloadBytes: 64 << 10})
	return w.open(nil).ready()
}

// named makes a collection whose keys are text, with a text besides.
func (r *rig) named() {
	r.t.Helper()
	_, err := r.CreateCollection(within(r.t), NewCollection{Name: things, Schema: schema.Schema{Fields: []schema.Field{
		{ID: thingID, Name: "id", Type: schema.VarChar, MaxLength: 1000, PrimaryKey: true},
		{ID: thingID + 1, Name: "v", Type: schema.FloatVector, Dim: 2},
		{ID: thingID + 2, Name: "text", Type: schema.VarChar, MaxLength: 65535},
		{ID: thingID + 3, Name: "more", Type: schema.VarChar, MaxLength: 65535},
	}}})
	must(r.t, err)
}

func namedRows(keys []string, text func(i int) string) *schema.Batch {
	b := &schema.Batch{Rows: len(keys), Columns: []*schema.Column{{FieldID: thingID, Type: schema.VarChar, Str: keys},
		{FieldID: thingID + 1, Type: schema.FloatVector, Dim: 2, Float: make([]float32, 2*len(keys))},
		{FieldID: thingID + 2, Type: schema.VarChar}, {FieldID: thingID + 3, Type: schema.VarChar, Str: make([]string, len(keys))}}}
	for i := range keys {
		b.Columns[2].Str = append(b.Columns[2].Str, text(i))
	}
	return b
}

func longKeys(n int) (keys []string) {
	for i := range n {
		keys = append(keys, fmt.Sprint(i)+strings.Repeat("k", 900))
	}
	return keys
}

func short(int) string { return "x" }

// A queue takes messages of some size. Keys may be long, so that those that are few by
// their number are more than one message.
func TestManyLongKeysAreDeleted(t *testing.T) {
	r := narrow(t)
	r.named()
	keys := longKeys(500)
	insert := func() {
		t.Helper()
		_, err := r.Insert(within(t), things, "", namedRows(keys, short), false)
		must(t, err)
		r.has(500)
	}
	insert()
	_, err := r.DeleteWhere(within(t), things, "", `id != ""`, nil)
	must(t, err)
	r.has(0)
	insert()
	_, err = r.Delete(within(t), things, "", &schema.Column{FieldID: thingID, Type: schema.VarChar, Str: keys})
	must(t, err)
	r.has(0)
}

// Most rows are small, so that the average says nothing of the large ones that come
// one after the other.
func TestAStretchOfLargeRows(t *testing.T) {
	r := narrow(t)
	r.named()
	text := func(i int) string {
		if i < 10 {
			return strings.Repeat("y", 40_000)
		}
		return "x"
	}
	keys := longKeys(1000)
	for i := range keys {
		keys[i] = keys[i][:8]
	}
	for _, upsert := range []bool{false, true} {
		done, err := r.Insert(within(t), things, "", namedRows(keys, text), upsert)
		must(t, err)
		if done.Rows != 1000 {
			t.Errorf("%d rows written", done.Rows)
		}
		r.has(1000)
	}
}

// A row that no message has room for is refused by name, and nothing else of its batch
// is there.
func TestARowThatIsTooLargeForTheLog(t *testing.T) {
	r := narrow(t)
	r.named()
	keys := longKeys(100)
	b := namedRows(keys, short)
	b.Columns[2].Str[70], b.Columns[3].Str[70] = strings.Repeat("y", 40_000), strings.Repeat("z", 40_000)
	refused := func(upsert bool, row string) {
		t.Helper()
		_, err := r.Insert(within(t), things, "", b, upsert)
		if !errclass.Is(err, errclass.Invalid) || !strings.Contains(err.Error(), row) || !strings.Contains(err.Error(), "65520 at most") {
			t.Errorf("want an error of class Invalid with the row and the limit, got %v", err)
		}
		r.has(0)
	}
	refused(false, "row 70 takes")
	b.Columns[0].Str = slices.Clone(keys)
	b.Columns[0].Str[3] = keys[50] // an upsert writes the later one only
	refused(true, "row 70 takes")
}
