package embedded

import (
	"testing"

	"github.com/querynode/querynode/internal/errclass"
)

func TestPoliciesHaveNames(t *testing.T) {
	for name, want := range policies {
		if got, err := ParseSync(name); err != nil || got != want {
			t.Errorf("%s is policy %d (%v), want %d", name, got, err, want)
		}
	}
	for _, name := range []string{"", "Always", "sometimes"} {
		if got, err := ParseSync(name); err == nil || errclass.Of(err) != errclass.Invalid {
			t.Errorf("%q is policy %d (%v)", name, got, err)
		}
	}
}
