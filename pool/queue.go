package pool

// queue holds the admitted tasks that wait for a worker: one list per lane,
// linked through the futures, so that any of them can leave from the middle.
type queue struct {
	lane   [lanes]list
	len    int
	passed int // how many pops in a row passed over a waiting Normal task
}

// list is tasks that are linked through their futures: a task is in one list at a time.
type list struct {
	first, last *Future
	len         int
}

func (l *list) push(f *Future) {
	f.prev, f.next = l.last, nil
	if l.last == nil {
		l.first = f
	} else {
		l.last.next = f
	}
	l.last = f
	l.len++
}

func (l *list) remove(f *Future) {
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
	f.prev, f.next = nil, nil
	l.len--
}

// urgentRun is how many Urgent tasks in a row may pass a waiting Normal one.
const urgentRun = 7

func (q *queue) push(f *Future) {
	q.lane[f.task.Lane].push(f)
	f.queued = true
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
	q.lane[f.task.Lane].remove(f)
	f.queued = false
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
