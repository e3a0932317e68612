package main

type segmentCmd struct {
	Build   segmentBuildCmd   `cmd:"" help:"Build a sealed segment with its index from a data file."`
	Inspect segmentInspectCmd `cmd:"" help:"Show what is in a segment: manifest, files, statistics, index."`
	Verify  segmentVerifyCmd  `cmd:"" help:"Compare every block of a segment with its checksum: exit code 1 if one differs."`
}
