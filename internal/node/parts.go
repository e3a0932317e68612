package node

import (
	"fmt"
	"strings"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
)

// parts counts what became of the parts of one change. What is neither written nor in
// doubt was refused, or not tried after one that was.
type parts struct {
	all     int
	written int
	inDoubt int
	doubt   error // the first of those that may be written
	refusal error // the first of those that are not
}

// ended counts a part that was tried.
func (p *parts) ended(err error) {
	switch {
	case err == nil:
		p.written++
	case errors.Is(err, mq.ErrUnknownOutcome):
		p.inDoubt++
		if p.doubt == nil {
			p.doubt = err
		}
	case p.refusal == nil:
		p.refusal = err
	}
}

// err says what became of all; nil = all are written. Its cause and class are those of a
// part in doubt, if one is: who is told that a part was refused takes it for not written.
func (p *parts) err() error {
	cause := p.doubt
	if cause == nil {
		cause = p.refusal
	}
	if cause == nil {
		return nil
	}
	var became []string
	for _, x := range []struct {
		n    int
		what string
	}{{p.written, "written"}, {p.all - p.written - p.inDoubt, "refused"}, {p.inDoubt, "in doubt, which may be written"}} {
		if x.n > 0 {
			became = append(became, fmt.Sprintf("%d %s", x.n, x.what))
		}
	}
	err := errclass.Mark(errors.Wrapf(cause, "of %d parts of the change: %s", p.all, strings.Join(became, ", ")), errclass.Of(cause))
	if p.doubt != nil && p.refusal != nil {
		err = errors.WithSecondaryError(err, p.refusal)
	}
	return err
}
