package node

import (
	"strings"
	"testing"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
)

// A collection is released and written to: nobody here has its rows in memory. Whoever
// loads it again has memory for a few segments, not for all that has been written.
func TestAReleasedCollectionThatIsWrittenToIsLoadedAgain(t *testing.T) {
	w := newWorld(t)
	w.memory = 16 << 20
	r := w.open(func(o *Options) { o.Flush.SealRows = 2000 }).ready()
	_, err := r.CreateCollection(within(t), NewCollection{Name: things, Schema: schema.Schema{Fields: []schema.Field{
		{ID: thingID, Name: "id", Type: schema.Int64, PrimaryKey: true},
		{ID: thingID + 1, Name: "v", Type: schema.FloatVector, Dim: 2},
		{ID: thingID + 2, Name: "text", Type: schema.VarChar, MaxLength: 65535},
	}}})
	must(t, err)
	_, err = r.ReleaseSegments(within(t), things, nil)
	must(t, err)

	total := int64(0)
	text := strings.Repeat("y", 1000)
	for range 30 {
		b := &schema.Batch{Rows: 1000, Columns: []*schema.Column{keysOf(between(total, total+1000)...),
			{FieldID: thingID + 1, Type: schema.FloatVector, Dim: 2, Float: make([]float32, 2000)}, {FieldID: thingID + 2, Type: schema.VarChar}}}
		for range 1000 {
			b.Columns[2].Str = append(b.Columns[2].Str, text)
		}
		_, err := r.Insert(within(t), things, "", b, false)
		must(t, err)
		total += 1000
	}
	told := func() bool { return strings.Contains(strings.Join(r.Troubles(), "\n"), "are sealed and not stored") }
	eventually(t, "it is told that nobody stores them", told)
	r.load()
	eventually(t, "somebody does", func() bool { return !told() })
	r.has(total)
	_, err = r.ReleaseSegments(within(t), things, nil)
	must(t, err)
	b := &schema.Batch{Rows: 2000, Columns: []*schema.Column{keysOf(between(total, total+2000)...),
		{FieldID: thingID + 1, Type: schema.FloatVector, Dim: 2, Float: make([]float32, 4000)}, {FieldID: thingID + 2, Type: schema.VarChar, Str: make([]string, 2000)}}}
	// What was just released may still be in memory: a caller is told to try again.
	eventually(t, "there is room", func() bool {
		_, err := r.Insert(within(t), things, "", b, false)
		if err != nil && !errclass.Is(err, errclass.Exhausted) {
			t.Fatal(err)
		}
		return err == nil
	})
	eventually(t, "it is told again", told)
	must(t, r.DropCollection(within(t), things))
	eventually(t, "nothing is left to be stored", func() bool { return !told() })
}
