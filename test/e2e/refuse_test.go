package e2e

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// reasons are what the details of each code say, and whether a retry may help.
var reasons = map[codes.Code]struct {
	reason    string
	retryable bool
}{
	codes.InvalidArgument:    {"invalid", false},
	codes.NotFound:           {"not_found", false},
	codes.AlreadyExists:      {"exists", false},
	codes.FailedPrecondition: {"conflict", false},
	codes.ResourceExhausted:  {"exhausted", true},
	codes.DataLoss:           {"corrupt", false},
	codes.Unimplemented:      {"unimplemented", false},
	codes.DeadlineExceeded:   {"deadline", true},
	codes.Internal:           {"panicked", false},
}

// refuses fails the test unless err is a refusal with the code, its details and
// all of the words, and the node answers right afterwards.
func (n *testNode) refuses(t *testing.T, err error, code codes.Code, says ...string) map[string]string {
	t.Helper()
	s := status.Convert(err)
	if s.Code() != code {
		t.Fatalf("got %v, want code %v", err, code)
	}
	for _, want := range says {
		if !strings.Contains(s.Message(), want) {
			t.Errorf("the message is %q, want it to say %q", s.Message(), want)
		}
	}
	var info *errdetails.ErrorInfo
	var retry *errdetails.RetryInfo
	for _, d := range s.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			info = d
		case *errdetails.RetryInfo:
			retry = d
		}
	}
	want := reasons[code]
	switch {
	case info == nil:
		t.Fatalf("%v has no ErrorInfo", err)
	case info.GetDomain() != "querynode" || info.GetReason() != want.reason:
		t.Errorf("%v: domain %q, reason %q; want querynode, %q", err, info.GetDomain(), info.GetReason(), want.reason)
	case (info.GetMetadata()["retryable"] == "true") != want.retryable || (retry != nil) != want.retryable:
		t.Errorf("%v: retryable %q, retry after %v; want %v", err, info.GetMetadata()["retryable"], retry, want.retryable)
	}
	n.alive(t)
	return info.GetMetadata()
}

// alive fails the test unless the node answers a search at once.
func (n *testNode) alive(t *testing.T) {
	t.Helper()
	if n.pulse == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	defer cancel()
	if r, err := n.query.Search(ctx, n.pulse); err != nil || len(r.GetIds().GetInts().GetValues()) == 0 {
		t.Fatalf("the node does not answer any more: %v, %v", r, err)
	}
}

// The fields of a request, one line each.

func ints(field string, v ...int64) *qnpb.FieldData {
	return &qnpb.FieldData{Field: field, Values: &qnpb.FieldData_Ints{Ints: &qnpb.Int64Array{Values: v}}}
}

func texts(field string, v ...string) *qnpb.FieldData {
	return &qnpb.FieldData{Field: field, Values: &qnpb.FieldData_Strings{Strings: &qnpb.StringArray{Values: v}}}
}

func bools(field string, v ...bool) *qnpb.FieldData {
	return &qnpb.FieldData{Field: field, Values: &qnpb.FieldData_Bools{Bools: &qnpb.BoolArray{Values: v}}}
}

func vectors(field string, dim int32, v ...float32) *qnpb.FieldData {
	return &qnpb.FieldData{Field: field, Values: &qnpb.FieldData_Vectors{Vectors: &qnpb.FloatVectors{Dim: dim, Values: v}}}
}

func nulls(d *qnpb.FieldData, valid ...bool) *qnpb.FieldData {
	d.Valid = valid
	return d
}

func insertOf(coll string, rows int64, fields ...*qnpb.FieldData) *qnpb.AppendRequest {
	return &qnpb.AppendRequest{Collection: coll, Operation: &qnpb.AppendRequest_Insert{Insert: &qnpb.InsertOperation{Rows: rows, Fields: fields}}}
}

func upsertOf(coll string, rows int64, fields ...*qnpb.FieldData) *qnpb.AppendRequest {
	return &qnpb.AppendRequest{Collection: coll, Operation: &qnpb.AppendRequest_Upsert{Upsert: &qnpb.UpsertOperation{Rows: rows, Fields: fields}}}
}

func deleteOf(coll string, op *qnpb.DeleteOperation) *qnpb.AppendRequest {
	return &qnpb.AppendRequest{Collection: coll, Operation: &qnpb.AppendRequest_Delete{Delete: op}}
}

func intIDs(v ...int64) *qnpb.Ids {
	return &qnpb.Ids{Keys: &qnpb.Ids_Ints{Ints: &qnpb.Int64Array{Values: v}}}
}

func textIDs(v ...string) *qnpb.Ids {
	return &qnpb.Ids{Keys: &qnpb.Ids_Strings{Strings: &qnpb.StringArray{Values: v}}}
}

func codeOf(err error) codes.Code { return status.Code(err) }
