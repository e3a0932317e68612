package main

import (
	"crypto/tls"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/cockroachdb/errors"
	"google.golang.org/grpc/credentials"
)

// certificate is a key pair in files that may be replaced while the node runs,
// as certificate managers do.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger
	mu                struct {
		sync.Mutex
		pair *tls.Certificate
		seen [2]time.Time // modification times of the files in pair
	}
}

// transport returns the credentials of the API; nil = plain text.
func transport(certFile, keyFile string, log *slog.Logger) (credentials.TransportCredentials, error) {
	if certFile == "" {
		return nil, nil
	}
	c := &certificate{certFile: certFile, keyFile: keyFile, log: log}
	if _, err := c.get(nil); err != nil {
		return nil, err
	}
	return credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.get}), nil
}

// get returns the pair, read again if a file has changed. A change that cannot
// be read, such as half of a replacement, leaves the old pair in use.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	var now [2]time.Time
	for i, name := range []string{c.certFile, c.keyFile} {
		if st, err := os.Stat(name); err == nil {
			now[i] = st.ModTime()
		}
	}
	c.mu.Lock()
	pair, seen := c.mu.pair, c.mu.seen
	c.mu.Unlock()
	if pair != nil && now == seen {
		return pair, nil
	}
	fresh, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	switch {
	case err != nil && pair == nil:
		return nil, errors.Wrapf(err, "read grpc.tls_cert %s and grpc.tls_key %s", c.certFile, c.keyFile)
	case err != nil:
		c.log.Warn("cannot read the changed certificate: the old one stays in use", "file", c.certFile, "error", err)
		return pair, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.pair, c.mu.seen = &fresh, now
	return &fresh, nil
}
