package scalarindex

// PathElements are the elements of the arrays at one path of JSON documents. Of elements that are
// null, objects or arrays nothing is known.
type PathElements struct {
	Numbers *Members[float64]
	Texts   *Members[string]
	Bools   [2][]uint64 // rows whose array has false, true
	Arrays  []uint64    // rows that have an array
	bytes   int64
}

// perElement is what noting that a row has an element takes, and perValue what a new value takes
// beside it, both while they grow.
const (
	perElement = 8
	perValue   = 2 * perKey
)

// ElementsRoom is what so many elements take, with so many different values.
func ElementsRoom(elements, values int) int64 {
	return perElement*int64(elements) + perValue*int64(values)
}

// ElementValues collects elements, row by row.
type ElementValues struct {
	e    PathElements
	room int64 // bytes that are left
}

// NewElementValues is for n rows; what is collected may take so many bytes beside three bits a row.
func NewElementValues(n int, room int64) *ElementValues {
	w := (n + 63) / 64
	return &ElementValues{room: room, e: PathElements{
		Numbers: &Members[float64]{postings[float64]{rows: map[float64][]uint32{}}},
		Texts:   &Members[string]{postings[string]{rows: map[string][]uint32{}}},
		Bools:   [2][]uint64{make([]uint64, w), make([]uint64, w)}, Arrays: make([]uint64, w),
	}}
}

// Array notes that a row has an array.
func (v *ElementValues) Array(row int) { v.e.Arrays[row>>6] |= 1 << (row & 63) }

// Bool notes an element of a row's array, 0 or 1.
func (v *ElementValues) Bool(row int, x int64) { v.e.Bools[x][row>>6] |= 1 << (row & 63) }

// Number notes an element of a row's array; false if there is no room.
func (v *ElementValues) Number(row int, x float64) bool {
	return note(v, &v.e.Numbers.postings, x, row)
}

// Text notes an element of a row's array; false if there is no room.
func (v *ElementValues) Text(row int, x string) bool { return note(v, &v.e.Texts.postings, x, row) }

func note[K comparable](v *ElementValues, p *postings[K], key K, row int) bool {
	if _, ok := p.rows[key]; !ok {
		v.room -= perValue
	}
	if v.room -= perElement; v.room < 0 {
		return false
	}
	p.add(key, row)
	return true
}

// finish returns what was collected.
func (v *ElementValues) finish() *PathElements {
	e := &v.e
	e.Numbers.pack()
	e.Texts.pack()
	e.bytes = e.Numbers.bytes + e.Texts.bytes + 3*8*int64(len(e.Arrays))
	return e
}
