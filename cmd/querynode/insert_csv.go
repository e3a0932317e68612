package main

import (
	"bufio"
	"encoding/csv"
	"io"
	"strconv"
	"strings"
	"unicode/utf16"

	"github.com/cockroachdb/errors"
)

// errHalf is of an escape that stands for half a character. It would be read as U+FFFD,
// and two different keys as one.
var errHalf = errors.New(`half of a character: \ud800 to \udbff want one of \udc00 to \udfff behind them, and those one of these before`)

// csvRecords reads the records of a CSV file, of no more than maxLine bytes each: a quote
// that is left open would take all the rest of the file for a text.
type csvRecords struct {
	csv  *csv.Reader
	in   *boundedReader
	line int // where the last record began; where the one that failed did
	next int // where the next one does, if no empty lines come before it
}

// newCSVRecords returns a reader of what comes after the byte order mark, if there is one.
func newCSVRecords(in io.Reader) *csvRecords {
	const mark = "\ufeff"
	b := bufio.NewReader(in)
	if got, _ := b.Peek(len(mark)); string(got) == mark {
		_, _ = b.Discard(len(mark)) // they are in the buffer
	}
	bounded := &boundedReader{in: b}
	return &csvRecords{csv: csv.NewReader(bounded), in: bounded, next: 1}
}

// read returns the next record, io.EOF at the end. An error says what is wrong, and line where.
func (r *csvRecords) read() ([]string, error) {
	r.in.until = r.csv.InputOffset() + maxLine
	record, err := r.csv.Read()
	r.line = r.next
	var parse *csv.ParseError
	switch {
	case errors.As(err, &parse):
		r.line = parse.StartLine
		if parse.Line != parse.StartLine {
			return nil, errors.Newf("%v, at line %d, column %d", parse.Err, parse.Line, parse.Column)
		}
		return nil, parse.Err
	case errors.Is(err, errRecordTooLong):
		return nil, errors.Newf("longer than %d MiB from here: is a quote left open?", maxLine>>20)
	case err != nil:
		return nil, err
	}
	last := len(record) - 1
	r.line, _ = r.csv.FieldPos(0)
	r.next, _ = r.csv.FieldPos(last)
	r.next += strings.Count(record[last], "\n") + 1
	return record, nil
}

var errRecordTooLong = errors.New("the record is too long")

// boundedReader reads up to an offset.
type boundedReader struct {
	in    io.Reader
	at    int64
	until int64
}

// Read reads, and fails once it is at the offset.
func (b *boundedReader) Read(p []byte) (int, error) {
	if b.at >= b.until {
		return 0, errRecordTooLong
	}
	n, err := b.in.Read(p)
	b.at += int64(n)
	return n, err
}

// halfCharacter reports whether a JSON text has an escape that stands for half a character.
func halfCharacter(text []byte) bool {
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			continue
		}
		u, ok := escaped(text[i:])
		switch {
		case !ok:
			i++ // \n, \", or a mistake that is found later
		case !utf16.IsSurrogate(u):
			i += escapeLen - 1
		default:
			low, ok := escaped(text[i+escapeLen:])
			if !ok || utf16.DecodeRune(u, low) == '\uFFFD' {
				return true
			}
			i += 2*escapeLen - 1
		}
	}
	return false
}

const escapeLen = len(`\u0000`)

// escaped reads the \u escape that a text begins with.
func escaped(text []byte) (u rune, ok bool) {
	if len(text) < escapeLen || text[0] != '\\' || text[1] != 'u' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(text[2:escapeLen]), 16, 16)
	return rune(n), err == nil
}
