// Package proto holds the API of querynode: proto/querynode/v1 is the package
// querynode.v1 and its generated Go code.
package proto
