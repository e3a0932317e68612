package ingest

// Applied is the number of messages applied.
func (s *Sink) Applied() int64 { return s.applied.Load() }
