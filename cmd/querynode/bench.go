package main

// benchCmd measures on the user's own data.
type benchCmd struct {
	Serve benchServeCmd `cmd:"" help:"Send searches to a node: calls a second, latency, recall, processor time."`
}
