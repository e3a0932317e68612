// Package pool runs tasks on a bounded number of workers.
//
// It stands on ants/v2 for its goroutines and adds what a server needs around
// them: a bounded admission queue that counts tasks and cost, contexts, one
// answer per task, and a Close that waits and names what did not stop.
//
//	Submit ──admission──► queue (urgent, normal) ──► slot ──► Run(ctx) ──► Future
//	   │                    │                                   │
//	   ├ ErrQueueFull       ├ ErrExpired (ctx ended, not run)   ├ nil, the task's error
//	   ├ ErrTooCostly       └ ErrClosed  (Close, not run)       ├ *PanicError
//	   ├ ErrNested                                              └ ErrGoexit
//	   └ ErrClosed
//
// What holds:
//
//   - At most Options.Workers tasks run at a time. A task that panics, faults in
//     mapped memory, or ends its goroutine with runtime.Goexit costs itself only:
//     its future is answered, its slot goes on, nothing else is cancelled.
//   - Each admitted task is answered exactly once, in one function (Future.answer).
//   - Nobody waits for admission: a full queue is an error with a retry hint.
//   - A task whose context has ended while it was queued is never run.
//   - A task must not submit to its own pool, nor wait for it: with all workers
//     doing so nobody would be left to work. The context that a task gets says
//     where it runs, also through further pools; Submit and Wait then return
//     ErrNested. A task that hides it by using context.Background is not noticed.
//   - What a recover cannot catch (concurrent map writes, stack overflow, out of
//     memory) is not caught here either.
//
// # How ants is used
//
// The pool hands ants a loop, not a task: a loop owns one of the Workers slots
// and takes tasks from the queue until it is empty, then gives the slot up and
// its goroutine goes back to ants for reuse. Slots are counted here, under the
// same lock as the queue, so ants itself is opened without a limit: its Submit
// then never blocks and never refuses, which matters because a goroutine whose
// slot has been given up is for a moment still counted by ants. Tasks recover
// inside the loop, so ants' panic handler is a last resort that stays unused.
package pool
