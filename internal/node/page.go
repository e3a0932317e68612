package node

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"math"
	"slices"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/segments"
)

// page is where a page of an answer ended. As text it is the token that a client
// sends to get the next one: it holds all that is needed, so that it is good on any
// node, after a restart too, as long as its timestamp is retained.
//
//	version, kind        a byte each
//	timestamp, request   8 bytes each, little-endian
//	distance             4 bytes
//	key                  the number in 8 bytes, or the text
//	CRC-32C of all this  4 bytes
type page struct {
	kind    byte   // pageOfSearch or pageOfQuery
	at      uint64 // hybrid timestamp that all pages are read at
	request uint64 // hash of what the request asks for, but for the size of the page
	cursor  segments.Cursor
}

const (
	pageVersion  = 1
	pageOfSearch = 's'
	pageOfQuery  = 'q'
	pageHeader   = 1 + 1 + 8 + 8 + 4
)

var pageTable = crc32.MakeTable(crc32.Castagnoli)

// token is the page as text; text says that the key is.
func (p *page) token(text bool) string {
	b := []byte{pageVersion, p.kind}
	b = binary.LittleEndian.AppendUint64(b, p.at)
	b = binary.LittleEndian.AppendUint64(b, p.request)
	b = binary.LittleEndian.AppendUint32(b, math.Float32bits(p.cursor.Distance))
	if text {
		b = append(b, p.cursor.Key.Str...)
	} else {
		b = binary.LittleEndian.AppendUint64(b, uint64(p.cursor.Key.Int))
	}
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, pageTable))
	return base64.RawURLEncoding.EncodeToString(b)
}

// parsePage reads a token of a request of this kind and hash.
func parsePage(token string, kind byte, request uint64, text bool) (*page, error) {
	bad := func(format string, args ...any) (*page, error) {
		return nil, errclass.Wrap(errclass.New(errclass.Invalid, format, args...), errclass.Invalid, "token")
	}
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(b) < pageHeader+4 || crc32.Checksum(b[:len(b)-4], pageTable) != binary.LittleEndian.Uint32(b[len(b)-4:]) {
		return bad("it is damaged: send one as it was returned")
	}
	if b[0] != pageVersion {
		return bad("it is of version %d, this node reads %d", b[0], pageVersion)
	}
	p := &page{kind: b[1], at: binary.LittleEndian.Uint64(b[2:]), request: binary.LittleEndian.Uint64(b[10:])}
	p.cursor.Distance = math.Float32frombits(binary.LittleEndian.Uint32(b[18:]))
	key := b[pageHeader : len(b)-4]
	if p.kind != kind || p.request != request || p.at == 0 || !text && len(key) != 8 {
		return bad("it is of another request: send the same one again, only the size of the page and the output fields may change")
	}
	if text {
		p.cursor.Key.Str = string(key)
	} else {
		p.cursor.Key.Int = int64(binary.LittleEndian.Uint64(key))
	}
	return p, nil
}

// hasher hashes what a request asks for.
type hasher struct{ b []byte }

func (h *hasher) number(v uint64) { h.b = binary.LittleEndian.AppendUint64(h.b, v) }

func (h *hasher) text(s string) {
	h.number(uint64(len(s)))
	h.b = append(h.b, s...)
}

func (h *hasher) bound(f *float32) {
	if f == nil {
		h.number(1 << 32)
		return
	}
	h.number(uint64(math.Float32bits(*f)))
}

func (h *hasher) read(collection int64, r *segments.Read) {
	h.number(uint64(collection))
	if r.Plan != nil {
		h.text(r.Plan.String())
		for _, id := range r.Plan.Fields() { // a field that was dropped and added again is another one
			h.number(uint64(id))
		}
	} else {
		h.text("")
	}
	parts := slices.Sorted(slices.Values(r.Partitions))
	h.number(uint64(len(parts)))
	for _, p := range parts {
		h.number(uint64(p))
	}
	if r.IgnoreGrowing {
		h.number(1)
	} else {
		h.number(0)
	}
}

func (h *hasher) sum() uint64 {
	s := sha256.Sum256(h.b)
	return binary.LittleEndian.Uint64(s[:])
}

// hashSearch hashes a search that is read page by page.
func hashSearch(collection int64, r *segments.SearchRequest) uint64 {
	var h hasher
	h.read(collection, &r.Read)
	h.number(uint64(r.FieldID))
	h.number(uint64(r.Metric))
	h.bound(r.Radius)
	h.bound(r.RangeFilter)
	for _, v := range r.Vectors {
		h.b = binary.LittleEndian.AppendUint32(h.b, math.Float32bits(v))
	}
	if c := r.Queries; c != nil {
		h.b = append(h.b, c.Raw...)
		for _, d := range c.Indices {
			h.b = binary.LittleEndian.AppendUint32(h.b, d)
		}
		for _, v := range c.Float {
			h.b = binary.LittleEndian.AppendUint32(h.b, math.Float32bits(v))
		}
	}
	return h.sum()
}

// hashQuery hashes a query that is read page by page.
func hashQuery(collection int64, r *segments.Read) uint64 {
	var h hasher
	h.read(collection, r)
	return h.sum()
}

// turnTo prepares the page that a token asks for; "" = the first one.
func (n *Node) turnTo(r *segments.Read, token string, kind byte, request uint64, pk schema.Field) (*segments.Cursor, error) {
	if r.Plan != nil && r.Plan.Samples() {
		return nil, errclass.New(errclass.Invalid, "pages: random_sample chooses other rows for each page; ask for all of them at once")
	}
	r.OneTime = true
	if token == "" {
		return nil, nil
	}
	p, err := parsePage(token, kind, request, pk.Type == schema.VarChar)
	if err != nil {
		return nil, err
	}
	if err := n.checkAhead("token: timestamp", p.at); err != nil {
		return nil, err
	}
	r.ReadTimestamp, r.Guarantee = p.at, nil
	return &p.cursor, nil
}
