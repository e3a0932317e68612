// Package e2e tests a whole node in this process, over gRPC on the loopback
// interface, with the embedded queue and object storage in a folder.
package e2e
