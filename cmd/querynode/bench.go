package main

// benchCmd measures on the user's own data.
type benchCmd struct {
	Index  benchIndexCmd  `cmd:"" help:"Build an index over vectors in a file and search it: speed at given recall, size, times."`
	Memory benchMemoryCmd `cmd:"" help:"Read memory at random places: what the machine allows a search at most."`
	Serve  benchServeCmd  `cmd:"" help:"Send searches to a node: calls a second, latency, recall, processor time."`
	Append benchAppendCmd `cmd:"" help:"Append rows until they are durable: rows a second, latency."`
}
