// Package server is the gRPC adapter of the node: it validates shapes,
// translates between the API and Go, maps errors to codes and details, and adds
// what every call needs: a deadline, a recover, a log line, a metric.
package server
