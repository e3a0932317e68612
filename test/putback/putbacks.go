package main

// putback is a bug that once happened, put back into the code on purpose.
type putback struct {
	name  string // short, for the command line
	bug   string // what is wrong
	pkg   string // folder of the package, from the root of the module
	edits []edit
	tests []caught
}

// caught is a test that fails with the bug, and passes without.
type caught struct {
	test string
	says string // in its output, so that it fails for the right reason
}

// edit replaces a piece of a file that must be there exactly once.
type edit struct {
	file    string // in the package's folder
	was, is string
}

// putbacks are the five bugs behind the two incidents that this project exists
// because of.
var putbacks = []putback{
	{
		name: "close-waits",
		bug:  "close waits for the appends before it signals that it closes; they wait for the end of recovery, which is told by that signal",
		pkg:  "mq/wal",
		edits: []edit{{"wal.go",
			"func (w *WAL) Close(ctx context.Context) error {\n\tw.transition(Closing, nil)\n",
			"func (w *WAL) Close(ctx context.Context) error {\n\tif n, _, _, _ := w.pending.load(); n > 0 {\n\t\t<-w.ready\n\t}\n\tw.transition(Closing, nil)\n"}},
		tests: []caught{
			{"TestEveryInterleaving/a_log_to_replay", "is opening after Close"},
			{"TestCloseIsBoundedWhereverTheQueueHangs", "deadlock: all goroutines in bubble are blocked"},
		},
	},
	{
		name: "callers-context",
		bug:  "recovery runs on a context that close does not own",
		pkg:  "mq/wal",
		edits: []edit{{"recovery.go",
			"func (r *recovery) run(ctx context.Context) error {\n",
			"func (r *recovery) run(ctx context.Context) error {\n\tctx = context.WithoutCancel(ctx)\n"}},
		tests: []caught{
			{"TestCloseFromManyGoroutinesAtOnceInEveryState", "blocked goroutines remain"},
			{"TestCloseIsBoundedWhereverTheQueueHangs", "blocked goroutines remain"},
		},
	},
	{
		name: "lock-across-append",
		bug:  "a lock is held while the queue stores an append",
		pkg:  "mq/wal",
		edits: []edit{{"writer.go",
			"\terr := s.w.calls.run(ctx, \"append\"",
			"\ts.w.mu.Lock()\n\tdefer s.w.mu.Unlock()\n\terr := s.w.calls.run(ctx, \"append\""}},
		tests: []caught{
			// A lock that is held keeps even virtual time from passing: they time out.
			{"TestABarrierEndsWithItsContextAndWithTheWAL", "sync.(*Mutex).Lock"},
			{"TestCloseIsBoundedWhereverTheQueueHangs", "sync.(*Mutex).Lock"},
		},
	},
	{
		name: "consumer-leak",
		bug:  "a consumer whose reading failed is not closed",
		pkg:  "dispatcher",
		edits: []edit{{"pump.go",
			"\tclosed := reader == nil || p.closeReader(reader, err)\n",
			"\tclosed := reader == nil || p.ctx.Err() == nil || p.closeReader(reader, err)\n"}},
		tests: []caught{
			{"TestReaderStuckAtACorruptMessage", "readers at the broker after Close"},
			{"TestBrokenReaderIsRebuilt", "readers at the broker"},
		},
	},
	{
		name: "pool-panics",
		bug:  "the pool passes the panic of a task on, and the process ends",
		pkg:  "pool",
		// In a goroutine, and nothing goes on: on the task's own stack the deferred
		// calls report to the test, which can end before the process does.
		edits: []edit{{"work.go", "\t\treturn outcomePanicked, err\n", "\t\tgo panic(pe)\n\t\tselect {}\n"}},
		tests: []caught{
			{"TestAPanicIsAnErrorWithAStackAndTheOnlyWorkerLivesOn", "panic: panic in"},
			{"TestTenThousandTasksOfAllKinds", "panic: panic in"},
		},
	},
}
