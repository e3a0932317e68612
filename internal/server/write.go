package server

import (
	"context"
	"encoding/json"
	"math"
	"strconv"
	"strings"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/expr"
	"github.com/querynode/querynode/internal/node"
	"github.com/querynode/querynode/internal/rowpb"
	"github.com/querynode/querynode/internal/schema"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// writeService serves WriteService.
type writeService struct {
	qnpb.UnimplementedWriteServiceServer
	node *node.Node
}

// Append writes one change.
func (s *writeService) Append(ctx context.Context, r *qnpb.AppendRequest) (*qnpb.AppendResponse, error) {
	coll, err := s.node.Collection(ctx, r.GetCollection())
	if err != nil {
		return nil, err
	}
	var done node.Appended
	switch op := r.GetOperation().(type) {
	case *qnpb.AppendRequest_Insert:
		done, err = s.rows(ctx, r, &coll.Schema, op.Insert.GetRows(), op.Insert.GetFields(), false)
	case *qnpb.AppendRequest_Upsert:
		done, err = s.rows(ctx, r, &coll.Schema, op.Upsert.GetRows(), op.Upsert.GetFields(), true)
	case *qnpb.AppendRequest_Delete:
		done, err = s.delete(ctx, r, coll.Schema.Primary(), op.Delete)
	default:
		err = errclass.New(errclass.Invalid, "append: say insert, upsert or delete")
	}
	if err != nil {
		return nil, err
	}
	out := &qnpb.AppendResponse{Rows: int64(done.Rows), Timestamp: done.Timestamp}
	if r.GetDelete().GetFilter() == "" || done.Rows <= node.MaxNQ {
		out.Ids = rowpb.ToIDs(done.Keys)
	}
	return out, nil
}

func (s *writeService) rows(ctx context.Context, r *qnpb.AppendRequest, sc *schema.Schema, rows int64, fields []*qnpb.FieldData, upsert bool) (node.Appended, error) {
	b, err := toBatch(sc, rows, fields, upsert)
	if err != nil {
		return node.Appended{}, err
	}
	return s.node.Insert(ctx, r.GetCollection(), r.GetPartition(), b, upsert)
}

// toBatch arranges the fields of a request in the order of the schema. Nullable
// ones may be missing, and an auto_id key must be, unless rows are replaced.
func toBatch(sc *schema.Schema, rows int64, fields []*qnpb.FieldData, upsert bool) (*schema.Batch, error) {
	if rows < 1 || rows > math.MaxInt32 {
		return nil, errclass.New(errclass.Invalid, "rows is %d, want at least 1", rows)
	}
	byName := make(map[string]*qnpb.FieldData, len(fields))
	for _, d := range fields {
		if _, ok := sc.Field(d.GetField()); !ok {
			return nil, errclass.With(errclass.New(errclass.NotFound, "the collection has no field %q", d.GetField()), errclass.Field)
		}
		if f, _ := sc.Field(d.GetField()); isMade(sc, f) {
			return nil, errclass.New(errclass.Invalid, "field %q is made by a function: leave it out", f.Name)
		}
		if byName[d.GetField()] != nil {
			return nil, errclass.New(errclass.Invalid, "field %q is there twice", d.GetField())
		}
		byName[d.GetField()] = d
	}
	// What the client says is believed only once a column that it sent has that many rows.
	b := &schema.Batch{}
	for _, f := range sc.Given() {
		if d := byName[f.Name]; d != nil {
			c, err := rowpb.ToColumn(d, f)
			if err != nil {
				return nil, err
			}
			if int64(c.Rows()) != rows {
				return nil, errclass.New(errclass.Invalid, "field %q has %d rows, the request says %d", f.Name, c.Rows(), rows)
			}
			if c.Valid != nil && int64(len(c.Valid)) != rows {
				return nil, errclass.New(errclass.Invalid, "field %q has %d validity flags for %d rows", f.Name, len(c.Valid), rows)
			}
			if err := checkJSON(f, c); err != nil {
				return nil, err
			}
			if err := c.CheckFinite(f); err != nil {
				return nil, err
			}
			if err := rowpb.CheckNorms(c, f); err != nil {
				return nil, err
			}
			if c, err = schema.FillNulls(c, f); err != nil {
				return nil, err
			}
			b.Rows, b.Columns = int(rows), append(b.Columns, c)
		}
	}
	if b.Rows == 0 {
		return nil, errclass.New(errclass.Invalid, "no field has values")
	}
	return fillMissing(sc, b, upsert)
}

// isMade reports whether a function makes the field.
func isMade(sc *schema.Schema, f schema.Field) bool {
	_, made := sc.FunctionOf(f.ID)
	return made
}

// checkJSON refuses text that is not JSON, or is nested deeper than filters read; they could only pass over it. Keys
// of the dynamic field need an object to be in.
func checkJSON(f schema.Field, c *schema.Column) error {
	if f.Type != schema.JSON {
		return nil
	}
	for i, text := range c.Str {
		switch {
		case c.Null(i):
		case deeper(text, expr.MaxJSONDepth):
			return errclass.New(errclass.Invalid, "field %q: row %d is nested more than %d levels deep: %.40q", f.Name, i, expr.MaxJSONDepth, text)
		case !json.Valid([]byte(text)):
			return errclass.New(errclass.Invalid, "field %q: row %d is not JSON: %.40q", f.Name, i, text)
		case f.ID == schema.DynamicFieldID && text[strings.IndexFunc(text, notSpace)] != '{':
			return errclass.New(errclass.Invalid, "field %q: row %d is %.40q, want an object of the row's further keys", f.Name, i, text)
		}
	}
	return nil
}

// deeper reports whether JSON text has more than so many levels of objects and arrays.
func deeper(text string, most int) bool {
	if len(text) <= 2*most {
		return false // each of them is closed
	}
	depth, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			if depth++; depth > most {
				return true
			}
		case c == ']' || c == '}':
			depth--
		}
	}
	return false
}

func notSpace(r rune) bool { return !strings.ContainsRune(" \t\r\n", r) }

func fillMissing(sc *schema.Schema, b *schema.Batch, upsert bool) (*schema.Batch, error) {
	out := &schema.Batch{Rows: b.Rows}
	var missing []string
	for _, f := range sc.Given() {
		c := b.Column(f.ID)
		if c == nil && f.AutoID && !upsert {
			continue
		}
		if c == nil {
			absent, err := schema.AbsentColumn(f, b.Rows)
			if err != nil {
				missing = append(missing, strconv.Quote(f.Name))
				continue
			}
			c = absent
		}
		out.Columns = append(out.Columns, c)
	}
	if len(missing) > 0 {
		return nil, errclass.New(errclass.Invalid, "missing and not nullable: %s", strings.Join(missing, ", "))
	}
	return out, nil
}

func (s *writeService) delete(ctx context.Context, r *qnpb.AppendRequest, pk schema.Field, op *qnpb.DeleteOperation) (node.Appended, error) {
	if op.GetIds().GetKeys() == nil {
		values, err := toValues(op.GetFilterValues())
		if err != nil {
			return node.Appended{}, err
		}
		return s.node.DeleteWhere(ctx, r.GetCollection(), r.GetPartition(), op.GetFilter(), values)
	}
	if op.GetFilter() != "" {
		return node.Appended{}, errclass.New(errclass.Invalid, "delete: send ids or a filter, not both")
	}
	keys, err := rowpb.FromIDs(op.GetIds(), pk)
	if err != nil {
		return node.Appended{}, err
	}
	return s.node.Delete(ctx, r.GetCollection(), r.GetPartition(), keys)
}

// Flush seals the growing segments of a collection.
func (s *writeService) Flush(ctx context.Context, r *qnpb.FlushRequest) (*qnpb.FlushResponse, error) {
	out := &qnpb.FlushResponse{}
	err := ahead(ctx, func(ctx context.Context) (err error) {
		out.SegmentIds, out.FlushedSegmentIds, err = s.node.Flush(ctx, r.GetCollection(), r.GetWait())
		return err
	})
	return out, err
}

// AssignChannel makes this node the owner of a pchannel.
func (s *writeService) AssignChannel(ctx context.Context, r *qnpb.AssignChannelRequest) (*qnpb.AssignChannelResponse, error) {
	term, ignored, err := s.node.AssignChannel(ctx, r.GetPchannel(), r.GetTerm())
	return &qnpb.AssignChannelResponse{Term: term, Ignored: ignored}, err
}

// RemoveChannel ends the ownership of a pchannel.
func (s *writeService) RemoveChannel(ctx context.Context, r *qnpb.RemoveChannelRequest) (*qnpb.RemoveChannelResponse, error) {
	ignored, err := s.node.RemoveChannel(ctx, r.GetPchannel(), r.GetTerm())
	return &qnpb.RemoveChannelResponse{Ignored: ignored}, err
}

// ListChannels shows the write-ahead logs of this node.
func (s *writeService) ListChannels(context.Context, *qnpb.ListChannelsRequest) (*qnpb.ListChannelsResponse, error) {
	out := &qnpb.ListChannelsResponse{}
	for _, st := range s.node.Logs() {
		w := &qnpb.WalStatus{Pchannel: st.PChannel, Term: st.Term, State: st.State.String(), ReplayedMessages: st.Replay.Messages,
			ReplayedRows: st.Replay.Rows, ReplayedBytes: st.Replay.Bytes, ReplayedShare: st.Replay.Share,
			ReplayedPosition: st.Replay.Position, Quarantined: st.Quarantined}
		if st.Err != nil {
			w.Error = st.Err.Error()
		}
		if l, err := s.node.WALs().Get(st.PChannel); err == nil {
			w.LastTimestamp = l.LastTimestamp()
		}
		out.Wals = append(out.Wals, w)
	}
	return out, nil
}
