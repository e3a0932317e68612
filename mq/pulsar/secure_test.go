package pulsar

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
)

// jwt makes a token for role, signed with key.
func jwt(key []byte, role string) string {
	b64 := base64.RawURLEncoding
	text := b64.EncodeToString([]byte(`{"alg":"HS256"}`)) + "." + b64.EncodeToString(fmt.Appendf(nil, `{"sub":%q}`, role))
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	return text + "." + b64.EncodeToString(mac.Sum(nil))
}

// certificate makes one for 127.0.0.1 that signs itself.
func certificate(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "127.0.0.1"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

func TestTLSAndToken(t *testing.T) {
	if os.Getenv(envRun) != "1" {
		t.Skipf("not part of this run: a broker of its own needs %s=1", envRun)
	}
	dir := t.TempDir()
	cert, key := certificate(t, dir)
	secret := []byte("0123456789abcdef0123456789abcdef")
	token := jwt(secret, "admin")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	_ = l.Close()
	b := &broker{dir: dir, env: []string{"PULSAR_TOKEN=" + token}, conf: strings.Join([]string{
		fmt.Sprintf("brokerServicePortTls=%d", port), "tlsCertificateFilePath=" + cert, "tlsKeyFilePath=" + key, "tlsTrustCertsFilePath=" + cert,
		"authenticationEnabled=true", "authenticationProviders=org.apache.pulsar.broker.authentication.AuthenticationProviderToken",
		"tokenSecretKey=data:;base64," + base64.StdEncoding.EncodeToString(secret), "superUserRoles=admin",
		"brokerClientAuthenticationPlugin=org.apache.pulsar.client.impl.auth.AuthenticationToken",
		"brokerClientAuthenticationParameters=token:" + token,
	}, " ")}
	t.Cleanup(b.stop)
	if err := b.start(); err != nil {
		t.Fatal(err)
	}
	tlsURL := fmt.Sprintf("pulsar+ssl://127.0.0.1:%d", port)
	tokenFile := filepath.Join(dir, "token")
	if err := os.WriteFile(tokenFile, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	for name, c := range map[string]struct {
		change func(*Options)
		class  errclass.Class
		says   string
	}{
		"token":         {func(o *Options) { o.Token = token }, 0, ""},
		"token and TLS": {func(o *Options) { o.URL, o.TLS.CAFile, o.TokenFile = tlsURL, cert, tokenFile }, 0, ""},
		"no token":      {func(*Options) {}, errclass.Denied, "uthenticat"},
		"wrong token":   {func(o *Options) { o.Token = jwt([]byte("another key"), "admin") }, errclass.Denied, "uthenticat"},
		"unknown CA":    {func(o *Options) { o.URL, o.Token = tlsURL, token }, errclass.Retryable, "unknown authority"},
	} {
		t.Run(name, func(t *testing.T) {
			q := b.queue(t, c.change, func(o *Options) { o.Logger = logger })
			p, err := q.OpenProducer(testCtx(t), "secure", mq.ProducerOptions{})
			if c.class != 0 {
				if !errclass.Is(err, c.class) || strings.Contains(fmt.Sprintf("%+v", err), token) || !strings.Contains(err.Error(), c.says) {
					t.Fatalf("%s: %+v", errclass.Of(err), err)
				}
				return
			}
			if err != nil {
				t.Fatalf("%+v", err)
			}
			mustAppend(t, p, msg(1))
			mustClose(t, q)
		})
	}
	if strings.Contains(log.String(), token) {
		t.Fatal("the log tells the token")
	}
}
