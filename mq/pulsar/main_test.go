package pulsar

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	code := m.Run()
	theBroker.b.stop()
	if !brokerWanted() {
		fmt.Println("the tests on a real Pulsar are not part of this run; to run them: QUERYNODE_TEST_PULSAR=1 go test ./mq/pulsar")
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			code = 1
		}
	}
	os.Exit(code)
}
