package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/cockroachdb/errors"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/expr"
)

// problem is an error for people: what is wrong, where, and what to do next.
type problem struct {
	text  string
	shown string // the place in what was typed, some lines; may be empty
	next  string // may be empty
	cause error  // may be nil
}

// Error is what stands on the terminal.
func (p *problem) Error() string {
	var b strings.Builder
	b.WriteString(p.text)
	for line := range strings.SplitSeq(strings.TrimRight(p.shown, "\n"), "\n") {
		if p.shown != "" {
			b.WriteString("\n    " + line)
		}
	}
	if p.next != "" {
		b.WriteString("\n  next: " + p.next)
	}
	return b.String()
}

// Unwrap returns what a program would branch on.
func (p *problem) Unwrap() error { return p.cause }

// explain makes a failed call's error one for people: a sentence, the place in
// the filter if that is what is wrong, and what to do next. Other errors pass.
func explain(err error, addr, filter string) error {
	var done *problem
	if err == nil || errors.As(err, &done) {
		return err
	}
	s, ok := status.FromError(errors.UnwrapAll(err))
	if !ok || s.Code() == codes.OK {
		return err
	}
	p := &problem{text: s.Message(), cause: err}
	info, retry := details(s)
	if info == nil {
		explainTransport(p, s, addr)
		return p
	}
	if at, aerr := strconv.Atoi(info.GetMetadata()["filter_offset"]); aerr == nil && filter != "" {
		p.shown = (&expr.Error{Pos: at}).Caret(filter)
	}
	detail := errclass.Detail(info.GetMetadata()["detail"])
	p.next = nextStep(info.GetReason(), detail, p.shown != "")
	if retry > 0 && p.next == "" && detail != errclass.Limit {
		p.next = "try again in " + retry.String()
	}
	return p
}

func details(s *status.Status) (info *errdetails.ErrorInfo, retry time.Duration) {
	for _, d := range s.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			info = d
		case *errdetails.RetryInfo:
			retry = d.GetRetryDelay().AsDuration()
		}
	}
	return info, retry
}

// explainTransport is for errors that no node has written.
func explainTransport(p *problem, s *status.Status, addr string) {
	switch s.Code() {
	case codes.Unavailable:
		p.text = fmt.Sprintf("no node answers at %s: %s", addr, reasonOf(s.Message()))
		p.next = nextConnection(s.Message())
	case codes.DeadlineExceeded:
		p.text = fmt.Sprintf("the node at %s has not answered in time", addr)
		p.next = "\"querynode health\" and the node's log say what it waits for; a longer --timeout may help"
	case codes.Canceled:
		p.text = "stopped"
	case codes.Unimplemented:
		p.text = fmt.Sprintf("what listens at %s does not offer this call: %s", addr, s.Message())
		p.next = "is it a querynode of this version?"
	case codes.ResourceExhausted:
		p.next = "ask for less at once"
	}
}

// nextConnection says what helps against a connection that was not made.
func nextConnection(text string) string {
	switch {
	case strings.Contains(text, "x509: certificate signed by unknown authority"), strings.Contains(text, "x509: “"):
		return "trust the certificate of the node, or of who signed it, with --tls-ca FILE"
	case strings.Contains(text, "x509: "):
		return "say --addr with a name that is in the node's certificate, or trust another one with --tls-ca FILE"
	case strings.Contains(text, "does not look like a TLS handshake"):
		return "the node speaks plain text: leave --tls and --tls-ca out"
	case strings.Contains(text, "tls: "), strings.Contains(text, "error reading server preface"):
		return "does the node speak TLS? Then say --tls or --tls-ca; else leave them out"
	case strings.Contains(text, "no such host"), strings.Contains(text, "name resolver error"):
		return "is the name in --addr right?"
	}
	return "start one with \"querynode serve\" or \"querynode quickstart\", or say where it is with --addr or --data-dir"
}

// reasonOf shortens grpc's text of a failed connection to its last part.
func reasonOf(text string) string {
	if i := strings.LastIndex(text, "desc = "); i >= 0 {
		text = text[i+len("desc = "):]
	}
	if i := strings.LastIndex(text, "connect: "); i >= 0 {
		text = text[i+len("connect: "):]
	}
	return strings.Trim(text, `"`)
}

// fieldsAreListed is for names of fields that are not there.
const fieldsAreListed = "the fields are listed by \"querynode collection describe\""

// nextStep says what helps against an error of a class, and with a detail if the node has
// said one.
func nextStep(reason string, detail errclass.Detail, inFilter bool) string {
	if inFilter {
		return fieldsAreListed + "; text stands in quotes: word == \"king\""
	}
	switch detail {
	case errclass.NotLoaded:
		return "load it with \"querynode load COLLECTION\""
	case errclass.NoKey:
		return "mark it: --field id:int64:pk"
	case errclass.NoVector:
		return "add one: --field 'vector:vector(128)'"
	case errclass.Partial:
		return "--allow-partial answers without what is missing, and names it; \"querynode status\" says what is wrong with it"
	}
	switch reason {
	case errclass.NotFound.String():
		return nextOfMissing(detail)
	case errclass.Exists.String():
		return nextOfExisting(detail)
	case errclass.Exhausted.String():
		return nextOfExhausted(detail)
	case errclass.Closed.String():
		return "the node is starting or stopping: see \"querynode health\", or ask another node"
	case errclass.Corrupt.String():
		return "stored data is damaged: \"querynode status\" names the segment, \"querynode segment verify\" file and block"
	case errclass.Panicked.String(), errclass.Internal.String():
		return "this is a bug in the node; its log has the stack"
	case "deadline":
		return "\"querynode status\" and the node's log say more; a longer --timeout may help"
	case errclass.Fenced.String():
		return "another node owns the log now: write there"
	}
	if detail == errclass.Field {
		return fieldsAreListed
	}
	return ""
}

// nextOfMissing is about what is not there.
func nextOfMissing(detail errclass.Detail) string {
	switch detail {
	case errclass.Collection:
		return "see what there is with \"querynode collection list\""
	case errclass.Partition:
		return "see what there is with \"querynode partition list COLLECTION\", or make it with \"querynode partition create COLLECTION PARTITION\""
	case errclass.Field:
		return fieldsAreListed
	case errclass.Index:
		return "see what there is with \"querynode index describe COLLECTION\""
	case errclass.Segment, errclass.Channel:
		return "see what there is with \"querynode status\""
	}
	return ""
}

// nextOfExisting is about what is there already.
func nextOfExisting(detail errclass.Detail) string {
	switch detail {
	case errclass.Collection:
		return "choose another name, or drop it first with \"querynode collection drop\""
	case errclass.Partition:
		return "use it, or choose another name"
	case errclass.Alias:
		return "choose another name, or point the alias elsewhere with \"querynode alias alter\""
	case errclass.Indexed:
		return "drop it first with \"querynode index drop COLLECTION INDEX\""
	case errclass.Index, errclass.Field:
		return "choose another name"
	}
	return ""
}

// nextOfExhausted is about want of room.
func nextOfExhausted(detail errclass.Detail) string {
	switch detail {
	case errclass.Limit:
		return "" // the message says it
	case errclass.DiskLimit:
		return "release a collection, or raise disk.limit; where the queue has most of it, \"querynode status\" says why it is not flushed"
	case errclass.QueueLimit:
		return "raise disk.queue_limit; \"querynode status\" says why it is not flushed, if it is not"
	case errclass.DiskFull:
		return "make room on the node's disk; what was acknowledged is safe, and it goes on by itself"
	case errclass.Memory:
		return "release or flush something, give the node more memory, or ask for less at once"
	}
	return "the node is busy: try again in a moment, or ask for less at once"
}
