package pool

// queue holds the admitted tasks that wait for a worker: one list per lane,
// linked through the futures, so that any of them can leave from the middle.
type queue struct {
	lane   [lanes]list
	len    int
	passed int // how many pops in a row passed over a waiting Normal task
}

type list struct{ first, last *Future }

// urgentRun is how many Urgent tasks in a row may pass a waiting Normal one.
const urgentRun = 7

func (q *queue) push(f *Future) {
	l := &q.lane[f.task.Lane]
	f.queued, f.prev, f.next = true, l.last, nil
	if l.last == nil {
		l.first = f
	} else {
		l.last.next = f
	}
	l.last = f
	q.len++
}

// pop returns the task to run next, nil if there is none.
func (q *queue) pop() *Future {
	urgent, normal := q.lane[Urgent].first, q.lane[Normal].first
	f := urgent
	switch {
	case urgent == nil:
		f, q.passed = normal, 0
	case normal == nil:
		q.passed = 0
	case q.passed >= urgentRun:
		f, q.passed = normal, 0
	default:
		q.passed++
	}
	if f != nil {
		q.remove(f)
	}
	return f
}

func (q *queue) remove(f *Future) {
	l := &q.lane[f.task.Lane]
	if f.prev == nil {
		l.first = f.next
	} else {
		f.prev.next = f.next
	}
	if f.next == nil {
		l.last = f.prev
	} else {
		f.next.prev = f.prev
	}
	f.queued, f.prev, f.next = false, nil, nil
	q.len--
}

// each calls fn for every queued task; fn may remove the task it is given.
func (q *queue) each(fn func(*Future)) {
	for i := range q.lane {
		for f := q.lane[i].first; f != nil; {
			next := f.next
			fn(f)
			f = next
		}
	}
}
