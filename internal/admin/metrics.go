package admin

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/querynode/querynode/dispatcher"
	"github.com/querynode/querynode/internal/lifecycle"
	"github.com/querynode/querynode/mq/wal"
	"github.com/querynode/querynode/pool"
	"github.com/querynode/querynode/segments"
)

// namespace begins every name. Names after it are those of Milvus' query node
// where the meaning is the same.
const namespace = "querynode"

// metric is one name with its labels.
type metric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func (m metric) emit(ch chan<- prometheus.Metric, v float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(m.desc, m.kind, v, labels...)
}

// histogram is the name of counts per bucket.
type histogram struct{ desc *prometheus.Desc }

// collector asks the parts at each scrape; it keeps nothing.
type collector struct {
	o   *Options
	all []*prometheus.Desc

	info, state                                                                metric
	collections, segments, entities, deleted, bytes                            metric
	loading, quarantined, problem                                              metric
	vchannels, lag, channelQuarantined                                         metric
	consumers, leaked, registered, closed, leaks, dispatchLag                  metric
	subscriptions, buffered, applied, skipped, rebuilds                        metric
	overflows, handovers, retries                                              metric
	reserved, reservedLimit, reservedAhead, refused                            metric
	queued, running, evicted, rejected, tasks, cost                            metric
	wait, taskTime                                                             histogram
	panics                                                                     metric
	disk, diskLimit, diskDeletes, fetches, fetchedBytes, fetchErrors           metric
	queueDisk, queueDiskLimit                                                  metric
	evictions, evictedBytes                                                    metric
	aside                                                                      metric
	broken, flushFailing, flushUnstored, flushUnindexed, logsAhead, lostTopics metric
	compactions, compactionsFailed, compactionFailing, dropped                 metric
	compactionAside, catalogConflicts, catalogRetries                          metric
	walInfo, walState, walAttempts, walAppended, walBytes                      metric
	walRefused, walPending, walTick, walReplayed, walTickErrors                metric
	walReplayedRows, walReplayedBytes                                          metric
	queueMessages, queueBytes, queueSyncs, queueFailed, queueBad               metric
	queueOpen, queueUnsynced                                                   metric
}

func newCollector(o *Options) *collector {
	c := &collector{o: o}
	of := func(kind prometheus.ValueType) maker {
		return func(name, help string, labels ...string) metric { return metric{c.describe(name, help, labels), kind} }
	}
	gauge, counter := of(prometheus.GaugeValue), of(prometheus.CounterValue)
	c.nodeMetrics(gauge, counter)
	c.readMetrics(gauge, counter)
	c.queueMetrics(gauge, counter)
	return c
}

type maker func(name, help string, labels ...string) metric

func (c *collector) describe(name, help string, labels []string) *prometheus.Desc {
	d := prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, labels, nil)
	c.all = append(c.all, d)
	return d
}

func (c *collector) histogram(name, help string) histogram {
	return histogram{c.describe(name, help, nil)}
}

func (c *collector) nodeMetrics(gauge, counter maker) {
	c.info = gauge("info", "Always 1; the labels say what runs.", "name", "version")
	c.state = gauge("state", "1 for the state that the node is in.", "state")
	c.collections = gauge("collection_num", "Collections that the node serves.")
	c.segments = gauge("segment_num", "Segments by state: growing, sealed (waits for its flush), loaded, quarantined.", "segment_state")
	c.entities = gauge("entity_num", "Rows by state of their segment, deleted ones included.", "segment_state")
	c.deleted = gauge("deleted_entity_num", "Rows that are deleted and still in their segment.", "segment_state")
	c.bytes = gauge("entity_size", "Bytes of heap and anonymous memory by state of the segment; mapped files are in reservation_bytes.", "segment_state")
	c.loading = gauge("load_segment_concurrency", "Segments that are being loaded.")
	c.quarantined = gauge("quarantined_segments", "Segments that are not searched: reads of them panicked, or they are damaged, in memory or so that they cannot be loaded (broken_segments).")
	c.broken = gauge("broken_segments", "Segments that the node is to serve and cannot load: damaged, gone, or too new.")
	c.aside = gauge("collections_aside", "Collections that are not served since what the catalog says of them cannot be read: damaged, or of a newer build.")
	c.flushFailing = gauge("flush_failing_channels", "Channels whose last flush failed, and topics whose last trim did: it is tried again, and the log grows meanwhile.")
	c.flushUnstored = gauge("flush_unstored_channels", "Channels with rows in their log that nobody stores: this node owns the log and does not watch them, or has just begun to.")
	c.flushUnindexed = counter("flush_unindexed_fields_total", "Fields of segments that were stored without their index, since there was no room to build it: they are scanned until a compaction has.")
	c.lostTopics = gauge("lost_topics", "Topics that have lost messages which are not stored, while this node owns their log, or that it had yet to read.")
	c.logsAhead = gauge("logs_ahead_seconds", "How far the log that is furthest ahead of the clock is, if more than 10 s: a machine whose clock was wrong has written to it.")
	c.compactions = counter("compaction_jobs_total", "Compactions that have changed the catalog.")
	c.compactionsFailed = counter("compaction_failed_total", "Compactions that failed.")
	c.compactionFailing = gauge("compaction_failing_channels", "Channels whose last compaction failed: it is tried again.")
	c.compactionAside = gauge("compaction_files_aside", "Segments and files of deletes that compactions leave alone since they cannot be read.")
	c.dropped = counter("compaction_rows_dropped_total", "Rows that compactions have dropped.")
	c.catalogConflicts = counter("catalog_conflicts_total", "Changes of the catalog that were tried again because another process was faster.")
	c.catalogRetries = counter("catalog_retries_total", "Changes of the catalog that were tried again because the storage failed.")
	c.problem = gauge("keeper_problem", "1 while something that is to be served is not, but for what is broken for good (broken_segments, quarantined_segments); /readyz and the log say what.")
	c.vchannels = gauge("dml_vchannel_num", "Channels that the node follows.")
	c.lag = gauge("consume_tt_lag_ms", "How far the applied timestamp of a channel is behind the clock.", "channel_name")
	c.channelQuarantined = gauge("channel_quarantined_messages", "Messages of a channel that could not be applied and were set aside.", "channel_name")
	c.reserved = gauge("reservation_bytes", "Memory in the ledger by kind; mapped does not count against the limit.", "kind")
	c.reservedLimit = gauge("reservation_limit_bytes", "Limit of the ledger; 0 = none.")
	c.reservedAhead = gauge("reservation_ahead_bytes", "What rows in logs that are not read yet, and building the next index of growing rows, will add to the ledger: inserts and what makes room go by that too.")
	c.refused = counter("reservation_refused_total", "Reservations that were refused for want of memory.")
	c.disk = gauge("disk_bytes", "What the node has on the local disk: files of sealed segments, of compactions and flushes under way, deletes that wait for object storage, and the embedded queue unless it is on a volume of its own.")
	c.diskLimit = gauge("disk_limit_bytes", "What the node may have on the local disk (disk.limit); 0 = no limit.")
	c.diskDeletes = gauge("disk_deletes_bytes", "What of it are deletes that are too many for memory and cannot go to object storage yet.")
	c.queueDisk = gauge("queue_disk_bytes", "What the embedded queue has on its disk.")
	c.queueDiskLimit = gauge("queue_disk_limit_bytes", "What the embedded queue may have on a volume of its own (disk.queue_limit); 0 = no limit, or it shares disk_limit_bytes.")
	c.fetches = counter("tier_fetches_total", "Vector fields of segments that were fetched from object storage because a read needed them, or in the background.")
	c.fetchedBytes = counter("tier_fetched_bytes_total", "Bytes of vector fields that were fetched from object storage.")
	c.fetchErrors = counter("tier_fetch_errors_total", "Fetches of vector fields from object storage that failed.")
	c.evictions = counter("tier_evictions_total", "Vector fields of segments that left the local disk for others.")
	c.evictedBytes = counter("tier_evicted_bytes_total", "Bytes of vector fields that left the local disk for others.")
	c.panics = counter("panics_recovered_total", "Panics that cost one task. Those of calls are in grpc_panics_recovered_total.", "site")
}

func (c *collector) readMetrics(gauge, counter maker) {
	c.queued = gauge("read_task_ready_len", "Search tasks that wait for a worker.")
	c.running = gauge("read_task_concurrency", "Search tasks that run.")
	c.cost = gauge("read_task_cost", "Cost of the search tasks that wait or run.")
	c.evicted = counter("read_evicted_count", "Search tasks dropped unrun because their deadline had passed.")
	c.rejected = counter("admission_rejected_total", "Search tasks that were not admitted.", "reason")
	c.tasks = counter("read_tasks_total", "Search tasks by outcome.", "status")
	c.wait = c.histogram("read_task_wait_seconds", "From admission to the start of a search task.")
	c.taskTime = c.histogram("read_task_run_seconds", "Run time of search tasks.")
}

func (c *collector) queueMetrics(gauge, counter maker) {
	c.consumers = gauge("consumers", "Consumers of the message queue.", "kind", "state")
	c.leaked = gauge("consumers_leaked", "Consumers whose reader hangs or did not close.")
	c.registered = counter("consumers_registered_total", "Consumers that were entered in the register.")
	c.closed = counter("consumers_closed_total", "Consumers that left the register.")
	c.leaks = counter("consumer_leaks_total", "Times that a reader hung or did not close.")
	c.dispatchLag = gauge("msg_dispatcher_tt_lag_ms", "How far the consumers of a pchannel are behind the clock, at most.", "channel_name")
	c.subscriptions = gauge("subscriptions", "Subscriptions by state.", "state")
	c.buffered = gauge("dispatcher_buffered_bytes", "Bytes given to subscriptions and not applied yet.")
	c.applied = counter("consume_msg_count", "Messages applied, counted for each subscription.")
	c.skipped = counter("replay_skipped_total", "Messages of the queue that were passed over in a replay.", "reason")
	c.rebuilds = counter("consumer_rebuilds_total", "Readers replaced after a failure.")
	c.overflows = counter("subscription_overflows_total", "Times a subscription was too slow for the shared consumer.")
	c.handovers = counter("subscription_handovers_total", "Times a subscription went back to the shared consumer.")
	c.retries = counter("sink_retries_total", "Batches that had to be applied again.")
	c.walInfo = gauge("wal_info", "Always 1; the labels say who owns the log.", "channel_name", "term")
	c.walState = gauge("wal_state", "1 for the state that the log is in.", "channel_name", "state")
	c.walAttempts = gauge("wal_open_attempts", "Openings of the log since it was last well.", "channel_name")
	c.walReplayedRows = gauge("wal_replayed_rows", "Rows that the channels on the log have read since they are watched.", "channel_name")
	c.walReplayedBytes = gauge("wal_replayed_bytes", "Bytes that the channels on the log have read since they are watched.", "channel_name")
	c.walReplayed = gauge("wal_recovery_share", "Part of the log that has been replayed, 0 to 1.", "channel_name")
	c.walAppended = counter("wal_append_message_total", "Entries of the log that were acknowledged.", "channel_name")
	c.walBytes = counter("wal_append_message_bytes", "Bytes of the entries of the log that were acknowledged.", "channel_name")
	c.walRefused = counter("wal_append_refused_total", "Appends to the log that got an error.", "channel_name")
	c.walPending = gauge("wal_pending_entries", "Appends that are queued or being written.", "channel_name")
	c.walTick = gauge("wal_last_confirmed_time_tick", "Physical time of the newest entry, in milliseconds.", "channel_name")
	c.walTickErrors = counter("wal_timetick_errors_total", "Timeticks that could not be written.", "channel_name")
	c.queueMessages = counter("queue_messages_total", "Messages that the embedded queue acknowledged.")
	c.queueBytes = counter("queue_bytes_total", "Bytes on disk of the messages that the embedded queue acknowledged.")
	c.queueSyncs = counter("queue_syncs_total", "Syncs of the embedded queue.")
	c.queueFailed = counter("queue_failed_writes_total", "Writes or syncs of the embedded queue that failed.")
	c.queueBad = counter("queue_corrupt_reads_total", "Damaged messages that readers of the embedded queue were told of.")
	c.queueUnsynced = counter("queue_unsynced_ends_total", "Topics of the embedded queue of which acknowledged messages may be gone, since the machine went down before they were synced (queue.sync interval or none).")
	c.queueOpen = gauge("queue_open", "Handles of the embedded queue.", "what")
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.all {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	c.info.emit(ch, 1, c.o.Name, c.o.Version)
	now := c.o.Machine.State()
	for s := lifecycle.Starting; s <= lifecycle.Stopped; s++ {
		c.state.emit(ch, is(s == now), s.String())
	}
	p := c.o.Parts()
	if p == nil {
		return
	}
	c.collectSegments(ch, p)
	c.collectStores(ch, p)
	c.collectDispatcher(ch, p)
	c.collectLogs(ch, p)
	if p.Pool != nil {
		c.collectPool(ch, p.Pool.Stats())
	}
	if p.Queue != nil {
		q := p.Queue.Stats()
		c.queueMessages.emit(ch, float64(q.Messages))
		c.queueBytes.emit(ch, float64(q.Bytes))
		c.queueSyncs.emit(ch, float64(q.Syncs))
		c.queueFailed.emit(ch, float64(q.FailedWrites))
		c.queueBad.emit(ch, float64(q.CorruptReads))
		c.queueUnsynced.emit(ch, float64(q.UnsyncedEnds))
		c.queueOpen.emit(ch, float64(q.Topics), "topics")
		c.queueOpen.emit(ch, float64(q.Producers), "producers")
		c.queueOpen.emit(ch, float64(q.Readers), "readers")
	}
}

func is(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

func (c *collector) collectSegments(ch chan<- prometheus.Metric, p *Parts) {
	set := p.Node.Segments()
	type sum struct{ n, rows, deleted, bytes int64 }
	sums := map[segments.SegmentState]*sum{}
	for _, state := range segments.SegmentStates() {
		sums[state] = &sum{} // shown also at 0
	}
	collections := set.Collections()
	for _, coll := range collections {
		for _, st := range coll.Segments() {
			s, known := sums[st.State]
			if !known {
				continue
			}
			s.n, s.rows, s.deleted, s.bytes = s.n+1, s.rows+int64(st.Rows), s.deleted+int64(st.DeletedRows), s.bytes+st.MemoryBytes
		}
	}
	c.collections.emit(ch, float64(len(collections)))
	for state, s := range sums {
		label := string(state)
		c.segments.emit(ch, float64(s.n), label)
		c.entities.emit(ch, float64(s.rows), label)
		c.deleted.emit(ch, float64(s.deleted), label)
		c.bytes.emit(ch, float64(s.bytes), label)
	}
	// As querynode status has them: those that were never loaded, too.
	c.quarantined.emit(ch, float64(sums[segments.StateQuarantined].n)+float64(p.Node.BrokenSegments()))
	c.loading.emit(ch, float64(len(set.Loading())))
	c.problem.emit(ch, is(p.Node.Problem() != nil))
	channels := p.Node.Channels()
	c.vchannels.emit(ch, float64(len(channels)))
	for _, v := range channels {
		c.lag.emit(ch, float64(v.Lag.Milliseconds()), v.VChannel)
		c.channelQuarantined.emit(ch, float64(v.Quarantined), v.VChannel)
	}
	l := set.Ledger()
	used := l.Used()
	for _, k := range segments.Kinds() {
		c.reserved.emit(ch, float64(used[k]), string(k))
	}
	c.reservedLimit.emit(ch, float64(l.Limit()))
	c.reservedAhead.emit(ch, float64(l.Ahead()))
	c.refused.emit(ch, float64(l.Refused()))
	d := set.Disk()
	c.disk.emit(ch, float64(d.Used))
	c.diskLimit.emit(ch, float64(d.Limit))
	c.diskDeletes.emit(ch, float64(d.Deletes))
	c.queueDisk.emit(ch, float64(d.Queue))
	c.queueDiskLimit.emit(ch, float64(d.QueueLimit))
	c.fetches.emit(ch, float64(d.Fetches))
	c.fetchedBytes.emit(ch, float64(d.FetchedBytes))
	c.fetchErrors.emit(ch, float64(d.FetchErrors))
	c.evictions.emit(ch, float64(d.Evictions))
	c.evictedBytes.emit(ch, float64(d.EvictedBytes))
}

// collectStores is about what goes to object storage and is fetched from there.
func (c *collector) collectStores(ch chan<- prometheus.Metric, p *Parts) {
	c.broken.emit(ch, float64(p.Node.BrokenSegments()))
	c.aside.emit(ch, float64(len(p.Node.SetAside())))
	c.flushFailing.emit(ch, float64(p.Node.FlushesFailing()))
	ahead := 0.0
	for _, a := range p.Node.LogsAhead() {
		ahead = max(ahead, a.By.Seconds())
	}
	c.logsAhead.emit(ch, ahead)
	c.lostTopics.emit(ch, float64(len(p.Node.LostTopics())))
	c.flushUnindexed.emit(ch, float64(p.Node.UnindexedFields()))
	c.flushUnstored.emit(ch, float64(len(p.Node.UnstoredChannels())))
	st := p.Node.Compaction()
	c.compactions.emit(ch, float64(st.Stats.Jobs))
	c.compactionsFailed.emit(ch, float64(st.Stats.Failed))
	c.compactionFailing.emit(ch, float64(len(st.Failing)))
	c.compactionAside.emit(ch, float64(len(st.Aside)))
	c.dropped.emit(ch, float64(st.Stats.RowsIn-st.Stats.RowsOut))
	k := p.Node.CatalogStats()
	c.catalogConflicts.emit(ch, float64(k.Conflicts))
	c.catalogRetries.emit(ch, float64(k.Retries))
}

func (c *collector) collectDispatcher(ch chan<- prometheus.Metric, p *Parts) {
	d := p.Node.Dispatcher()
	st := d.Stats()
	type group struct{ kind, state string }
	groups := map[group]int{}
	lags := map[string]int64{}
	for _, con := range d.Consumers() {
		groups[group{string(con.Kind), string(con.State)}]++
		if con.Lag.MS >= 0 {
			lags[con.PChannel] = max(lags[con.PChannel], con.Lag.MS)
		}
	}
	for g, n := range groups {
		c.consumers.emit(ch, float64(n), g.kind, g.state)
	}
	for name, ms := range lags {
		c.dispatchLag.emit(ch, float64(ms), name)
	}
	for s := dispatcher.Subscribing; s <= dispatcher.Failed; s++ {
		c.subscriptions.emit(ch, float64(st.Subscriptions[s]), s.String())
	}
	c.leaked.emit(ch, float64(st.Leaked))
	c.registered.emit(ch, float64(st.Registered))
	c.closed.emit(ch, float64(st.Closed))
	c.leaks.emit(ch, float64(st.Leaks))
	c.buffered.emit(ch, float64(st.BufferedBytes))
	c.applied.emit(ch, float64(st.Applied))
	c.skipped.emit(ch, float64(st.Corrupt), "corrupt")
	c.skipped.emit(ch, float64(st.SetAside), "panicked")
	c.skipped.emit(ch, float64(st.Duplicates), "duplicate")
	c.skipped.emit(ch, float64(st.PositionsLost), "position lost")
	c.rebuilds.emit(ch, float64(st.Rebuilds))
	c.overflows.emit(ch, float64(st.Overflows))
	c.handovers.emit(ch, float64(st.Handovers))
	c.retries.emit(ch, float64(st.SinkRetries))
	c.panics.emit(ch, float64(st.SinkPanics), "sink")
	c.panics.emit(ch, float64(st.Panics), "dispatcher")
}

func (c *collector) collectLogs(ch chan<- prometheus.Metric, p *Parts) {
	for _, l := range p.Node.Logs() {
		c.walInfo.emit(ch, is(l.Assigned), l.PChannel, strconv.FormatUint(l.Term, 10))
		for s := wal.Opening; s <= wal.Failed; s++ {
			c.walState.emit(ch, is(s == l.State), l.PChannel, s.String())
		}
		c.walAttempts.emit(ch, float64(l.Attempts), l.PChannel)
		c.walReplayed.emit(ch, l.Replay.Share, l.PChannel)
		c.walReplayedRows.emit(ch, float64(l.Replay.Rows), l.PChannel)
		c.walReplayedBytes.emit(ch, float64(l.Replay.Bytes), l.PChannel)
		w, err := p.Node.WALs().Get(l.PChannel)
		if err != nil {
			continue // none is open just now: its state says so
		}
		st := w.Stats()
		c.walAppended.emit(ch, float64(st.Appended), l.PChannel)
		c.walBytes.emit(ch, float64(st.AppendedBytes), l.PChannel)
		c.walRefused.emit(ch, float64(st.Refused), l.PChannel)
		c.walPending.emit(ch, float64(st.PendingEntries+st.WaitingEntries), l.PChannel)
		c.walTick.emit(ch, float64(wal.Physical(st.LastTimestamp)), l.PChannel)
		c.walTickErrors.emit(ch, float64(st.TickErrors), l.PChannel)
	}
}

func (c *collector) collectPool(ch chan<- prometheus.Metric, st pool.Stats) {
	c.queued.emit(ch, float64(st.Queued))
	c.running.emit(ch, float64(st.Running))
	c.cost.emit(ch, float64(st.CostInUse))
	c.evicted.emit(ch, float64(st.Expired))
	r := st.Rejected
	for reason, n := range map[string]uint64{"queue full": r.Full, "cost": r.Cost, "expired": r.Expired, "nested": r.Nested, "closed": r.Closed, "invalid": r.Invalid} {
		c.rejected.emit(ch, float64(n), reason)
	}
	for outcome, n := range map[string]uint64{"success": st.Completed, "fail": st.Failed, "panic": st.Panicked, "cancelled": st.Cancelled} {
		c.tasks.emit(ch, float64(n), outcome)
	}
	c.panics.emit(ch, float64(st.Panicked), "pool")
	c.wait.emit(ch, &st.Wait)
	c.taskTime.emit(ch, &st.Run)
}

// emit turns counts per bucket into the sums that Prometheus wants.
func (m histogram) emit(ch chan<- prometheus.Metric, h *pool.Histogram) {
	buckets := map[float64]uint64{}
	var below uint64
	for i, bound := range pool.Bounds() {
		below += h.Counts[i]
		buckets[bound.Seconds()] = below
	}
	ch <- prometheus.MustNewConstHistogram(m.desc, h.Total(), h.Sum.Seconds(), buckets)
}
